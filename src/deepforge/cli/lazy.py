"""A command group whose commands are imported only when they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """`lazy` maps a command's name to where it is (`module:name`) and the sentence that `--help` of
    the group shows, so that help imports none of them."""

    def __init__(
        self,
        *arguments: Any,  # handed on to click
        lazy: Mapping[str, tuple[str, str]],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        from importlib import import_module

        module, _, name = self._lazy[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, sentence) for name, (_, sentence) in self._lazy.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

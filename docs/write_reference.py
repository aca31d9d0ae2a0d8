"""Write docs/reference/{cli,adapters,errors}.md from the code; a house test says when to.

Run it with `.venv/bin/python docs/write_reference.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from deepforge import plugins
from deepforge.cli.main import EXIT_CODES, cli
from deepforge.errors import DeepForgeError
from deepforge.server.wire import STATUS
from deepforge.settings import Setting, declared

REFERENCE = Path(__file__).parent / "reference"


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    return {"cli.md": cli_page(), "adapters.md": adapters_page(), "errors.md": errors_page()}


def cli_page() -> str:
    parts = [
        "# Command line",
        "What `--help` says of each command. Errors go to standard error as `error: …` and"
        " `hint: …`; with `--json` they are also the last line of standard output.",
        "Exit codes: 0 success, 1 failed, 2 wrong usage or an invalid project, 3 settings, access or a"
        " service that does not answer, 4 not found, 5 exists already or was changed meanwhile, 130"
        " cancelled. [Errors](errors.md) lists them one by one.",
    ]
    for context, command in commands():
        help_text = command.get_help(context).rstrip()
        parts += [f"## {context.command_path}", f"```text\n{help_text}\n```"]
    return "\n\n".join(parts) + "\n"


def commands() -> Iterator[tuple[click.Context, click.Command]]:
    """Every command with its context, in the order of the help."""

    def walk(command: click.Command, context: click.Context) -> Iterator:
        yield context, command
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                yield from walk(inner, _context(inner, name, context))

    yield from walk(cli, _context(cli, "deepforge", None))


def adapters_page() -> str:
    parts = [
        "# Adapters",
        "Their settings are the options of `deepforge storage add` and `deepforge compute add`, the"
        " fields of the web form, and [environment variables](environment.md). Secrets are kept"
        " encrypted and never shown again.",
    ]
    ports: tuple[plugins.Port, ...] = ("storage", "compute")
    for port in ports:
        parts.append(f"## {port.capitalize()}")
        for info in plugins.adapters(port):
            assert isinstance(info, plugins.AdapterInfo), info
            parts += [f"### {info.id}", f"{info.title}. {info.summary}"]
            settings = declared(info.settings_class())
            rows = [_setting_row(one) for one in settings]
            if rows:
                parts.append("\n".join(["| setting | default | |", "|---|---|---|", *rows]))
            else:
                parts.append("No settings.")
    return "\n\n".join(parts) + "\n"


def errors_page() -> str:
    rows = ["| code | exit code | HTTP status | again? | |", "|---|---|---|---|---|"]
    for kind in _kinds():
        sentence = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        again = "may help" if kind.transient else ""
        exit_code = EXIT_CODES.get(kind.code, 1)
        rows.append(f"| `{kind.code}` | {exit_code} | {STATUS[kind.code]} | {again} | {sentence} |")
    return (
        "\n\n".join(
            [
                "# Errors",
                "An error says what happened to which thing; its hint is the next step. The API answers"
                ' `{"error": {"code", "message", "hint", "transient", "details"}}`.',
                "\n".join(rows),
                "A command line that cannot be understood ends with exit code 2 and the code `usage`. An"
                " execution that failed ends `deepforge run` with 1, a cancelled one with 130.",
            ]
        )
        + "\n"
    )


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(
        command, info_name=name, parent=parent, terminal_width=100, **command.context_settings
    )


def _setting_row(one: Setting) -> str:
    default = "required" if one.required else "" if one.is_secret else f"`{one.default}`"
    if default in ("`None`", "``"):
        default = ""
    about = one.sentence
    if one.choices:
        about += " One of " + ", ".join(f"`{choice}`" for choice in one.choices) + "."
    if one.unit:
        about += f" In {one.unit}."
    if one.example:
        about += f" Such as `{one.example}`."
    if one.is_secret:
        about += " Secret."
    return f"| `{one.name}` | {default} | {about} |"


def _kinds() -> list[type[DeepForgeError]]:
    def below(kind: type[DeepForgeError]) -> Iterator[type[DeepForgeError]]:
        for one in kind.__subclasses__():
            if one.__module__ == DeepForgeError.__module__:
                yield one
                yield from below(one)

    return list(below(DeepForgeError))


if __name__ == "__main__":
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)

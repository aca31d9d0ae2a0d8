"""Adapters are found by entry points, load on first use, and a broken one is listed, not fatal."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, Literal

from deepforge.errors import ConfigError, NotFound

Port = Literal["storage", "compute"]

PORT_VERSIONS: dict[Port, int] = {"storage": 1, "compute": 1}


@dataclass(frozen=True)
class AdapterInfo:
    """A light description of an adapter. Making one imports nothing heavy.

    `settings` and `adapter` are written `package.module:Name`; they are imported on first use.
    """

    id: str
    title: str
    summary: str
    settings: str
    adapter: str
    port_version: int = 1
    on_server: bool = False
    """Whether it works with files, memory or processes of the server's own machine."""
    account: tuple[str, ...] = ()
    """Settings that name an account of a service: what one owner connects with the same values of
    these shares one login, the secret `token`."""
    docs_url: str | None = None
    install_hint: str | None = None

    def settings_class(self) -> type[Any]:
        return _load(self, self.settings)

    def adapter_class(self) -> type[Any]:
        return _load(self, self.adapter)


@dataclass(frozen=True)
class Broken:
    """An entry point that could not be read: what to show in its place."""

    id: str
    reason: str


def adapters(port: Port) -> tuple[AdapterInfo | Broken, ...]:
    """List what is installed for a port, sorted by id. Never raises for a broken plugin."""
    return _read_all(port)


def adapter(port: Port, id: str) -> AdapterInfo:
    """Find one adapter. Raises `NotFound`, or `ConfigError` with the reason when it is broken."""
    for one in adapters(port):
        if one.id != id:
            continue
        if isinstance(one, Broken):
            raise ConfigError(f"{port} adapter {id!r} is broken: {one.reason}")
        return one
    known = ", ".join(one.id for one in adapters(port)) or "none"
    raise NotFound(f"there is no {port} adapter {id!r}", hint=f"installed are: {known}")


@cache
def _read_all(port: Port) -> tuple[AdapterInfo | Broken, ...]:
    found = metadata.entry_points(group=f"deepforge.{port}")
    return tuple(sorted((_read(port, one) for one in found), key=lambda one: one.id))


def _read(port: Port, entry: metadata.EntryPoint) -> AdapterInfo | Broken:
    try:
        info = entry.load()
    except Exception as error:  # a plugin may raise anything at import
        return Broken(entry.name, f"{entry.value} could not be imported: {error!r}")
    if not isinstance(info, AdapterInfo):
        return Broken(entry.name, f"{entry.value} is {type(info).__name__}, not an AdapterInfo")
    if info.port_version != PORT_VERSIONS[port]:
        return Broken(
            entry.name,
            f"it was written for version {info.port_version} of the {port} port; "
            f"this DeepForge has version {PORT_VERSIONS[port]}",
        )
    return info


def _load(info: AdapterInfo, spelled: str) -> type[Any]:
    module, _, name = spelled.partition(":")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"adapter {info.id!r} cannot be loaded: {error}", hint=info.install_hint
        ) from error

"""Connections kept: named storages and computes, their secrets sealed.

Three sources, the later ones first: variables `DEEPFORGE_STORAGE_<NAME>__<FIELD>` (or `_COMPUTE_`)
change single settings, and with `__ADAPTER` define a connection wholly; documents hold what users
added; and the storage `local` and the compute `server` are always there. What the environment defines
is everybody's. Of what belongs to one user, it changes only what is `LOCAL_OWNER`'s: its secrets must
not go where another user says.
"""

from __future__ import annotations

import builtins
import os
import re
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepforge import plugins
from deepforge.compute.port import Host
from deepforge.connections.endpoints import EVERYTHING, AllowedEndpoints, check_endpoints
from deepforge.connections.refusals import REFUSED, Refusals
from deepforge.connections.secrets import SecretBox
from deepforge.documents.port import Collection, Document, DocumentStore
from deepforge.errors import (
    AdapterBug,
    AlreadyExists,
    ConfigError,
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
)
from deepforge.ids import new_id, utc_now
from deepforge.plugins import AdapterInfo, Port
from deepforge.settings import Secret, build, declared, from_environment, split_secrets

CONNECTIONS = Collection(
    "connections", unique=(("owner", "port", "name"),), indexes=(("owner", "port"),)
)
COLLECTIONS = (CONNECTIONS, REFUSED)

LOCAL_OWNER = "local"
"""Who owns the home folder, and what the command line makes in it."""

DEFAULT_STORAGE = "local"
DEFAULT_COMPUTE = "server"

_DEFAULTS: Mapping[Port, str] = {"storage": DEFAULT_STORAGE, "compute": DEFAULT_COMPUTE}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Connection:
    """A storage or compute under a name. `settings` are plain JSON, secrets only named.

    `revision` is 0 for one that is not kept as a document: a default, or one that the environment
    defines. `owner` is empty for one that is everybody's.
    """

    id: str
    port: Port
    name: str
    adapter: str
    settings: Mapping[str, Any]
    secret_names: tuple[str, ...]
    owner: str
    created_at: str
    revision: int


async def _owner_of_home(owner: str) -> bool:
    return owner == LOCAL_OWNER


class Connections:
    """Add and find connections. `home` is the folder in which the storage `local` keeps its data.

    `may_use_server` says whether an owner may use adapters that work on the server's own machine,
    `endpoints` what may be called for the storages that users add.
    """

    def __init__(
        self,
        documents: DocumentStore,
        box: SecretBox,
        *,
        home: Path,
        environ: Mapping[str, str] = os.environ,
        may_use_server: Callable[[str], Awaitable[bool]] = _owner_of_home,
        endpoints: AllowedEndpoints = EVERYTHING,
    ) -> None:
        self._documents = documents
        self._box = box
        self._home = home
        self._environ = environ
        self._may_use_server = may_use_server
        self._endpoints = endpoints
        self.refusals = Refusals(documents, box)
        """The logins that services refused: they are not tried again until they are given anew."""
        self.changes = 0
        """How often a connection was added or removed here: what was looked up before may be stale."""

    async def add(
        self, port: Port, name: str, adapter: str, values: Mapping[str, Any], *, owner: str
    ) -> Connection:
        """Keep a connection; nothing is contacted. Values are texts or typed, secrets among them.

        Raises `ConfigError` naming each wrong setting, an endpoint that may not be called among them
        (for that its name may be looked up), `NotFound` for an unknown adapter,
        `InvalidRequest` for a name that is not allowed, `AlreadyExists` for one that is taken,
        `Forbidden` for an adapter that this owner may not use. Without a secret, it gets the login of
        what the owner has at the same account.
        """
        _check_name(port, name)
        if name == _DEFAULTS[port] or "adapter" in self._environment(port, name):
            raise AlreadyExists(
                f"the {port} {name!r} is there already, and cannot be replaced",
                hint=f"take another name, or set {_variables(port, name)}… to change its settings",
            )
        id = new_id()
        made = await self._made(port, name, adapter, values, owner, id)
        await check_endpoints(made.endpoints, self._endpoints, opening=False)
        body = {
            "port": port,
            "name": name,
            "adapter": adapter,
            **self._kept(id, made.settings),
            "owner": owner,
            "created_at": utc_now(),
        }
        await self._believe(plugins.adapter(port, adapter), made.settings, values.keys())
        try:
            return _connection(await self._documents.insert(CONNECTIONS.name, id, body))
        except AlreadyExists as error:
            raise AlreadyExists(
                f"there is a {port} {name!r} already",
                hint=f"take another name, or: deepforge {port} remove {name}",
            ) from error

    async def draft(
        self, port: Port, adapter: str, values: Mapping[str, Any], *, owner: str
    ) -> Any:  # an adapter of the port
        """Make an adapter of settings that are not kept, to look at its service: it is not opened.

        What it calls may be called. Logins and errors as of `add`.
        """
        made = await self._made(port, adapter, adapter, values, owner, new_id())
        await check_endpoints(made.endpoints, self._endpoints, opening=True)
        return made

    async def replace_secrets(
        self, port: Port, name: str, secrets: Mapping[str, Any], *, owner: str
    ) -> Connection:
        """Keep these in place of the secrets of those names; None forgets one. Nothing is contacted.

        Whatever uses the connection, running executions too, goes on with them. Other settings do not
        change: a secret must not go where it was not meant for. A kept secret that the service refused
        is forgotten, and one that is given anew may be tried again. Raises `NotFound`, `ConfigError` for
        what is no secret of the adapter, `InvalidRequest` for a connection that is not kept as a
        document, and `Conflict` if somebody else changed it meanwhile.
        """
        one = await self.get(port, name, owner=owner)
        _must_be_kept(one, "changed")
        info = plugins.adapter(port, one.adapter)
        known = {each.name for each in declared(info.settings_class()) if each.is_secret}
        if wrong := dict.fromkeys(secrets.keys() - known, "is no secret of this adapter"):
            raise ConfigError(f"{', '.join(wrong)} cannot be replaced", fields=wrong)
        stale = await self._refused(info, one, besides=secrets.keys())
        values = {**one.settings, **await self._secrets(one), **stale, **secrets}
        kept = {field: value for field, value in values.items() if value is not None}
        settings = build(info.settings_class(), kept)
        self._try_out(port, info, settings, one.id)
        await self._believe(info, settings, secrets.keys())
        document = await self._documents.get(CONNECTIONS.name, one.id)
        body = {**document.body, **self._kept(one.id, settings)}
        document = await self._documents.replace(
            CONNECTIONS.name, one.id, body, if_revision=one.revision
        )
        self.changes += 1
        return _connection(document)

    async def get(self, port: Port, name: str, *, owner: str) -> Connection:
        """Find what goes by this name. Raises `NotFound` listing the names there are."""
        for one in self._defined(port):
            if one.name == name:
                return one
        if name == _DEFAULTS[port]:
            return self._default(port, owner)
        equal = {"owner": owner, "port": port, "name": name}
        for document in await self._documents.find(CONNECTIONS.name, equal, limit=1):
            return _connection(document)
        known = ", ".join(one.name for one in await self.list(port, owner=owner))
        raise NotFound(f"there is no {port} {name!r}", hint=f"there is: {known}")

    async def allowed(self, port: Port, name: str, *, owner: str) -> Connection:
        """Find it as `get` does, for something that begins now.

        Raises `Forbidden` when it works on the server's own machine, and this owner may not. What is
        under way does not ask: it goes on when a permission ends.
        """
        one = await self.get(port, name, owner=owner)
        if one.adapter == one.name == DEFAULT_STORAGE and port == "storage":
            return one  # everybody has a folder of their own
        info = plugins.adapter(port, one.adapter)
        if info.on_server and not await self._may_use_server(owner):
            raise _forbidden(port, name, owner, info)
        return one

    async def list(self, port: Port, *, owner: str) -> builtins.list[Connection]:
        """List all that this owner may use, by name: own, the environment's, the default."""
        found = {_DEFAULTS[port]: self._default(port, owner)}
        equal = {"owner": owner, "port": port}
        for document in await self._documents.find(CONNECTIONS.name, equal):
            found[document.body["name"]] = _connection(document)
        found |= {one.name: one for one in self._defined(port)}
        return sorted(found.values(), key=lambda one: one.name)

    async def remove(self, port: Port, name: str, *, owner: str) -> None:
        """Forget a connection and its secrets. The data in it stay where they are.

        Raises `NotFound`, and `InvalidRequest` for one that is not kept as a document.
        """
        one = await self.get(port, name, owner=owner)
        _must_be_kept(one, "removed")
        await self._documents.delete(CONNECTIONS.name, one.id)
        self.changes += 1

    async def settings_of(self, connection: Connection) -> Any:  # the adapter's own dataclass
        """Return the adapter's settings with secrets, the environment's changes applied.

        Raises `ConfigError` for a setting that is wrong by now, or a secret that the key at hand does
        not open; `NotFound` if the connection was removed.
        """
        port, name = connection.port, connection.name
        kind = plugins.adapter(port, connection.adapter).settings_class()
        values = {**connection.settings, **await self._secrets(connection)}
        changed = self._changes(connection)
        try:
            return build(kind, {**values, **changed})
        except ConfigError as error:
            hint = f"look at the variables {_variables(port, name)}…" if changed else error.hint
            message = f"{port} {name!r}: {error.message}"
            raise ConfigError(message, fields=error.fields, hint=hint) from error

    async def admit(self, connection: Connection, endpoints: Mapping[str, str]) -> None:
        """Return if a storage or compute that is opened now may call these URLs, by the setting of each.

        What the environment sets was set by the operator, and may. Errors as of `check_endpoints`.
        """
        if connection.revision == 0:
            return
        changed = self._changes(connection)
        typed = {field: url for field, url in endpoints.items() if field not in changed}
        await check_endpoints(typed, self._endpoints, opening=True)

    async def _made(
        self,
        port: Port,
        name: str,
        adapter: str,
        values: Mapping[str, Any],
        owner: str,
        id: str,
    ) -> Any:  # an adapter of the port
        """The adapter of new settings, as far as this owner may use it."""
        info = plugins.adapter(port, adapter)
        if info.on_server and not await self._may_use_server(owner):
            raise _forbidden(port, name, owner, info)
        settings = build(info.settings_class(), values)
        if info.account and not any(split_secrets(settings)[1].values()):
            settings = replace(settings, token=await self._login(info, settings, owner))
        return self._try_out(port, info, settings, id)

    async def _login(self, info: AdapterInfo, settings: Any, owner: str) -> Secret | None:
        """The token with which the owner uses the same account elsewhere; None if there is none."""
        for document in await self._documents.find(
            CONNECTIONS.name, {"owner": owner}, sort="id", descending=True
        ):
            one = _connection(document)
            is_same = one.adapter == info.id and all(
                _plain(one.settings.get(field)) == _plain(getattr(settings, field))
                for field in info.account
            )
            if is_same and "token" in one.secret_names:
                return (await self._secrets(one))["token"]
        return None

    async def _refused(
        self, info: AdapterInfo, one: Connection, *, besides: Container[str]
    ) -> dict[str, None]:
        """The kept secrets that the service refused, but those that are replaced."""
        account = tuple(str(one.settings.get(field)) for field in info.account)
        return {
            field: None
            for field, secret in (await self._secrets(one)).items()
            if account and field not in besides and await self.refusals.has(account, secret)
        }

    async def _believe(self, info: AdapterInfo, settings: Any, given: Container[str]) -> None:
        """Let the secrets that their user gave just now be tried, whatever was known of them."""
        account = tuple(str(getattr(settings, field)) for field in info.account)
        for field, text in split_secrets(settings)[1].items():
            if account and text and field in given:
                await self.refusals.forget(account, Secret(text))

    def _try_out(self, port: Port, info: AdapterInfo, settings: Any, id: str) -> Any:
        """Let the adapter look at its settings: it is made, and not opened."""
        host = (Host(self._home / "computes" / id),) if port == "compute" else ()
        try:
            return info.adapter_class()(settings, *host)
        except DeepForgeError:
            raise
        except Exception as error:  # an adapter may be anybody's
            kind = type(error).__name__  # its text may hold a secret
            raise AdapterBug(f"the {port} adapter {info.id!r} failed with {kind}") from error

    def _kept(self, id: str, settings: Any) -> dict[str, Any]:
        """The settings as documents hold them: secrets sealed."""
        plain, hidden = split_secrets(settings)
        sealed = {
            field: self._box.seal(text, _purpose(id, field))
            for field, text in hidden.items()
            if text
        }
        return {"settings": plain, "secrets": sealed}

    async def _secrets(self, connection: Connection) -> dict[str, Secret]:
        if connection.revision == 0:
            return {}
        document = await self._documents.get(CONNECTIONS.name, connection.id)
        return {
            field: Secret(self._box.open(sealed, _purpose(connection.id, field)))
            for field, sealed in document.body["secrets"].items()
        }

    def _default(self, port: Port, owner: str) -> Connection:
        name = _DEFAULTS[port]
        if port == "compute":
            return _unkept(name, port, name, name, {})  # one for all: its slots are the machine's
        is_ours = owner == LOCAL_OWNER
        folder = self._home / "storage" if is_ours else self._home / "users" / owner / "storage"
        id = name if is_ours else f"{name}-{owner}"
        return _unkept(id, port, name, name, {"folder": str(folder)}, owner=owner)

    def _defined(self, port: Port) -> builtins.list[Connection]:
        """Connections that the environment defines wholly. Their values stay in the environment."""
        prefix, ending = f"DEEPFORGE_{port.upper()}_", "__ADAPTER"
        spelled = {
            variable[len(prefix) : -len(ending)].lower().replace("_", "-"): adapter
            for variable, adapter in self._environ.items()
            if variable.startswith(prefix) and variable.endswith(ending)
        }
        return [
            _unkept(f"env-{port}-{name}", port, name, adapter, {})
            for name, adapter in spelled.items()
            if _NAME.fullmatch(name)
        ]

    def _changes(self, connection: Connection) -> dict[str, str]:
        """The settings that the environment gives this connection."""
        if connection.owner not in ("", LOCAL_OWNER):
            return {}
        changed = self._environment(connection.port, connection.name)
        changed.pop("adapter", None)
        return changed

    def _environment(self, port: Port, name: str) -> dict[str, str]:
        return from_environment(_variables(port, name), self._environ)


def _connection(document: Document) -> Connection:
    body = document.body
    return Connection(
        id=document.id,
        port=body["port"],
        name=body["name"],
        adapter=body["adapter"],
        settings=body["settings"],
        secret_names=tuple(sorted(body["secrets"])),
        owner=body["owner"],
        created_at=body["created_at"],
        revision=document.revision,
    )


def _unkept(
    id: str, port: Port, name: str, adapter: str, settings: Mapping[str, Any], owner: str = ""
) -> Connection:
    return Connection(id, port, name, adapter, settings, (), owner, created_at="", revision=0)


def _must_be_kept(one: Connection, done: str) -> None:
    if one.revision == 0:
        is_default = one.name == _DEFAULTS[one.port]
        where = "is always there" if is_default else "is set by the environment"
        raise InvalidRequest(
            f"the {one.port} {one.name!r} {where} and cannot be {done}", part="name"
        )


def _forbidden(port: Port, name: str, owner: str, info: AdapterInfo) -> Forbidden:
    return Forbidden(
        f"the {port} {name!r} ({info.title}) works on the server's own machine, which {owner} may not "
        "use",
        hint=f"choose another {port}, or ask an administrator for: "
        f"deepforge users permit {owner} --server-compute",
    )


def _variables(port: Port, name: str) -> str:
    """The beginning of the variables for a connection: `gpu-box` is spelled `GPU_BOX`."""
    return f"DEEPFORGE_{port.upper()}_{re.sub(r'[^A-Z0-9]', '_', name.upper())}__"


def _purpose(id: str, field: str) -> str:
    return f"connection/{id}/{field}"


def _plain(value: Any) -> str:
    """An address with a slash at its end is the same without."""
    return str(value).rstrip("/")


def _check_name(port: Port, name: str) -> None:
    if _NAME.fullmatch(name) is None:
        shown = name if len(name) <= 63 else name[:40] + "…"
        raise InvalidRequest(
            f"{shown!r} cannot be the name of a {port}",
            part="name",
            hint="1 to 63 letters a-z, digits, and . _ - within",
        )

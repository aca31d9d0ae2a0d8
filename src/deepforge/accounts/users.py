"""Accounts kept: who they are, their passwords as hashes, and what they may."""

from __future__ import annotations

import builtins
from typing import Any

import structlog

from deepforge.accounts.model import (
    LOCAL_USER,
    User,
    checked_password,
    checked_user_name,
    is_user_name,
    normal_password,
)
from deepforge.accounts.passwords import Passwords
from deepforge.accounts.throttle import Throttle
from deepforge.documents.port import Collection, Document, DocumentStore
from deepforge.errors import AlreadyExists, AuthError, Conflict, Forbidden, InvalidRequest, NotFound
from deepforge.ids import utc_now
from deepforge.settings import Secret

USERS = Collection("users")
COLLECTIONS = (USERS,)

_TRIES = 20

_log = structlog.get_logger(__name__)


class Users:
    """Add, find and change accounts. They are never removed: a name stands for one person for good."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._passwords = Passwords()
        self._throttle = Throttle()

    async def add(
        self, name: str, password: Secret, *, is_admin: bool = False, server_compute: bool = False
    ) -> User:
        """Make an account; the first of all is an administrator's, as is that of `local`.

        Raises `AlreadyExists`, and `InvalidRequest` for a name or password that will not do.
        """
        name = checked_user_name(name)
        first = not await self.exist()
        body = {
            "password": await self._passwords.hashed(checked_password(password)),
            "is_admin": is_admin or first or name == LOCAL_USER,
            "server_compute": server_compute,
            "is_disabled": False,
            "created_at": utc_now(),
        }
        try:
            return _user(await self._documents.insert(USERS.name, name, body))
        except AlreadyExists as error:
            raise AlreadyExists(
                f"there is a user {name!r} already",
                hint=f"a new password: deepforge users passwd {name}",
            ) from error

    async def get(self, name: str) -> User:
        """Raises `NotFound`."""
        return _user(await self._document(name))

    async def list(self) -> builtins.list[User]:
        """List all accounts by name."""
        return [_user(one) for one in await self._documents.find(USERS.name)]

    async def exist(self) -> bool:
        """Whether there is any account."""
        return bool(await self._documents.find(USERS.name, limit=1))

    async def change(
        self,
        name: str,
        *,
        is_admin: bool | None = None,
        server_compute: bool | None = None,
        is_disabled: bool | None = None,
    ) -> User:
        """Change what is not None. The next request of the user, with any token, meets it.

        Raises `NotFound`, and `InvalidRequest` for taking the administrator's rights from `local`.
        """
        if name == LOCAL_USER and is_admin is False:
            raise InvalidRequest(f"the user {LOCAL_USER!r} owns this home and is an administrator")
        asked = {
            "is_admin": is_admin,
            "server_compute": server_compute,
            "is_disabled": is_disabled,
        }
        return await self._change(
            name, {field: value for field, value in asked.items() if value is not None}
        )

    async def set_password(self, name: str, password: Secret) -> None:
        """Replace the password. Tokens stay as they are. Raises as `add`, and `NotFound`."""
        await self.get(name)
        hash = await self._passwords.hashed(checked_password(password))
        await self._change(name, {"password": hash})

    async def log_in(self, name: str, password: Secret, *, address: str) -> User:
        """Return the account if this is its password. `address` says where the caller is.

        Raises `AuthError`, the same after the same time for a wrong password and for a user that
        does not exist; `Forbidden` for a disabled one whose password is right; `RateLimited` after
        several failures of this user from this address, also for the right password then.
        """
        key = f"{name[:64]} {address}"
        self._throttle.attempt(key)
        document = await self._known(name)
        hash = None if document is None else document.body["password"]
        if not await self._passwords.match(hash, normal_password(password)) or document is None:
            # Of an unknown name nothing is told: it may be a password in the wrong field.
            _log.warning("login_failed", user=None if document is None else name, address=address)
            raise AuthError("the user or the password is wrong")
        self._throttle.succeeded(key)
        user = _user(document)
        if user.is_disabled:
            raise Forbidden(f"the account {name!r} is disabled", hint="ask an administrator")
        _log.info("logged_in", user=name, address=address)
        return user

    async def may_use_server(self, name: str) -> bool:
        """Whether what this user starts may run on, and write to, the machine of the server."""
        if name == LOCAL_USER:
            return True
        document = await self._known(name)
        return document is not None and _user(document).may_use_server

    async def _change(self, name: str, fields: dict[str, Any]) -> User:
        for _ in range(_TRIES):
            document = await self._document(name)
            body = {**document.body, **fields}
            try:
                return _user(
                    await self._documents.replace(
                        USERS.name, name, body, if_revision=document.revision
                    )
                )
            except Conflict:
                continue
        raise Conflict(f"the account {name!r} is being changed by others; try again")

    async def _document(self, name: str) -> Document:
        document = await self._known(name)
        if document is None:
            raise NotFound(f"there is no user {name[:40]!r}", hint="see: deepforge users list")
        return document

    async def _known(self, name: str) -> Document | None:
        if not is_user_name(name):
            return None
        try:
            return await self._documents.get(USERS.name, name)
        except NotFound:
            return None


def _user(document: Document) -> User:
    body = document.body
    return User(
        name=document.id,
        is_admin=body["is_admin"],
        server_compute=body["server_compute"],
        is_disabled=body["is_disabled"],
        created_at=body["created_at"],
    )

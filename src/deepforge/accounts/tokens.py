"""Tokens kept: what programs present instead of a password. Only a digest of each is stored."""

from __future__ import annotations

import builtins
import secrets
import string
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog

from deepforge.accounts.model import (
    SCOPES,
    Identity,
    Scope,
    Token,
    checked_token_name,
    is_user_name,
)
from deepforge.accounts.users import Users
from deepforge.documents.port import Collection, Document, DocumentStore
from deepforge.errors import (
    AlreadyExists,
    AuthError,
    Conflict,
    DeepForgeError,
    InvalidRequest,
    NotFound,
)
from deepforge.ids import digest, epoch_s, timestamp
from deepforge.settings import Secret

TOKENS = Collection("tokens", unique=(("owner", "name"),), indexes=(("owner",),))
COLLECTIONS = (TOKENS,)

PREFIX = "df_"
DEFAULT_DAYS = 90
LONGEST_DAYS = 3650
USED_EVERY_S = 60.0
"""The shortest time between two writes of when a token was last used."""

_LETTERS = string.ascii_letters + string.digits
_LENGTH = 32  # 190 random bits: a quick digest is enough, nobody can guess
_DAY_S = 86400.0
_KEPT_S = 30 * _DAY_S

_log = structlog.get_logger(__name__)


async def _no_pool(owner: str) -> bool:
    return False


class Tokens:
    """Create, list, revoke and recognise tokens.

    `is_pool` says of an owner that is no user whether it is a pool that exists: its tokens are good for
    workers alone.
    """

    def __init__(
        self,
        documents: DocumentStore,
        users: Users,
        *,
        is_pool: Callable[[str], Awaitable[bool]] = _no_pool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._documents = documents
        self._users = users
        self._is_pool = is_pool
        self._clock = clock

    async def create(
        self, owner: str, name: str, scopes: Iterable[Scope], *, days: float = DEFAULT_DAYS
    ) -> tuple[Token, Secret]:
        """Make a token of this owner and return its text, which cannot be had a second time.

        Raises `NotFound` for a user without an account and a pool that is not there, `AlreadyExists`,
        and `InvalidRequest`. The owner's tokens that expired a month ago are forgotten.
        """
        name = checked_token_name(name)
        wanted = frozenset(scopes)
        if not wanted or not wanted <= set(SCOPES):
            raise InvalidRequest(f"scopes are some of {', '.join(SCOPES)}", part="scopes")
        if not 0 < days <= LONGEST_DAYS:
            raise InvalidRequest(f"a token lasts 1 to {LONGEST_DAYS} days", part="days")
        await self._check_owner(owner, wanted)
        await self._forget_old(owner)
        text = PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
        now = self._clock()
        body = {
            "owner": owner,
            "name": name,
            "scopes": sorted(wanted),
            "created_at": timestamp(now),
            "expires_at": timestamp(now + days * _DAY_S),
            "last_used_at": None,
        }
        try:
            made = await self._documents.insert(TOKENS.name, _id(text), body)
        except AlreadyExists as error:
            raise AlreadyExists(
                f"{owner} has a token {name!r} already",
                hint=f"take another name, or: deepforge tokens revoke {name}",
            ) from error
        try:
            await self._check_owner(owner, wanted)
        except NotFound:  # the pool went meanwhile, and one of its name may come
            await self._documents.delete(TOKENS.name, made.id)
            raise
        return _token(made), Secret(text)

    async def list(self, owner: str) -> builtins.list[Token]:
        """List the user's tokens by name, expired ones too."""
        found = await self._documents.find(TOKENS.name, {"owner": owner}, sort="name")
        return [_token(one) for one in found]

    async def revoke(self, owner: str, name: str) -> None:
        """End a token: the next request with it is refused. Raises `NotFound`."""
        equal = {"owner": owner, "name": checked_token_name(name)}
        found = await self._documents.find(TOKENS.name, equal, limit=1)
        if not found:
            raise NotFound(f"{owner} has no token {name!r}", hint="see: deepforge tokens list")
        await self._documents.delete(TOKENS.name, found[0].id)

    async def authenticate(self, text: str) -> Identity:
        """Say whose token this is, as the database has it now: nothing is remembered here.

        Raises `AuthError` when it is unknown, revoked or expired, its user disabled or its pool gone.
        """
        try:
            found = await self._documents.get(TOKENS.name, _id(text))
        except NotFound as error:
            raise AuthError("the access token is wrong or revoked", hint=_HINT) from error
        token = _token(found)
        now = self._clock()
        if now >= epoch_s(token.expires_at):
            raise AuthError(
                f"the access token {token.name!r} has expired", expired=True, hint=_HINT
            )
        is_admin = False
        if is_user_name(token.owner):
            user = await self._users.get(token.owner)
            if user.is_disabled:
                raise AuthError(
                    f"the account {user.name!r} is disabled", hint="ask an administrator"
                )
            is_admin = user.is_admin
        elif not await self._is_pool(token.owner):
            raise AuthError("the pool of the access token is gone", hint="ask an administrator")
        await self._note_use(found, now)
        return Identity(token.owner, is_admin, token.scopes)

    async def _check_owner(self, owner: str, scopes: frozenset[Scope]) -> None:
        if not is_user_name(owner) and await self._is_pool(owner):
            if scopes != {"worker"}:
                raise InvalidRequest("a token of a pool is good for workers alone", part="scopes")
            return
        try:
            await self._users.get(owner)
        except NotFound as error:
            raise NotFound(
                f"there is no user {owner!r} who could have a token",
                hint="say whose: --user NAME; see: deepforge users list",
            ) from error

    async def _note_use(self, found: Document, now: float) -> None:
        last = found.body["last_used_at"]
        if last is not None and 0 <= now - epoch_s(last) < USED_EVERY_S:
            return
        body = {**found.body, "last_used_at": timestamp(now)}
        try:
            await self._documents.replace(TOKENS.name, found.id, body, if_revision=found.revision)
        except (Conflict, NotFound):
            pass  # another request noted it, or the token was revoked meanwhile
        except DeepForgeError as error:  # a full disk is no reason to refuse who only reads
            _log.warning("token_use_not_noted", token=found.body["name"], error=error.message)

    async def _forget_old(self, owner: str) -> None:
        for one in await self._documents.find(TOKENS.name, {"owner": owner}):
            if self._clock() - epoch_s(one.body["expires_at"]) > _KEPT_S:
                await self._documents.delete(TOKENS.name, one.id)


_HINT = "get one with `deepforge login` or `deepforge tokens create`, and set DEEPFORGE_TOKEN"


def _id(text: str) -> str:
    return digest(text.encode("utf-8", "surrogatepass"))


def _token(document: Document) -> Token:
    body = document.body
    return Token(
        owner=body["owner"],
        name=body["name"],
        scopes=frozenset(body["scopes"]),
        created_at=body["created_at"],
        expires_at=body["expires_at"],
        last_used_at=body["last_used_at"],
    )

"""Access tokens: from a password, or from another token; list and revoke them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, SecretStr

from deepforge.accounts.model import Scope, Token
from deepforge.accounts.tokens import DEFAULT_DAYS, LONGEST_DAYS
from deepforge.errors import Forbidden, InvalidRequest
from deepforge.ids import new_id
from deepforge.server.auth import Caller, Principal, anybody, caller_address
from deepforge.server.body import JsonRoute
from deepforge.server.services import InUse
from deepforge.server.wire import Body, Page
from deepforge.settings import Secret
from deepforge.webgme.pools import owner_of

router = APIRouter(route_class=JsonRoute, tags=["accounts"])

Days = Annotated[int, Field(ge=1, le=LONGEST_DAYS)]
Whose = Annotated[str | None, Query(description="Whose tokens, for administrators.")]
OfPool = Annotated[str | None, Query(description="Tokens of this pool, for administrators.")]


class Login(Body):
    user: str
    password: SecretStr
    name: str | None = None
    """What to call the token."""
    days: Days = DEFAULT_DAYS


class NewToken(Body):
    name: str
    scopes: list[Scope] | None = Field(default=None, min_length=1)
    """`api` is everything, and the default; `worker` what a worker needs, and all that a token of a
    pool can be good for."""
    days: Days = DEFAULT_DAYS


class TokenReply(BaseModel):
    user: str
    """Whose it is: a user's, or, as `pool:NAME`, a pool's."""
    name: str
    scopes: list[Scope]
    created_at: str
    expires_at: str
    last_used_at: str | None
    """Right to the minute."""


class NewTokenReply(TokenReply):
    token: str
    """What to present. It is shown this once."""


@router.post(
    "/login",
    status_code=201,
    summary="Get a token for a user and a password",
    dependencies=[Depends(anybody)],
)
async def log_in(body: Login, use: InUse, request: Request) -> NewTokenReply:
    """After several failures the pauses between tries grow: 429 with `Retry-After`."""
    password = Secret(body.password.get_secret_value())
    user = await use.users.log_in(body.user, password, address=caller_address(request))
    name = body.name if body.name is not None else f"login-{new_id()}"
    return _new(*await use.tokens.create(user.name, name, ["api"], days=body.days))


@router.get("/tokens", summary="List tokens")
async def list_tokens(
    caller: Caller, use: InUse, user: Whose = None, pool: OfPool = None
) -> Page[TokenReply]:
    return Page(items=[_reply(one) for one in await use.tokens.list(_owner(caller, user, pool))])


@router.post("/tokens", status_code=201, summary="Make a token")
async def create_token(
    body: NewToken, caller: Caller, use: InUse, user: Whose = None, pool: OfPool = None
) -> NewTokenReply:
    owner = _owner(caller, user, pool)
    if pool is not None:
        await use.hand_out.pools.get(pool)
    scopes = body.scopes or (["api"] if pool is None else ["worker"])
    return _new(*await use.tokens.create(owner, body.name, scopes, days=body.days))


@router.delete("/tokens/{token}", status_code=204, summary="Revoke a token, by its name")
async def revoke_token(
    token: str, caller: Caller, use: InUse, user: Whose = None, pool: OfPool = None
) -> None:
    """The next request with it is refused."""
    await use.tokens.revoke(_owner(caller, user, pool), token)


def _owner(caller: Principal, user: str | None, pool: str | None) -> str:
    if pool is not None and user is not None:
        raise InvalidRequest("a token is a user's or a pool's, not both", part="pool")
    owner = owner_of(pool) if pool is not None else user or caller.owner
    if owner != caller.owner and not caller.is_admin:
        raise Forbidden("only administrators may ask for the tokens of others")
    return owner


def _reply(token: Token) -> TokenReply:
    return TokenReply(**_fields(token))


def _new(token: Token, text: Secret) -> NewTokenReply:
    return NewTokenReply(**_fields(token), token=text.reveal())


def _fields(token: Token) -> dict[str, Any]:
    return {
        "user": token.owner,
        "name": token.name,
        "scopes": sorted(token.scopes),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
    }

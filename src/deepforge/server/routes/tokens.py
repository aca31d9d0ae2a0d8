"""Access tokens: from a password, or from another token; list and revoke them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, SecretStr

from deepforge.accounts.model import Scope, Token
from deepforge.accounts.tokens import DEFAULT_DAYS, LONGEST_DAYS
from deepforge.errors import Forbidden
from deepforge.ids import new_id
from deepforge.server.auth import Caller, Principal, anybody, caller_address
from deepforge.server.body import JsonRoute
from deepforge.server.services import InUse
from deepforge.server.wire import Body, Page
from deepforge.settings import Secret

router = APIRouter(route_class=JsonRoute, tags=["accounts"])

Days = Annotated[int, Field(ge=1, le=LONGEST_DAYS)]
Whose = Annotated[str | None, Query(description="Whose tokens, for administrators.")]


class Login(Body):
    user: str
    password: SecretStr
    name: str | None = None
    """What to call the token."""
    days: Days = DEFAULT_DAYS


class NewToken(Body):
    name: str
    scopes: list[Scope] = Field(default=["api"], min_length=1)
    """`api` is everything, `worker` what a worker needs."""
    days: Days = DEFAULT_DAYS


class TokenReply(BaseModel):
    user: str
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
async def list_tokens(caller: Caller, use: InUse, user: Whose = None) -> Page[TokenReply]:
    return Page(items=[_reply(one) for one in await use.tokens.list(_owner(caller, user))])


@router.post("/tokens", status_code=201, summary="Make a token")
async def create_token(
    body: NewToken, caller: Caller, use: InUse, user: Whose = None
) -> NewTokenReply:
    owner = _owner(caller, user)
    return _new(*await use.tokens.create(owner, body.name, body.scopes, days=body.days))


@router.delete("/tokens/{token}", status_code=204, summary="Revoke a token, by its name")
async def revoke_token(token: str, caller: Caller, use: InUse, user: Whose = None) -> None:
    """The next request with it is refused."""
    await use.tokens.revoke(_owner(caller, user), token)


def _owner(caller: Principal, user: str | None) -> str:
    if user is None or user == caller.owner:
        return caller.owner
    if not caller.is_admin:
        raise Forbidden("only administrators may ask for the tokens of others")
    return user


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

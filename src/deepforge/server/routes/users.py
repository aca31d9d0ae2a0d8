"""Accounts: who may use this server, and what they may. For administrators, but one's own password."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, SecretStr

from deepforge.accounts.model import User
from deepforge.server.auth import AdminCaller, Caller, caller_address
from deepforge.server.body import JsonRoute
from deepforge.server.services import InUse
from deepforge.server.wire import Body, Page
from deepforge.settings import Secret

router = APIRouter(route_class=JsonRoute, tags=["accounts"])


class NewUser(Body):
    name: str
    password: SecretStr
    is_admin: bool = False
    server_compute: bool = False
    """Allow what runs on, or writes to, the machine of the server. Administrators are anyway."""


class UserChange(Body):
    """What is left out stays as it is."""

    is_admin: bool | None = None
    server_compute: bool | None = None
    is_disabled: bool | None = None


class NewPassword(Body):
    password: SecretStr


class OwnPassword(NewPassword):
    current: SecretStr


class UserReply(BaseModel):
    name: str
    is_admin: bool
    server_compute: bool
    is_disabled: bool
    created_at: str


@router.get("/users", summary="List accounts")
async def list_users(caller: AdminCaller, use: InUse) -> Page[UserReply]:
    return Page(items=[_reply(one) for one in await use.users.list()])


@router.post("/users", status_code=201, summary="Make an account")
async def add_user(body: NewUser, caller: AdminCaller, use: InUse) -> UserReply:
    """The first of all is an administrator's."""
    made = await use.users.add(
        body.name,
        _secret(body.password),
        is_admin=body.is_admin,
        server_compute=body.server_compute,
    )
    return _reply(made)


@router.patch("/users/{user}", summary="Change what an account may, disable or enable it")
async def change_user(user: str, body: UserChange, caller: AdminCaller, use: InUse) -> UserReply:
    """It counts from the next request on. What runs goes on until it ends."""
    changed = await use.users.change(
        user,
        is_admin=body.is_admin,
        server_compute=body.server_compute,
        is_disabled=body.is_disabled,
    )
    return _reply(changed)


@router.post("/users/{user}/password", status_code=204, summary="Set the password of an account")
async def set_password(user: str, body: NewPassword, caller: AdminCaller, use: InUse) -> None:
    """Its tokens stay as they are."""
    await use.users.set_password(user, _secret(body.password))


@router.post("/password", status_code=204, summary="Change one's own password")
async def change_password(body: OwnPassword, caller: Caller, use: InUse, request: Request) -> None:
    """Tokens stay as they are."""
    await use.users.log_in(caller.owner, _secret(body.current), address=caller_address(request))
    await use.users.set_password(caller.owner, _secret(body.password))


def _secret(text: SecretStr) -> Secret:
    return Secret(text.get_secret_value())


def _reply(user: User) -> UserReply:
    return UserReply(
        name=user.name,
        is_admin=user.is_admin,
        server_compute=user.may_use_server,
        is_disabled=user.is_disabled,
        created_at=user.created_at,
    )

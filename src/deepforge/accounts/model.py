"""Who may use a server: accounts of people, and the tokens that programs present for them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

from deepforge.errors import InvalidRequest
from deepforge.settings import Secret

LOCAL_USER = "local"
"""The user of a server that only this machine can reach. Its account, if there is one, is always an
administrator's: what was made without accounts belongs to it."""

Scope = Literal["api", "worker"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""`worker` is what a worker needs and no more; `api` is everything."""

MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 1000

_USER_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")
_TOKEN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class User:
    """An account. Its name is for good, and the owner of everything that the user makes."""

    name: str
    is_admin: bool
    server_compute: bool
    """Allowed what runs on the server's own machine. Administrators are anyway."""
    is_disabled: bool
    created_at: str

    @property
    def may_use_server(self) -> bool:
        return self.is_admin or self.server_compute


@dataclass(frozen=True)
class Token:
    """What is known of a token; its text was shown once. `last_used_at` is right to the minute."""

    owner: str
    name: str
    scopes: frozenset[Scope]
    created_at: str
    expires_at: str
    last_used_at: str | None


@dataclass(frozen=True)
class Identity:
    """What a valid token says of whoever presents it."""

    user: str
    is_admin: bool
    scopes: frozenset[Scope]


def is_user_name(text: str) -> bool:
    """Whether an account may have this name. It also names a folder."""
    return _USER_NAME.fullmatch(text) is not None


def checked_user_name(text: str) -> str:
    """Raises `InvalidRequest` for what cannot be the name of an account."""
    if not is_user_name(text):
        raise InvalidRequest(
            f"{text[:40]!r} cannot be the name of a user",
            part="name",
            hint="1 to 32 small letters, digits, and . _ - behind the first letter",
        )
    return text


def checked_token_name(text: str) -> str:
    """Raises `InvalidRequest` for what cannot be the name of a token."""
    if _TOKEN_NAME.fullmatch(text) is None:
        raise InvalidRequest(
            f"{text[:40]!r} cannot be the name of a token",
            part="name",
            hint="1 to 63 letters a-z, digits, and . _ - within",
        )
    return text


def checked_password(password: Secret) -> Secret:
    """Return the password in the form that is hashed. Raises `InvalidRequest` unless it will do."""
    text = normal_password(password).reveal()
    if not MIN_PASSWORD_LENGTH <= len(text) <= MAX_PASSWORD_LENGTH:
        raise InvalidRequest(
            f"the password has {len(text)} characters",
            part="password",
            hint=f"take {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH}; a few words do well",
        )
    return Secret(text)


def normal_password(password: Secret) -> Secret:
    """Spell it alike whichever keyboard it was typed on (Unicode's NFKC)."""
    return Secret(unicodedata.normalize("NFKC", password.reveal()))

"""What the stand-in of SciServer knows: users, tokens, volumes, compute domains."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

ROOTS = {1: "Storage", 2: "Temporary"}
ALL_ACTIONS = ("delete", "grant", "read", "write")
FILE_SERVICE = "FileServiceJHU"
WORKSPACE = "/home/idies/workspace"
TEN_GIB = 10 * 2**30
TOKEN_LIFE_S = 86_400.0
LOCKED_AFTER = 3
LOCKED_S = 600.0
DEFAULT_VOLUMES = (("Storage", "persistent"), ("Temporary", "scratch"), ("Temporary", "jobs"))


class Refused(Exception):
    """A request that is answered with 500 and this text, as all logical errors are there."""


class NotAuthenticated(Exception):
    """A request whose token is missing, wrong, expired or revoked."""


@dataclass
class User:
    """An account. `quota_bytes` is over all volumes of `Storage`; 0 is no limit."""

    id: str
    name: str
    password: str
    quota_bytes: int = 0
    failed_at: list[float] = field(default_factory=list)

    @property
    def email(self) -> str:
        return f"{self.name}@example.org"


@dataclass
class Token:
    """A login. It ends by itself at `expires_at` (seconds since the epoch), or when revoked."""

    text: str
    user: User
    issued_at: float
    expires_at: float
    revoked: bool = False


@dataclass
class Volume:
    """A user volume: `folder` holds its files. `shares` maps other users' names to actions."""

    id: int
    uuid: str
    root: str
    owner: User
    name: str
    description: str
    folder: Path
    shares: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def actions_of(self, user: User) -> tuple[str, ...]:
        return ALL_ACTIONS if user is self.owner else self.shares.get(user.name, ())


@dataclass
class DataVolume:
    """A volume without an owner, read by everybody and written by `writers`."""

    id: int
    name: str
    display_name: str
    folder: Path
    writers: frozenset[str] = frozenset()

    def actions_of(self, user: User) -> tuple[str, ...]:
        return ("read", "write") if user.name in self.writers else ("read",)


@dataclass
class Domain:
    """A compute domain. `images` maps names to the users who may use them; None is everybody."""

    id: int
    name: str
    endpoint: str
    images: dict[str, frozenset[str] | None]
    data_volumes: tuple[str, ...] = ()
    is_batch: bool = True
    jobs_per_user: int = 1
    timeout_s: float = 86_400.0

    def images_of(self, user: User) -> list[str]:
        return [name for name, users in self.images.items() if users is None or user.name in users]


@dataclass(frozen=True)
class Place:
    """Where a path of the Files service leads: a volume and what is under it."""

    volume: Volume | DataVolume
    relative: str
    asked: str

    @property
    def on_disk(self) -> Path:
        """Raises `Refused` if it leaves the volume, by dots or by links."""
        folder = self.volume.folder.resolve()
        target = folder / self.relative
        whole = Path(_without_dots(str(target)))
        if not whole.is_relative_to(folder) or not _canonical(whole).is_relative_to(folder):
            raise Refused("Attempted to access a path outside of the requested volume")
        return whole


class Users:
    """The accounts and their tokens."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.by_name: dict[str, User] = {}
        self.tokens: dict[str, Token] = {}

    def add_user(self, name: str, password: str = "secret", *, quota_bytes: int = TEN_GIB) -> User:
        user = User(uuid.uuid4().hex, name, password, quota_bytes)
        self.by_name[name] = user
        return user

    def add_token(self, name: str, *, life_s: float = TOKEN_LIFE_S) -> str:
        """A new token of a user, as after a login."""
        now = self._world.now()
        text = "gAAAAA" + secrets.token_urlsafe(133)[:177]
        self.tokens[text] = Token(text, self.by_name[name], now, now + life_s)
        return text

    def revoke(self, *tokens: str) -> None:
        """End these tokens; all there are when none is given."""
        for text in tokens or list(self.tokens):
            self.tokens[text].revoked = True

    def token(self, text: str | None) -> Token:
        """Raises `NotAuthenticated`."""
        token = self.tokens.get(text or "")
        if token is None or token.revoked or token.expires_at <= self._world.now():
            raise NotAuthenticated
        return token

    def log_in(self, name: str, password: str) -> str:
        """A token. Raises `NotAuthenticated`, or `Refused` for an account that is locked."""
        user = self.by_name.get(name)
        if user is None:
            raise NotAuthenticated
        now = self._world.now()
        user.failed_at = [at for at in user.failed_at if at > now - LOCKED_S]
        if len(user.failed_at) >= LOCKED_AFTER:
            minutes = max(1, round((user.failed_at[0] + LOCKED_S - now) / 60))
            raise Refused(
                f"Maximum number of login attempts reached. Please try again in {minutes} minutes."
            )
        if not secrets.compare_digest(password, user.password):
            user.failed_at.append(now)
            raise NotAuthenticated
        user.failed_at.clear()
        return self.add_token(name)


class World:
    """All of it, kept in memory and under one folder. Take `lock` to change what is not here.

    `verdicts_kept_s`: how long the Files service goes on believing what it knew of a token.
    `clock_skew_s`: how far the clock of the service is ahead of ours.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.lock = threading.RLock()
        self.identifier = str(uuid.uuid4())
        self.clock_skew_s = 0.0
        self.verdicts_kept_s = 0.0
        self.users = Users(self)
        self.volumes: dict[int, Volume] = {}
        self.data_volumes: dict[str, DataVolume] = {}
        self.domains: list[Domain] = []
        self._next_id = 1000
        self._verdicts: dict[str, tuple[float, User | None]] = {}

    def now(self) -> float:
        """Seconds since the epoch, by the clock of the service."""
        return time.time() + self.clock_skew_s

    def new_id(self) -> int:
        with self.lock:
            self._next_id += 1
            return self._next_id

    def add_data_volume(
        self, name: str, *, display_name: str = "", writers: Iterable[str] = ()
    ) -> DataVolume:
        folder = self.folder / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        volume = DataVolume(
            self.new_id(), name, display_name or name, folder, writers=frozenset(writers)
        )
        self.data_volumes[name] = volume
        return volume

    def add_domain(
        self,
        name: str,
        *,
        images: Iterable[str] = ("SciServer Essentials 4.0",),
        data_volumes: Iterable[str] = (),
        is_batch: bool = True,
        jobs_per_user: int = 1,
        timeout_s: float = 86_400.0,
    ) -> Domain:
        number = self.new_id()
        domain = Domain(
            number,
            name,
            f"{self.url}/compute/domain-{number}",
            dict.fromkeys(images),
            tuple(data_volumes),
            is_batch,
            jobs_per_user,
            timeout_s,
        )
        self.domains.append(domain)
        return domain

    def add_volume(
        self, root: str, owner: User, name: str, description: str = "", *, on_disk: str = ""
    ) -> Volume:
        """Raises `Refused` if there is no such root, or such a volume already."""
        with self.lock:
            if root not in ROOTS.values():
                raise Refused(f"FileService '{FILE_SERVICE}' does not contain root volume '{root}'")
            if self.volume(root, owner.name, name) is not None:
                raise Refused(
                    f"User volume '{name}' already exists in root volume '{root}' "
                    f"within fileService '{FILE_SERVICE}'"
                )
            own_id = str(uuid.uuid4())
            folder = self.folder / "volumes" / root / owner.id / (on_disk or own_id)
            folder.mkdir(parents=True, exist_ok=True)
            volume = Volume(self.new_id(), own_id, root, owner, name, description, folder)
            self.volumes[volume.id] = volume
            return volume

    def add_default_volumes(self, user: User) -> None:
        """What every account has. The real service makes them at any first call."""
        with self.lock:
            for root, name in DEFAULT_VOLUMES:
                if self.volume(root, user.name, name) is None:
                    self.add_volume(root, user, name, "Default user volume", on_disk=name)

    def volume(self, root: str, owner: str, name: str) -> Volume | None:
        with self.lock:
            for volume in self.volumes.values():
                if (volume.root, volume.owner.name, volume.name) == (root, owner, name):
                    return volume
            return None

    def volumes_of(self, user: User) -> list[Volume]:
        """Own volumes, and those that others share."""
        with self.lock:
            return [one for one in self.volumes.values() if one.actions_of(user)]

    def place(self, path: str, user: User, *actions: str) -> Place:
        """Where a path, each part percent-encoded, leads. Raises `Refused`."""
        top, *rest = [unquote(part) for part in path.split("/") if part] or [""]
        volume: Volume | DataVolume | None
        if top in ROOTS.values():
            if len(rest) < 1:
                raise Refused("Path variable 'ownerName' and 'userVolume' were not provided")
            if len(rest) < 2:
                raise Refused("Path variable 'userVolume' was not provided")
            volume = self.volume(top, rest[0], rest[1])
            rest = rest[2:]
        else:
            volume = self.data_volumes.get(top)
        allowed = () if volume is None else volume.actions_of(user)
        if volume is None or not allowed:
            raise Refused("Volume does not exist")
        if not set(actions) <= set(allowed):
            raise Refused("Missing required permissions on volume")
        return Place(volume, "/".join(rest), unquote(path).strip("/"))

    def used_bytes(self, user: User) -> int:
        """What a user's volumes in `Storage` hold."""
        with self.lock:
            own = [one for one in self.volumes.values() if one.owner is user]
        return sum(size_of(one.folder)[1] for one in own if one.root == "Storage")

    def caller(self, token: str | None, *, is_cached: bool = False) -> User:
        """Whose token it is. Raises `NotAuthenticated`."""
        with self.lock:
            known = self._verdicts.get(token or "") if is_cached else None
            if known is not None and time.monotonic() < known[0] + self.verdicts_kept_s:
                user = known[1]
            else:
                try:
                    user = self.users.token(token).user
                except NotAuthenticated:
                    user = None
                if is_cached:
                    self._verdicts[token or ""] = (time.monotonic(), user)
            if user is None:
                raise NotAuthenticated
            return user


def size_of(folder: Path) -> tuple[int, int]:
    """How many files there are below, and how many bytes they hold."""
    sizes = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue  # gone meanwhile
    return len(sizes), sum(sizes)


def _without_dots(path: str) -> str:
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept)


def _canonical(path: Path) -> Path:
    try:
        return path.resolve()
    except OSError:  # a name that no file system can hold: it is what it is
        return path

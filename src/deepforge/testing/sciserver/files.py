"""The Files service of the stand-in."""

from __future__ import annotations

import base64
import mimetypes
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepforge.testing.sciserver.listing import listed
from deepforge.testing.sciserver.volumes import Volumes
from deepforge.testing.sciserver.wire import (
    Answer,
    Broken,
    Request,
    etag,
    of_error,
    of_html,
    of_json,
    unauthenticated,
)
from deepforge.testing.sciserver.world import (
    FILE_SERVICE,
    DataVolume,
    NotAuthenticated,
    Place,
    Refused,
    User,
    World,
)

MOST_FILES = 100
LARGEST_FILE_BYTES = 4_000_000
OCTETS = "application/octet-stream"


class Files:
    """Everything under `/fileservice/api`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._volumes = Volumes(world)

    def answer(self, request: Request, path: str) -> Answer:
        kind, _, rest = path.strip("/").partition("/")
        if request.method == "GET" and kind == "ping":
            return Answer(200, b"Service is alive", "text/plain;charset=UTF-8")
        if request.method == "GET" and kind == "health":
            return Answer()
        try:
            token = request.headers.get("X-Auth-Token") or _cookie(request)
            user = self._world.caller(token, is_cached=True)
        except NotAuthenticated:
            return unauthenticated(request.path)
        self._world.add_default_volumes(user)
        try:
            return self._answer(request, kind, rest, user)
        except Refused as refusal:
            error = of_error(str(refusal))
        except (ValueError, KeyError, TypeError, AttributeError):
            error = of_error(None)
        accepted = request.headers.get("Accept", "*/*")
        takes_json = "*/*" in accepted or "json" in accepted
        return error if takes_json else Answer(406)  # who wants bytes does not learn the cause

    def _answer(self, request: Request, kind: str, rest: str, user: User) -> Answer:
        match request.method, kind:
            case (("GET" | "HEAD"), "file"):
                return self._download(request, rest, user)
            case "PUT", "file":
                return self._upload(request, rest, user)
            case "POST", "multiple-file":
                return self._download_many(request, user)
            case "PUT", "folder":
                return self._make_folder(request, rest, user)
            case "GET", "jsontree":
                return self._list(request, rest, user)
            case "DELETE", "data":
                return self._delete(request, rest, user)
            case "PUT", "data":
                return self._move(request, rest, user)
            case _, ("volumes" | "usage" | "volume" | "share"):
                return self._volumes.answer(request, kind, rest, user)
        return of_html(404, "HTTP Status 404")

    def _download(self, request: Request, path: str, user: User) -> Answer:
        source = self._world.place(path, user, "read").on_disk
        try:
            file = source.open("rb")
        except OSError:  # a folder too: what is not there looks like an empty file
            return Answer(200, b"", OCTETS)
        headers = {"Etag": etag(source)}
        if not request.flag("inline"):
            headers["Content-disposition"] = f'attachment; filename="{_latin(source.name)}"'
        type, _ = mimetypes.guess_type(source.name)
        size = source.stat().st_size
        return Answer(200, b"", type or OCTETS, headers, source=file, size_bytes=size)

    def _upload(self, request: Request, path: str, user: User) -> Answer:
        place = self._world.place(path, user, "write")
        with _told(f"Error when creating '{place.asked}'.  "):
            target = place.on_disk
            if _exists(target) and not request.flag("quiet"):
                raise Refused("File already exists.")
            limit = request.room_bytes
            if limit is None:
                limit = self._room(place, target)
            if not _exists(target.parent):
                target.parent.mkdir(parents=True)
            try:
                _write(target, request, limit)
            except (OSError, Refused, Broken):
                _remove(target)  # a folder with all in it too, as the real one does
                raise
        return Answer(200, headers={"Etag": etag(target)})

    def _room(self, place: Place, target: Path) -> int | None:
        """How many bytes may be written there, or None for as many as come."""
        volume = place.volume
        if isinstance(volume, DataVolume) or volume.root != "Storage":
            return None
        if not volume.owner.quota_bytes:
            return None
        held = target.stat().st_size if target.is_file() else 0
        return max(0, volume.owner.quota_bytes - self._world.used_bytes(volume.owner) + held)

    def _download_many(self, request: Request, user: User) -> Answer:
        asked = request.json()
        if len(asked) > MOST_FILES:
            told = {"statusCode": "BAD_REQUEST", "error": "exceeded max amount of files"}
            return of_json(told, 400)
        answers = [self._download_one(one["filePath"], user) for one in asked]
        return of_json({"statusCode": "OK", "fileDataResponse": answers})

    def _download_one(self, path: str, user: User) -> dict[str, Any]:
        try:
            source = self._world.place(path.replace("%", "%25"), user, "read").on_disk
        except Refused as refusal:
            return {
                "statusCode": "INTERNAL_SERVER_ERROR",
                "filePath": path,
                "error": str(refusal),
            }
        if not source.is_file():
            return {"statusCode": "NOT_FOUND", "filePath": path, "error": "File not found."}
        if source.stat().st_size > LARGEST_FILE_BYTES:
            error = "File exceeded max size."
            return {"statusCode": "PAYLOAD_TOO_LARGE", "filePath": path, "error": error}
        data = base64.b64encode(source.read_bytes()).decode()
        return {"statusCode": "OK", "filePath": path, "data": data}

    def _make_folder(self, request: Request, path: str, user: User) -> Answer:
        place = self._world.place(path, user, "write")
        with _told(f"Error when creating directory '{place.asked}'. "):
            target = place.on_disk
            if _exists(target) and not request.flag("quiet"):
                raise Refused("Directory already exists.")
            if not target.is_file():  # which stays, and nobody is told
                target.mkdir(parents=True, exist_ok=True)
        return Answer()

    def _list(self, request: Request, path: str, user: User) -> Answer:
        place = self._world.place(path, user, "read")
        with _told(f"Error when listing contents of '{place.asked}'. "):
            folder = place.on_disk
            if not _exists(folder):
                raise Refused("Path does not exist.")
            if not folder.is_dir():
                raise Refused("")
            level = int(request.query.get("level") or 32_767)
            if not 1 <= level <= 32_767:
                raise Refused(f"level {level} is out of range")
            name = folder.name if place.relative or level == 2 else place.volume.name
            tree = listed(folder, level, request.query.get("options", ""), name)
        return of_json({"root": tree, "queryPath": place.asked})

    def _delete(self, request: Request, path: str, user: User) -> Answer:
        place = self._world.place(path, user, "write")
        with _told(f"Error when deleting '{place.asked}'. "):
            target = place.on_disk
            if not place.relative:
                return Answer()
            if not _exists(target) and not request.flag("quiet"):
                raise Refused("It does not exist.")
            _remove(target)
        return Answer()

    def _move(self, request: Request, path: str, user: User) -> Answer:
        asked = request.json()
        is_copy = request.flag("doCopy")
        source = self._world.place(path, user, "read" if is_copy else "write")
        if asked.get("destinationFileService", FILE_SERVICE) not in (
            FILE_SERVICE,
            self._world.identifier,
        ):
            raise Refused("Moving data to another file service is not supported")
        target = self._world.place(_destination(asked), user, "write")
        with _told(f"Error when moving '{source.asked}' to '{target.asked}'. "):
            _moved(
                source.on_disk,
                target.on_disk,
                is_copy=is_copy,
                replaces=request.flag("replaceExisting"),
            )
        return Answer()


@contextmanager
def _told(before: str) -> Iterator[None]:
    """Put what was tried before what went wrong."""
    try:
        yield
    except Refused as refusal:
        raise Refused(f"{before}{refusal}") from refusal
    except OSError as error:
        raise Refused(f"{before}{error.filename} ({error.strerror})") from error


def _write(target: Path, request: Request, limit: int | None) -> None:
    """In place, as it comes: who reads meanwhile sees a part."""
    written = 0
    with target.open("wb", buffering=0) as file:
        for chunk in request.chunks():
            written += len(chunk)
            if limit is not None and written > limit:
                raise Refused("Disk quota exceeded")
            file.write(chunk)


def _moved(source: Path, target: Path, *, is_copy: bool, replaces: bool) -> None:
    if not _exists(source):
        raise Refused("Source file or directory does not exist.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        if _exists(target):
            raise Refused("Destination directory already exists.")
        if is_copy:
            shutil.copytree(source, target, symlinks=True)
        else:
            source.rename(target)
        return
    if _exists(target):
        if not replaces:
            raise Refused("Destination file already exists")
        if target.is_dir():
            if any(target.iterdir()):
                raise Refused(f"{target}: Directory not empty")
            target.rmdir()
        else:
            target.unlink()  # first, as the real one does: for a moment there is neither
    if is_copy:
        shutil.copyfile(source, target)
    else:
        source.rename(target)  # never into a folder that somebody made meanwhile


def _destination(asked: dict[str, Any]) -> str:
    """Where to, percent-encoded where that would be taken for an escape."""
    if data := asked.get("destinationDataVolume"):
        parts = [data]
    else:
        parts = [
            asked["destinationRootVolume"],
            asked["destinationOwnerName"],
            asked["destinationUserVolume"],
        ]
    return "/".join([*parts, asked["destinationPath"]]).replace("%", "%25")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name no file system can hold
        return False


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return  # a name no file system can hold, or a parent that is a file: nothing is there


def _latin(name: str) -> str:
    return name.encode("latin-1", "replace").decode("latin-1").replace('"', "'")


def _cookie(request: Request) -> str | None:
    for part in request.headers.get("Cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "portalCookie":
            return value
    return None

"""`deepforge artifacts`: named data; list, read, store, refer to."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import click

from deepforge.cli import show
from deepforge.errors import (
    AlreadyExists,
    Corrupt,
    DeepForgeError,
    Forbidden,
    InvalidRequest,
    NotFound,
    StorageFull,
    Unavailable,
)

if TYPE_CHECKING:
    from deepforge.cli.client import Client

_CHUNK_BYTES = 1024 * 1024
_PROGRESS_FROM_BYTES = 16 * 1024 * 1024

_project_option = click.option("--project", metavar="NAME", help="Look in this project.")


@click.group()
def artifacts() -> None:
    """Named data: list, read, store.

    An artifact is written NAME for its newest version, NAME@3 for version 3, and PROJECT/NAME for one
    of a certain project.
    """


@artifacts.command("list")
@click.option("--project", metavar="NAME", help="Only those of this project.")
@click.option("--name", metavar="NAME", help="Only the versions of this name.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most.")
@show.json_option
def list_artifacts(project: str | None, name: str | None, limit: int, as_json: bool) -> None:
    """List artifacts, newest first."""
    from deepforge.cli.client import connect

    with connect() as client:
        found = list(client.items("/artifacts", most=limit, project=project, name=name))
    if as_json:
        show.print_json(found)
    else:
        show.print_artifacts(found)


@artifacts.command("show")
@click.argument("name", metavar="NAME[@VERSION]")
@_project_option
@show.json_option
def show_artifact(name: str, project: str | None, as_json: bool) -> None:
    """Show an artifact and what it came from."""
    from deepforge.cli.client import connect

    with connect() as client:
        found = _resolve(client, name, project)
    if as_json:
        show.print_json(found)
        return
    show.print_fields(
        {
            "name": found["name"],
            "version": found["version"],
            "project": found["project"],
            "type": found["type"],
            "format": found["format"],
            "size": show.size(found["size_bytes"]),
            "digest": found["digest"] or "not known before it is first read",
            "storage": found["storage"],
            "key": found["key"],
            "made": show.local_time(found["created_at"]),
        }
    )
    if found["provenance"]:
        click.echo("\ncame from")
        show.print_fields(dict(_flat(found["provenance"], "  ")))


@artifacts.command("get")
@click.argument("name", metavar="NAME[@VERSION]")
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@_project_option
def get_artifact(name: str, file: str, force: bool, project: str | None) -> None:
    """Write the data of an artifact to FILE, or to standard output if FILE is a dash.

    FILE appears only when all of it is there and its digest was verified. The bytes are as they were
    stored: `deepforge artifacts show` tells their format.
    """
    from deepforge.cli.client import connect

    target = Path(file)
    if file != "-":
        _check_target(target, name, force)
    with connect() as client:
        found = _resolve(client, name, project)
        chunks = _shown(_data(client, found), found["size_bytes"], name)
        if file == "-":
            with _told_if_full("standard output"):
                for chunk in chunks:
                    sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            return
        with _whole_file(target, force) as output:
            for chunk in chunks:
                output.write(chunk)
    click.echo(f"{file}: {show.size(found['size_bytes'])}, {found['type']}", err=True)


@artifacts.command("put")
@click.argument("file")
@click.option(
    "--name", required=True, help="Name of the artifact; a name in use gets a new version."
)
@click.option(
    "--type", "type_", default="file", show_default=True, help="What it is, in your words."
)
@click.option("--project", metavar="NAME", help="Project it belongs to.  [default: shared by all]")
@click.option("--storage", metavar="NAME", help="Where it goes.  [default: local]")
@show.json_option
def put_artifact(
    file: str, name: str, type_: str, project: str | None, storage: str | None, as_json: bool
) -> None:
    """Store FILE, or standard input if FILE is a dash, as an artifact."""
    from deepforge.cli.client import connect

    with _open_input(file) as source, connect() as client:
        size_bytes = None if file == "-" else _size_of(source)
        chunks = _read(source) if size_bytes is None else _read_whole(source, size_bytes, file)
        made = client.put(
            "/artifacts",
            _shown(chunks, size_bytes, file),
            size_bytes=size_bytes,
            name=name,
            type=type_,
            project=project,
            storage=storage,
        )
    _tell(made, as_json)


@artifacts.command("import")
@click.argument("name")
@click.option("--storage", required=True, metavar="NAME", help="The storage that has the object.")
@click.option("--key", required=True, help="Key of the object in it.")
@click.option(
    "--type", "type_", default="file", show_default=True, help="What it is, in your words."
)
@click.option("--project", metavar="NAME", help="Project it belongs to.  [default: shared by all]")
@show.json_option
def import_artifact(
    name: str, storage: str, key: str, type_: str, project: str | None, as_json: bool
) -> None:
    """Name an object that lies in a storage already. It is not copied."""
    from deepforge.cli.client import connect

    body = {"name": name, "storage": storage, "key": key, "type": type_, "project": project}
    with connect() as client:
        made = client.post("/artifacts/import", body)
    _tell(made, as_json)


def _flat(values: Mapping[str, Any], before: str) -> Iterator[tuple[str, object]]:
    """Nested values on lines of their own; the innermost ones on one line."""
    for name, value in values.items():
        if not isinstance(value, Mapping):
            yield before + name, value
        elif any(isinstance(inner, Mapping) for inner in value.values()):
            yield from _flat(value, f"{before}{name} ")
        elif value:
            yield before + name, ", ".join(f"{key} {inner}" for key, inner in value.items())


def _resolve(client: Client, name: str, project: str | None) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/artifacts/resolve", name=name, project=project)
    found["id"] = quote(found["id"], safe="")
    return found


def _data(client: Client, found: dict[str, Any]) -> Iterator[bytes]:
    """The bytes of an artifact. Raises `Unavailable` or `Corrupt` unless all came, verified."""
    received_bytes = 0
    try:
        with client.download(f"/artifacts/{found['id']}/data") as response:
            for chunk in response.iter_bytes(_CHUNK_BYTES):
                received_bytes += len(chunk)
                yield chunk
    except Unavailable as error:
        if received_bytes == 0:
            raise
        # a server cuts the connection rather than send the last byte of data it could not verify
        raise Unavailable(
            f"the data of {found['name']!r} broke off after {received_bytes} bytes",
            hint="try again; if it breaks off again, the object in the storage is damaged",
        ) from error
    if received_bytes != found["size_bytes"]:
        raise Corrupt(
            f"{found['name']!r} came with {received_bytes} bytes",
            expected=str(found["size_bytes"]),
            found=str(received_bytes),
        )


def _tell(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show.print_json(made)
    else:
        click.echo(
            f"{made['name']}@{made['version']}: {show.size(made['size_bytes'])} in {made['storage']}",
            err=True,
        )


def _check_target(target: Path, name: str, force: bool) -> None:
    if target.is_dir():
        raise InvalidRequest(
            f"{target} is a folder", hint=f"name a file in it: {target / name.rpartition('/')[2]}"
        )
    if target.exists() and not force:
        raise _exists(target)
    if not target.parent.is_dir():
        raise NotFound(f"there is no folder {target.parent}", hint="make it first")


def _exists(target: Path) -> AlreadyExists:
    return AlreadyExists(f"{target} exists and was left as it was", hint="--force replaces it")


@contextmanager
def _whole_file(target: Path, force: bool) -> Iterator[IO[bytes]]:
    """Give a file that takes the target's place at the end of the block, or leaves no trace."""
    if force and target.exists() and not target.is_file():
        with _told_if_full(str(target)), target.open("wb") as device:
            yield device  # /dev/null and its like are written to, not replaced
        return
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name[:100]}-", dir=target.parent)
    except OSError as error:
        raise Forbidden(f"cannot write in {target.parent}: {error.strerror}") from error
    try:
        with _told_if_full(str(target)), os.fdopen(descriptor, "wb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        if force:
            Path(temporary).replace(target)
        else:
            os.link(temporary, target)
    except FileExistsError as error:
        raise _exists(target) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def _told_if_full(what: str) -> Iterator[None]:
    try:
        yield
    except (DeepForgeError, BrokenPipeError):
        raise  # some of ours are also an OSError
    except OSError as error:
        raise StorageFull(f"{what} could not be written: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _open_input(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115 - closed below
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {file}") from error
    except OSError as error:
        raise Forbidden(f"{file} cannot be read: {error.strerror}") from error
    with source:
        yield source


def _read(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk


def _size_of(source: IO[bytes]) -> int | None:
    """How much there is to read; None if nobody knows, as of pipes."""
    told = os.fstat(source.fileno())
    is_known = stat.S_ISREG(told.st_mode) and told.st_size > 0  # files of the kernel say 0
    return told.st_size if is_known else None


def _read_whole(source: IO[bytes], size_bytes: int, file: str) -> Iterator[bytes]:
    """As much of a file as there was when it was opened: more may be written to it meanwhile."""
    left = size_bytes
    while left > 0:
        chunk = source.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise InvalidRequest(f"{file} became shorter while it was read", part="FILE")
        left -= len(chunk)
        yield chunk


def _shown(chunks: Iterable[bytes], size_bytes: int | None, what: str) -> Iterator[bytes]:
    """Hand the chunks on; on a terminal a long transfer gets a bar."""
    long = size_bytes is None or size_bytes >= _PROGRESS_FROM_BYTES
    if not long or not sys.stderr.isatty():
        yield from chunks
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task(what, total=size_bytes)
        for chunk in chunks:
            yield chunk
            progress.advance(task, len(chunk))

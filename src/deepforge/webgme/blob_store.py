"""Our own blobs: metadata and what they refer to as documents, content in a storage.

Everything belongs to one user: a hash is an address for whoever stored that blob, and for nobody
else, so knowing the hash of somebody's file is not a way to read it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial

from deepforge.documents.port import Collection, DocumentStore
from deepforge.errors import AlreadyExists, Conflict, DeepForgeError, InvalidRequest, NotFound
from deepforge.ids import new_id, utc_now
from deepforge.storage.client import StorageClient
from deepforge.storage.port import ObjectRef
from deepforge.storage.streams import Digest, blocks, slices
from deepforge.webgme import blobs
from deepforge.webgme.blobs import Entry, Metadata, ZipEntry

BLOBS, CONTENTS = "blobs", "blob_contents"
COLLECTIONS = (Collection(BLOBS), Collection(CONTENTS))
"""`<owner>:<hash>` of both. A blob is its metadata; a content is where its bytes lie."""

_BLOCK_BYTES = 1024 * 1024  # large enough for threads: of hashes and disk, each at its own pace

MOST_LINKS = 10
"""How many soft links are followed from one to the next."""

Storages = Callable[[str, str], Awaitable[StorageClient]]
"""Opens a storage by its name, for an owner."""

JobFiles = Callable[[str, str], Awaitable[Mapping[str, bytes]]]
"""The files of an owner's job, by the hash of the artifact they are. Raises `NotFound`."""


@dataclass(frozen=True)
class Blob:
    """A blob as its owner sees it. `modified_at` is when it was stored last."""

    hash: str
    metadata: Metadata
    modified_at: str


@dataclass(frozen=True)
class Content:
    """Bytes to be read. `size_bytes` is None for an artifact as a zip file, made while it is read."""

    name: str
    size_bytes: int | None
    read: Callable[[int], AsyncGenerator[bytes, None]]
    """Gives the bytes from an offset on; verified when it is 0. A zip is always whole."""


class BlobStore:
    """Every method raises what the documents and the storage raise."""

    def __init__(
        self,
        documents: DocumentStore,
        storages: Storages,
        *,
        storage: str,
        job_files: JobFiles,
    ) -> None:
        """New content goes to the owner's storage of the name `storage`.

        Jobs that wait for workers are blobs too, for as long as they wait.
        """
        self._documents = documents
        self._storages = storages
        self._storage = storage
        self._job_files = job_files

    async def add_file(
        self, owner: str, name: str, chunks: AsyncIterable[bytes], *, size_bytes: int | None = None
    ) -> Blob:
        """Store a file of any size as a stream. One that ends early leaves nothing.

        Equal bytes of one owner are kept once. Raises `InvalidRequest` for a name that is no text.
        """
        blobs.metadata_hash(blobs.from_json({"name": name}))
        storage = await self._storages(self._storage, owner)
        sha1 = Digest("sha1")
        ref = await storage.put_stream(
            f"blobs/{new_id()}-{secrets.token_hex(4)}", _fed(chunks, sha1), size_bytes=size_bytes
        )
        content = (await sha1.result()).removeprefix("sha1:")
        try:
            kept = await self._keep_content(owner, content, ref)
        except DeepForgeError:
            await _discard(storage, ref)
            raise
        if kept != ref:
            await _discard(storage, ref)
        return await self._keep(owner, blobs.of_file(name, ref.size_bytes, content))

    async def add_metadata(self, owner: str, metadata: Metadata) -> Blob:
        """Store metadata that a client made. What they refer to may come later, or never.

        Raises `InvalidRequest` for a file whose content is there and has another size.
        """
        content = metadata.content_hash
        if metadata.kind == "object" and content is not None:
            with suppress(NotFound):
                size_bytes = (await self._content(owner, content)).size_bytes
                if size_bytes != metadata.size_bytes:
                    raise InvalidRequest(
                        f"these metadata do not match their content: {content} has {size_bytes} "
                        f"bytes, not {metadata.size_bytes}",
                        part="size",
                    )
        return await self._keep(owner, metadata)

    async def get(self, owner: str, hash: str) -> Blob:
        """Raises `NotFound` for a blob that is not there, or not this owner's."""
        kept = await self._kept(owner, hash)
        if kept is not None:
            return kept
        files = await self._files_of_job(owner, hash)
        return Blob(hash, blobs.of_files(blobs.JOB_NAME, files), utc_now())

    async def open(self, owner: str, hash: str, path: str = "") -> Content:
        """What a blob holds: the bytes of a file, a file of an artifact, or all of them zipped.

        Raises `NotFound` when it, or something it refers to, is not there, and `InvalidRequest` for
        links that go on too long and for artifacts within artifacts.
        """
        first = await self._kept(owner, hash)
        if first is None:
            return _of_job(hash, await self._files_of_job(owner, hash), path)
        blob = await self._follow(owner, first)
        if blob.metadata.kind != "complex":
            name = path.rpartition("/")[2] or first.metadata.name or ""
            return await self._file(owner, name, blob.metadata.content_hash)
        entries = blob.metadata.entries
        if not path:
            files = await self._files(owner, entries)
            return _zip(blob.metadata.name or blobs.JOB_NAME, files)
        if path not in entries:
            raise NotFound(f"the artifact {hash} has no file {path[:200]!r}")
        return (await self._files(owner, {path: entries[path]}))[path]

    async def find(self, owner: str, hash: str, path: str = "") -> ObjectRef:
        """Where the bytes of a file lie that was stored here, or of a file of an artifact.

        Raises as `open`, and `NotFound` for what is no single file.
        """
        first = await self._kept(owner, hash)
        if first is None:
            raise _no_blob(hash)
        metadata = (await self._follow(owner, first)).metadata
        if metadata.kind == "complex" and path in metadata.entries:
            return (await self._places(owner, {path: metadata.entries[path]}))[path]
        if metadata.kind == "complex" or path or metadata.content_hash is None:
            raise NotFound(f"{hash} and {path[:200]!r} are no file")
        return await self._content(owner, metadata.content_hash)

    async def _files(self, owner: str, entries: Mapping[str, Entry]) -> dict[str, Content]:
        return {
            path: await self._at(owner, path.rpartition("/")[2], ref)
            for path, ref in (await self._places(owner, entries)).items()
        }

    async def _places(self, owner: str, entries: Mapping[str, Entry]) -> dict[str, ObjectRef]:
        """Files of an artifact, thousands as quickly as one: a few requests for all."""
        found = dict(entries)
        for _ in range(MOST_LINKS + 1):
            links = {path: one for path, one in found.items() if one.kind == "softLink"}
            if not links:
                break
            ids = sorted({_id(owner, one.content) for one in links.values()})
            kept = {one.id: one.body for one in await self._documents.get_many(BLOBS, ids)}
            for path, link in links.items():
                body = kept.get(_id(owner, link.content))
                if body is None:
                    raise _no_blob(link.content)
                found[path] = _target(path, blobs.from_json(json.loads(body["metadata"])))
        else:
            raise InvalidRequest(f"this leads through more than {MOST_LINKS} soft links")
        ids = sorted({_id(owner, one.content) for one in found.values()})
        contents = await self._documents.get_many(CONTENTS, ids)
        refs = {one.id: _ref(one.body) for one in contents}
        places = {}
        for path, entry in found.items():
            ref = refs.get(_id(owner, entry.content))
            if ref is None:
                raise _no_content(entry.content)
            places[path] = ref
        return places

    async def _follow(self, owner: str, blob: Blob) -> Blob:
        first = blob.hash
        for _ in range(MOST_LINKS + 1):
            if blob.metadata.kind != "softLink":
                return blob
            if blob.metadata.content_hash is None:
                raise NotFound(f"the soft link {blob.hash} leads nowhere")
            blob = await self.get(owner, blob.metadata.content_hash)
        raise InvalidRequest(f"{first} leads through more than {MOST_LINKS} soft links")

    async def _file(self, owner: str, name: str, content: str | None) -> Content:
        if content is None:
            raise NotFound(f"the blob {name[:200]!r} has no content")
        return await self._at(owner, name, await self._content(owner, content))

    async def _at(self, owner: str, name: str, ref: ObjectRef) -> Content:
        storage = await self._storages(ref.storage, owner)
        return Content(name, ref.size_bytes, partial(_read, storage, ref))

    async def _content(self, owner: str, content: str) -> ObjectRef:
        try:
            body = (await self._documents.get(CONTENTS, _id(owner, content))).body
        except NotFound as error:
            raise _no_content(content) from error
        return _ref(body)

    async def _keep(self, owner: str, metadata: Metadata) -> Blob:
        blob = Blob(blobs.metadata_hash(metadata), metadata, utc_now())
        body = {
            "owner": owner,
            "metadata": blobs.canonical(metadata).decode(),
            "modified_at": blob.modified_at,
        }
        id = _id(owner, blob.hash)
        try:
            await self._documents.insert(BLOBS, id, body)
        except AlreadyExists:
            old = await self._documents.get(BLOBS, id)
            with suppress(Conflict):  # somebody stored it at this moment
                await self._documents.replace(BLOBS, id, body, if_revision=old.revision)
        return blob

    async def _keep_content(self, owner: str, content: str, ref: ObjectRef) -> ObjectRef:
        """Return where the content lies from now on: at `ref`, or where equal bytes lay before."""
        id = _id(owner, content)
        body = {
            "owner": owner,
            "storage": ref.storage,
            "key": ref.key,
            "size_bytes": ref.size_bytes,
            "digest": ref.digest,
        }
        try:
            await self._documents.insert(CONTENTS, id, body)
            return ref
        except AlreadyExists:
            old = await self._documents.get(CONTENTS, id)
        known = _ref(old.body)
        if known.digest != ref.digest:
            raise InvalidRequest(
                f"other bytes with the SHA-1 {content} are stored already",
                hint="two files were made to look the same; neither is replaced",
            )
        if await self._is_there(owner, known):
            return known
        try:
            await self._documents.replace(CONTENTS, id, body, if_revision=old.revision)
        except Conflict:  # another upload of these bytes has brought them back
            return _ref((await self._documents.get(CONTENTS, id)).body)
        return ref

    async def _is_there(self, owner: str, ref: ObjectRef) -> bool:
        try:
            storage = await self._storages(ref.storage, owner)
            return (await storage.stat(ref.key)).size_bytes == ref.size_bytes
        except NotFound:  # the object, or the whole storage
            return False

    async def _kept(self, owner: str, hash: str) -> Blob | None:
        try:
            body = (await self._documents.get(BLOBS, _id(owner, hash))).body
        except NotFound:
            return None
        return Blob(hash, blobs.from_json(json.loads(body["metadata"])), body["modified_at"])

    async def _files_of_job(self, owner: str, hash: str) -> Mapping[str, bytes]:
        try:
            return await self._job_files(owner, hash)
        except NotFound as error:
            raise _no_blob(hash) from error


def _of_job(hash: str, files: Mapping[str, bytes], path: str) -> Content:
    contents = {
        name: Content(name, len(data), partial(_slices_from, data)) for name, data in files.items()
    }
    if not path:
        return _zip(blobs.JOB_NAME, contents)
    if path not in contents:
        raise NotFound(f"the job {hash} has no file {path[:200]!r}")
    return contents[path]


def _zip(name: str, files: Mapping[str, Content]) -> Content:
    entries = [
        ZipEntry(path, content.size_bytes or 0, partial(content.read, 0))
        for path, content in files.items()
    ]
    return Content(name, None, lambda start: blobs.zipped(entries))


def _read(storage: StorageClient, ref: ObjectRef, start: int) -> AsyncGenerator[bytes, None]:
    return storage.get_range(ref.key, start=start) if start else storage.get_stream(ref)


def _slices_from(data: bytes, start: int) -> AsyncGenerator[bytes, None]:
    return slices(data[start:])


async def _fed(chunks: AsyncIterable[bytes], digest: Digest) -> AsyncGenerator[bytes, None]:
    async with aclosing(blocks(chunks, _BLOCK_BYTES)) as stream:
        async for block in stream:
            await digest.feed(block)
            yield block


async def _discard(storage: StorageClient, ref: ObjectRef) -> None:
    with suppress(DeepForgeError):  # what is not needed may stay, and some storages keep all
        await storage.delete([ref.key])


def _ref(body: Mapping[str, object]) -> ObjectRef:
    storage, key, size_bytes, digest = (
        body["storage"], body["key"], body["size_bytes"], body["digest"]
    )  # fmt: skip
    assert isinstance(storage, str)
    assert isinstance(key, str)
    assert isinstance(size_bytes, int)
    assert digest is None or isinstance(digest, str)
    return ObjectRef(storage, key, size_bytes, digest)


def _id(owner: str, hash: str) -> str:
    return f"{owner}:{hash}"


def _target(path: str, metadata: Metadata) -> Entry:
    """Where a soft link of an artifact leads: to content, or to the next link."""
    if metadata.kind == "complex":
        raise InvalidRequest(f"{path[:200]!r} is an artifact within an artifact", part="path")
    if metadata.content_hash is None:
        raise NotFound(f"the blob that {path[:200]!r} leads to has no content")
    return Entry(metadata.content_hash, metadata.kind)


def _no_content(sha1: str) -> NotFound:
    return NotFound(f"there is no content with the SHA-1 {sha1}")


def _no_blob(hash: str) -> NotFound:
    return NotFound(f"there is no blob {hash}", hint="blobs are known to who stored them alone")

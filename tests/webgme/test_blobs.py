from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deepforge.errors import InvalidRequest
from deepforge.storage.streams import slices
from deepforge.webgme.blobs import (
    BYTES,
    Entry,
    Metadata,
    ZipEntry,
    canonical,
    check_path,
    from_json,
    is_hash,
    metadata_hash,
    mime_of,
    of_file,
    of_files,
    to_json,
    zipped,
)

ABC = hashlib.sha1(b"abc").hexdigest()
FILE = "d9094bde64c3a9506264600b4c7b0f5f25158730"  # `a.txt` of these bytes


@pytest.mark.parametrize(
    ("name", "data", "hash"),
    [
        ("a.txt", b"abc", FILE),
        ("dir/a.txt", b"abc", "689e724f82c8d1ed4856e4335fe548cb61dc8b42"),
        ("noext", b"abc", "62f07dbb7f8675ff8082017f5a8d46e71409733a"),
        ("héllo w.csv", b"abc", "faf73226a7a4b28c7a22a446519f6a7a73b7cc83"),
        ("empty.bin", b"", "130b46f9e914b27707ee1d6477d6b58be4fca1ed"),
    ],
)
def test_a_file_has_the_hash_that_the_original_server_gives_it(
    name: str, data: bytes, hash: str
) -> None:
    metadata = of_file(name, len(data), hashlib.sha1(data).hexdigest())

    assert hash == metadata_hash(metadata)


def test_an_artifact_has_the_hash_that_the_original_server_gives_it() -> None:
    metadata = Metadata(
        "art.zip",
        6,
        "application/zip",
        {"dir/a.txt": Entry(ABC), "b.txt": Entry(FILE, "softLink")},
        "complex",
    )

    assert "13222f68aceb9413ca4a54d4c54b3e98a73f10d7" == metadata_hash(metadata)
    assert "81582f8c9e0b805d3ed64c93f9aaea5e8a2e8dd1" == metadata_hash(from_json({}))


def test_the_artifact_of_files_describes_them() -> None:
    metadata = of_files("job.zip", {"b": b"12", "a": b"abc"})

    assert 5 == metadata.size_bytes
    assert ABC == metadata.entries["a"].content
    assert metadata == from_json(to_json(metadata))
    assert {} == of_file("a", 3, ABC).entries


def test_files_are_ordered_as_javascript_does() -> None:
    names = ["a", "😀", "10", "B", "2", "é", "01", "\uffee", "4294967294", "4294967295", "-1", "0"]
    metadata = Metadata(content={name: Entry(ABC) for name in names}, kind="complex")

    ordered = list(to_json(metadata)["content"])

    numbers, texts = ["0", "2", "10", "4294967294"], ["-1", "01", "4294967295", "B", "a", "é"]
    assert [*numbers, *texts, "😀", "\uffee"] == ordered


def test_the_canonical_text_is_compact_and_not_escaped() -> None:
    text = canonical(from_json({"tags": ["é", "a"], "name": 'ü"\n\u2028', "other": 1, "size": 3}))

    expected = (
        '{"name":"ü\\"\\n\u2028","size":3,"mime":"","isPublic":false,"tags":["a","é"],'
        '"contentType":"object"}'
    )
    assert expected == text.decode()


@pytest.mark.parametrize(
    "value",
    [
        [],
        "text",
        None,
        {"name": 1},
        {"name": None},
        {"name": "\ud800"},
        {"name": "a" * 5000},
        {"size": -1},
        {"size": 2**53},
        {"size": True},
        {"size": "3"},
        {"size": 1.5},
        {"isPublic": 1},
        {"tags": "a"},
        {"tags": [1]},
        {"mime": 1},
        {"contentType": "other"},
        {"contentType": ["object"]},
        {"content": ABC.upper()},
        {"content": {"a": {"content": ABC, "contentType": "object"}}},
        {"contentType": "softLink", "content": "zz"},
        {"contentType": "complex", "content": ABC},
        {"contentType": "complex", "content": {"a": ABC}},
        {"contentType": "complex", "content": {"a": {"content": ABC}}},
        {"contentType": "complex", "content": {"a": {"content": 1, "contentType": "object"}}},
        {"contentType": "complex", "content": {"a": {"content": ABC, "contentType": "complex"}}},
        {"contentType": "complex", "content": {"../a": {"content": ABC, "contentType": "object"}}},
    ],
    ids=repr,
)
def test_what_no_blob_can_be_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="cannot be a blob"):
        from_json(value)


@pytest.mark.parametrize(
    "path",
    ["", "/a", "a/", "a//b", "..", "../a", "a/../b", "./a", "a/.", "a\\b", "C:a", "c:/a", "a\0",
     "a\nb", "\ud800", "a" * 5000],
    ids=repr,
)  # fmt: skip
def test_a_path_that_leads_out_of_its_folder_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="path of a file"):
        check_path(path)


@pytest.mark.parametrize(
    "path", ["a", "a/b", ".hidden", "..a", "a..", "-x", "e\u0301.txt", "日本\u3000語", "ab:c"]
)
def test_any_other_path_is_fine(path: str) -> None:
    assert path == check_path(path)


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("a.txt", "text/plain"),
        ("A.TXT", "text/plain"),
        ("a.tar.gz", "application/gzip"),
        ("a.ts", "video/mp2t"),
        ("a.py", BYTES),
        ("a.", BYTES),
        ("txt", "text/plain"),
        (".txt", "text/plain"),
        ("a/.txt", BYTES),
        ("a.b/txt", BYTES),
        ("a\nb.txt", "text/plain"),
        ("", BYTES),
    ],
)
def test_media_types_come_from_the_end_of_the_name(name: str, mime: str) -> None:
    assert mime == mime_of(name)


def test_hashes_are_forty_small_digits() -> None:
    assert is_hash(ABC)
    assert not any(map(is_hash, [ABC.upper(), ABC[1:], ABC + "\n", "g" * 40, ""]))


FILES = {"dir/a.txt": b"abc", "ünï 😀.txt": b"", "large": bytes(range(256)) * 40_000}


async def test_a_zip_holds_the_files_as_they_are() -> None:
    data = await zip_of(FILES)

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert FILES == {one: archive.read(one) for one in archive.namelist()}
        assert {zipfile.ZIP_STORED} == {one.compress_type for one in archive.infolist()}
        assert {0o644} == {one.external_attr >> 16 for one in archive.infolist()}
    assert data == await zip_of(FILES)


@pytest.mark.skipif(shutil.which("unzip") is None, reason="there is no unzip, which workers use")
async def test_unzip_unpacks_it(tmp_path: Path) -> None:
    (tmp_path / "source.zip").write_bytes(await zip_of(FILES))

    subprocess.run(  # noqa: ASYNC221
        ["unzip", "-q", "-o", "source.zip", "-d", "out"],
        cwd=tmp_path,
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        timeout=30,
    )

    out = tmp_path / "out"
    assert FILES == {name: (out / name).read_bytes() for name in FILES}


async def test_a_zip_is_made_while_it_is_read() -> None:
    """No more than a chunk is held, and an entry is opened only when its turn has come."""
    opened: list[str] = []

    async def chunks(name: str) -> AsyncGenerator[bytes, None]:
        opened.append(name)
        for _ in range(100):
            yield bytes(64 * 1024)

    size_bytes = 100 * 64 * 1024
    entries = [ZipEntry(name, size_bytes, partial(chunks, name)) for name in ("a", "b")]
    pieces = zipped(entries)

    first = await anext(pieces)

    assert ["a"] == opened
    longest = max([len(first)] + [len(piece) async for piece in pieces])
    assert 64 * 1024 <= longest < 66 * 1024


async def test_a_failure_within_a_zip_comes_out() -> None:
    async def fails() -> AsyncGenerator[bytes, None]:
        yield b"some"
        raise InvalidRequest("gone")

    with pytest.raises(InvalidRequest, match="gone"):
        async for _ in zipped([ZipEntry("a", 10, fails)]):
            pass


async def test_files_beyond_the_old_limit_have_room_in_the_zip() -> None:
    """Only the announced size decides; so much is not written here."""

    async def little() -> AsyncGenerator[bytes, None]:
        yield b"little"

    data = b"".join([piece async for piece in zipped([ZipEntry("a", 5 * 1024**3, little)])])

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert b"little" == archive.read("a")
        assert 45 == archive.getinfo("a").extract_version


async def zip_of(files: dict[str, bytes]) -> bytes:
    entries = [ZipEntry(name, len(data), partial(slices, data)) for name, data in files.items()]
    return b"".join([piece async for piece in zipped(entries)])


def test_metadata_survive_their_own_json() -> None:
    value = {
        "name": "k.zip", "size": 3, "mime": "x/y", "isPublic": True, "tags": ["a"],
        "content": {"a": {"contentType": "softLink", "content": ABC}}, "contentType": "complex",
    }  # fmt: skip

    assert json.dumps(value) == json.dumps(to_json(from_json(value)))

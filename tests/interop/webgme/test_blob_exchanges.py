"""The same requests to our blob server and to the original one, answered alike field by field.

`blob_exchanges.jsonl` holds one exchange a line, in order: each builds on those before. `answer` is what
the original gives; where ours differs on purpose, `ours` is what we give and `because` says why. An
`answer` of null: it never comes.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import httpx

from deepforge.webgme import blobs
from deepforge.webgme.mime import MIME_TYPES
from interop.webgme.server import Engine

EXCHANGES: list[dict[str, Any]] = [
    json.loads(line)
    for line in Path(__file__).with_name("blob_exchanges.jsonl").read_text().splitlines()
]
STORED_AT = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ")


async def test_the_original_answers_so(engine: Engine) -> None:
    async with httpx.AsyncClient(base_url=f"{engine.url}/rest/blob", timeout=20) as http:
        wrong = [
            difference
            for one in EXCHANGES
            if one["answer"] is not None
            for difference in await _differences(http, one, one["answer"])
        ]

    assert not wrong, "\n".join(wrong)


async def test_we_answer_so(our_server: str) -> None:
    async with httpx.AsyncClient(base_url=f"{our_server}/rest/blob", timeout=20) as http:
        wrong = [
            difference
            for one in EXCHANGES
            for difference in await _differences(http, one, one.get("ours", one["answer"]))
        ]

    assert not wrong, "\n".join(wrong)


def test_every_intended_difference_is_told_to_users_with_its_reason() -> None:
    guide = (Path(__file__).parents[3] / "docs/guides/webgme.md").read_text()
    differences = [one for one in EXCHANGES if "ours" in one]

    assert [] == [one["because"] for one in differences if f"| {one['because']} |" not in guide]
    assert [] == [one["what"] for one in differences if one["ours"] == one["answer"]]


async def test_the_original_tells_media_types_as_our_table_does(engine: Engine) -> None:
    told = await _media_types(engine.url)

    assert {name: blobs.mime_of(name) for name in told} == told


async def test_we_tell_media_types_as_our_table_does(our_server: str) -> None:
    told = await _media_types(our_server)

    assert {name: blobs.mime_of(name) for name in told} == told


async def _media_types(url: str) -> dict[str, str]:
    names = [f"a.{ending}" for ending in sorted(MIME_TYPES)] + [
        "a.PY", "a.h5", "a.npy", "a.pkl", "a.parquet", "a.out", "txt", ".txt", "a.b%2Ftxt",
        "a%2F.txt", "a%5Cb.txt", "a.", "a.tar.gz", "A.TXT",
    ]  # fmt: skip
    told = {}
    async with httpx.AsyncClient(base_url=f"{url}/rest/blob", timeout=20) as http:
        for name in names:
            headers = {"Content-Type": blobs.BYTES}
            answer = await http.post(f"/createFile/{name}", content=b"", headers=headers)
            (value,) = answer.json().values()
            told[value["name"]] = value["mime"]
    assert len(told) == len(names)
    return told


async def _differences(
    http: httpx.AsyncClient, one: dict[str, Any], expected: dict[str, Any]
) -> list[str]:
    method, _, path = one["ask"].partition(" ")
    body = one.get("body")
    answer = await http.request(
        method,
        path,
        headers=one.get("headers"),
        content=None if body is None else body.encode(),
        follow_redirects=False,
    )
    found = {name: _field(name, answer) for name in expected}
    return [
        f"{one['what']} ({one['ask']}): {name}: expected {value!r}, found {found[name]!r}"
        for name, value in expected.items()
        if json.dumps(found[name]) != json.dumps(value)  # the order of keys counts
    ]


def _field(name: str, answer: httpx.Response) -> Any:
    match name:
        case "status":
            return answer.status_code
        case "text":
            return answer.text
        case "type":
            return answer.headers.get("Content-Type")
        case "length":
            return answer.headers.get("Content-Length")
        case "disposition":
            return answer.headers.get("Content-Disposition")
        case "origin":
            return answer.headers.get("Access-Control-Allow-Origin")
        case "error":
            return answer.json()["error"]["code"]
        case "zip":
            with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
                assert archive.testzip() is None
                assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
                return {one: archive.read(one).decode() for one in sorted(archive.namelist())[::-1]}
        case "json":
            return _without_time(answer.json())
    raise AssertionError(f"no field {name!r} is known")


def _without_time(value: dict[str, Any]) -> dict[str, Any]:
    """Take out when it was stored, which must be told, and check each hash by the way."""
    if "contentType" not in value:
        return {
            hash if hash == _hash(inner) else f"not {hash}": _without_time(inner)
            for hash, inner in value.items()
        }
    assert STORED_AT.fullmatch(value["lastModified"])
    assert list(value)[-1] == "lastModified"
    return {name: inner for name, inner in value.items() if name != "lastModified"}


def _hash(value: dict[str, Any]) -> str:
    return blobs.metadata_hash(blobs.from_json(value))

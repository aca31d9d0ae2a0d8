"""The same requests to our executor routes and to the original's, answered alike field by field.

`executor_exchanges.jsonl` holds one exchange a line, in order: each builds on those before. `answer` is
what the original gives; where ours differs on purpose, `ours` is what we give and `because` says why.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx

from interop.webgme.server import Engine

EXCHANGES: list[dict[str, Any]] = [
    json.loads(line)
    for line in Path(__file__).with_name("executor_exchanges.jsonl").read_text().splitlines()
]
CALLERS = {"guest": "the caller", "local": "the caller"}
"""Who calls where nobody wants to know it."""
MADE_AT = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ")


async def test_the_original_answers_so(engine: Engine) -> None:
    async with httpx.AsyncClient(base_url=f"{engine.url}/rest/executor", timeout=20) as http:
        wrong = [
            difference
            for one in EXCHANGES
            for difference in await _differences(http, one, one["answer"])
        ]

    assert not wrong, "\n".join(wrong)


async def test_we_answer_so(our_server: str) -> None:
    async with httpx.AsyncClient(base_url=f"{our_server}/rest/executor", timeout=20) as http:
        wrong = [
            difference
            for one in EXCHANGES
            for difference in await _differences(http, one, one.get("ours", one["answer"]))
        ]

    assert not wrong, "\n".join(wrong)


def test_every_intended_difference_has_a_reason() -> None:
    assert all(one["because"] for one in EXCHANGES if "ours" in one)
    assert all(one["ours"] != one["answer"] for one in EXCHANGES if "ours" in one)


async def _differences(
    http: httpx.AsyncClient, one: dict[str, Any], expected: dict[str, Any]
) -> list[str]:
    method, _, path = one["ask"].partition(" ")
    body = one.get("body")
    if "body_bytes" in one:  # output of that length
        body = json.dumps({"output": "x" * one["body_bytes"], "outputNumber": 6})
    answer = await http.request(
        method, path, headers=one.get("headers"), content=None if body is None else body.encode()
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
        case "media":
            return answer.headers.get("X-WebGME-Media-Type")
        case "text":
            return answer.text
        case "error":
            return answer.json()["error"]["code"]
        case "json":
            return without_chance(answer.json())
    raise AssertionError(f"no field {name!r} is known")


def without_chance(value: Any) -> Any:
    """Put a word in the place of what no two servers give alike, after a look at its shape."""
    if isinstance(value, list):
        return [without_chance(one) for one in value]
    if not isinstance(value, dict):
        return value
    told = {name: without_chance(one) for name, one in value.items()}
    if "userId" in told:
        told["userId"] = [CALLERS.get(one, one) for one in told["userId"]]
    if "createTime" in told:
        assert MADE_AT.fullmatch(told["createTime"])
        told["createTime"] = "now"
    if "secret" in told:
        assert len(told["secret"]) >= 32
        told["secret"] = "a secret"
    if "refreshPeriod" in told:
        assert isinstance(told["refreshPeriod"], int)
        told["refreshPeriod"] = "a while"
    return told

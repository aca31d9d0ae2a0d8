"""The same requests to two servers that want to know who calls, answered alike field by field.

`auth_exchanges.jsonl` holds one exchange a line, in order: each builds on those before. `as` says who
asks, and how. `answer` is what the original gives; where ours differs on purpose, `ours` is what we
give and `because` says why.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from interop.webgme.ours import OurServer
from interop.webgme.server import Engine, add_user
from interop.webgme.test_executor_exchanges import without_chance

EXCHANGES: list[dict[str, Any]] = [
    json.loads(line)
    for line in Path(__file__).with_name("auth_exchanges.jsonl").read_text().splitlines()
]


async def test_the_original_answers_so(engine_auth: Engine) -> None:
    tokens = {name: add_user(engine_auth, name) for name in ("alice", "bob")}

    wrong = await _differences(engine_auth.url, tokens, "answer")

    assert not wrong, "\n".join(wrong)


async def test_we_answer_so(our_server_auth: OurServer) -> None:
    wrong = await _differences(our_server_auth.url, our_server_auth.tokens, "ours")

    assert not wrong, "\n".join(wrong)


def test_every_intended_difference_is_told_to_users_with_its_reason() -> None:
    guide = (Path(__file__).parents[3] / "docs/guides/webgme.md").read_text()
    differences = [one for one in EXCHANGES if "ours" in one]

    assert [] == [one["because"] for one in differences if f"| {one['because']} |" not in guide]
    assert [] == [one["what"] for one in differences if one["ours"] == one["answer"]]


async def _differences(url: str, tokens: Mapping[str, str], whose: str) -> list[str]:
    wrong = []
    async with httpx.AsyncClient(base_url=f"{url}/rest", timeout=20) as http:
        for one in EXCHANGES:
            method, _, path = one["ask"].partition(" ")
            body = one.get("body")
            answer = await http.request(
                method,
                path,
                headers={**_credentials(one["as"], tokens), **one.get("headers", {})},
                content=None if body is None else body.encode(),
            )
            http.cookies.clear()  # who asks is told by each question alone
            expected = one.get(whose, one["answer"])
            wrong += [
                f"{one['what']} ({one['ask']} as {one['as']}): {name}: expected {value!r}, "
                f"found {found!r}"
                for name, value in expected.items()
                if json.dumps(found := _field(name, answer)) != json.dumps(value)
            ]
    return wrong


def _credentials(who: str, tokens: Mapping[str, str]) -> dict[str, str]:
    way, _, name = who.partition(" ")
    match way:
        case "nobody":
            return {}
        case "token":
            return {"x-api-token": tokens.get(name, name)}
        case "bearer":
            return {"Authorization": f"Bearer {tokens.get(name, name)}"}
        case "basic":
            told = base64.b64encode(name.encode()).decode()
            return {"Authorization": f"Basic {told}"}
    raise AssertionError(f"no way {way!r} to say who asks is known")


def _field(name: str, answer: httpx.Response) -> Any:
    match name:
        case "status":
            return answer.status_code
        case "media":
            return answer.headers.get("X-WebGME-Media-Type")
        case "location":
            return answer.headers.get("Location")
        case "text":
            return answer.text
        case "error":
            return answer.json()["error"]["code"]
        case "names":
            return sorted(answer.json())
        case "json":
            return _without_chance(answer.json())
    raise AssertionError(f"no field {name!r} is known")


def _without_chance(told: dict[str, Any]) -> dict[str, Any]:
    for one in told.values():
        if isinstance(one, dict):  # a blob's: when it was stored
            one.pop("lastModified", None)
    return dict(without_chance(told))

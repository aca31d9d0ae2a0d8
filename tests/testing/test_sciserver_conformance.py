"""The stand-in of SciServer answers as the real services were seen to.

`sciserver_exchanges.jsonl` holds one exchange a line, in order: each builds on those before. The same
file can be held against a real site, with an account that is used for nothing else:

    DEEPFORGE_SCISERVER_URL=https://apps.sciserver.org DEEPFORGE_SCISERVER_USER=… \\
    DEEPFORGE_SCISERVER_PASSWORD=… pytest tests/testing/test_sciserver_conformance.py

There it logs in twice, works in one new volume that it deletes again, and runs two short jobs; lines
for the stand-in alone (wrong passwords, a second user, what each site sets for itself) are left out.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepforge.testing.sciserver import running

EXCHANGES: list[dict[str, Any]] = [
    json.loads(line)
    for line in Path(__file__).with_name("sciserver_exchanges.jsonl").read_text().splitlines()
]
SITE = os.environ.get("DEEPFORGE_SCISERVER_URL", "")
MAY_TAKE_S = 60.0
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
KINDS = {
    "<text>": lambda found: isinstance(found, str),
    "<int>": lambda found: type(found) is int,
    "<number>": lambda found: type(found) in (int, float),
    "<ms>": lambda found: type(found) is int and found > 1_500_000_000_000,
    "<date>": lambda found: isinstance(found, str) and DATE.fullmatch(found) is not None,
}


def test_the_stand_in_answers_so(tmp_path: Path) -> None:
    with running(tmp_path / "world", tick_s=0.02) as site:
        for name in ("alice", "bob"):
            site.users.add_user(name)
        site.users.add_user("mallory")
        wrong = list(_wrong(Site(site.url, "alice", "secret", "bob"), EXCHANGES))

    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(not SITE, reason="DEEPFORGE_SCISERVER_URL names no SciServer")
@pytest.mark.slow(reason="says whether the stand-in is like the real one")
def test_the_real_site_answers_so() -> None:
    user = os.environ["DEEPFORGE_SCISERVER_USER"]
    password = os.environ["DEEPFORGE_SCISERVER_PASSWORD"]
    asked = [one for one in EXCHANGES if one.get("where") != "stand-in"]
    wrong = list(_wrong(Site(SITE, user, password, "somebody_else"), asked))

    assert not wrong, "\n".join(wrong)


def test_every_line_says_something_of_its_own() -> None:
    said = [one["what"] for one in EXCHANGES]

    assert len(said) == len(set(said))
    assert len(said) > 130
    assert [] == [one["what"] for one in EXCHANGES if "status" not in one["answer"]]


@dataclass
class Site:
    """Who is asked, and what is known so far."""

    url: str
    user: str
    password: str
    other: str
    known: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        volume = f"df_conformance_{secrets.token_hex(4)}"
        self.known = {
            "me": self.user,
            "password": self.password,
            "other": self.other,
            "volume": volume,
            "own": f"Storage/{self.user}/{volume}",
        }

    def filled(self, value: Any) -> Any:
        """Put what is known into the places for it; a place that stands alone keeps its type."""
        if isinstance(value, dict):
            return {name: self.filled(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.filled(inner) for inner in value]
        if not isinstance(value, str):
            return value
        if value[1:-1] in self.known and value == "{" + value[1:-1] + "}":
            return self.known[value[1:-1]]
        for name, inner in self.known.items():
            value = value.replace("{" + name + "}", str(inner))
        return value


def _wrong(site: Site, exchanges: list[dict[str, Any]]) -> Iterator[str]:
    with httpx.Client(base_url=site.url, timeout=MAY_TAKE_S) as http:
        site.known["token"] = _token(http, site.user, site.password)
        tokens = {"me": site.known["token"], "nobody": None}
        if any(one.get("as") == "other" for one in exchanges):
            tokens["other"] = _token(http, site.other, site.password)
        for one in exchanges:
            deadline = time.monotonic() + one.get("wait_s", 0.0)
            while True:
                answer = _ask(http, site, one, tokens[one.get("as", "me")])
                differences = list(_differences(site, one["answer"], answer))
                if not differences or time.monotonic() > deadline:
                    break
                time.sleep(0.02 if site.user == "alice" else 5.0)
            yield from (f"{one['what']} ({one['ask'][:120]}): {each}" for each in differences)
            if not differences:
                _remember(site, one, answer)


def _token(http: httpx.Client, user: str, password: str) -> str:
    asked = {"auth": {"identity": {"password": {"user": {"name": user, "password": password}}}}}
    answer = http.post("/login-portal/keystone/v3/tokens", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.headers["X-Subject-Token"]


def _ask(http: httpx.Client, site: Site, one: dict[str, Any], token: str | None) -> httpx.Response:
    method, _, path = site.filled(one["ask"]).partition(" ")
    headers = site.filled(one.get("headers", {}))
    if token is not None:
        headers["X-Auth-Token"] = token
    content: Any = None
    if "json" in one:
        content = json.dumps(site.filled(one["json"])).encode()
        headers["Content-Type"] = "application/json"
    elif "chunks" in one:
        content = (chunk.encode() for chunk in one["chunks"])
    elif "body" in one:
        content = site.filled(one["body"]).encode()
    # As it is written: the library would take dots and doubled slashes away.
    url = httpx.URL(site.url).copy_with(raw_path=path.encode())
    return http.request(method, url, content=content, headers=headers, follow_redirects=False)


def _remember(site: Site, one: dict[str, Any], answer: httpx.Response) -> None:
    for name, where in one.get("keep", {}).items():
        value = answer.json()
        for step in where.split("."):
            value = value[int(step) if isinstance(value, list) else step]
        site.known[name] = value
        if name == "results":
            site.known["results_path"] = value.removeprefix("/home/idies/workspace/").strip("/")


def _differences(site: Site, expected: dict[str, Any], answer: httpx.Response) -> Iterator[str]:
    if str(answer.status_code) not in str(expected["status"]).split("|"):
        yield f"status: expected {expected['status']}, found {answer.status_code}: {answer.text[:300]}"
        return
    if "text" in expected:
        wanted = site.filled(expected["text"])
        if answer.text != wanted:
            yield f"text: expected {wanted!r}, found {answer.text[:300]!r}"
    if "repeats" in expected and answer.text != answer.headers.get(expected["repeats"]):
        yield f"text: expected that of {expected['repeats']}, found {answer.text[:300]!r}"
    if "matches" in expected:
        pattern = site.filled(expected["matches"])
        if re.fullmatch(pattern, answer.text) is None:
            yield f"text: expected {pattern!r}, found {answer.text[:300]!r}"
    for part in site.filled(expected.get("contains", [])):
        if part not in answer.text:
            yield f"text: expected {part!r} in it, found {answer.text[:300]!r}"
    if "type" in expected and not answer.headers.get("Content-Type", "").startswith(
        expected["type"]
    ):
        yield f"type: expected {expected['type']}, found {answer.headers.get('Content-Type')}"
    for name, pattern in expected.get("headers", {}).items():
        found = answer.headers.get(name)
        if pattern is None:
            if found is not None:
                yield f"{name}: expected none, found {found!r}"
        elif found is None or re.fullmatch(site.filled(pattern), found) is None:
            yield f"{name}: expected {pattern!r}, found {found!r}"
    if "json" in expected:
        try:
            value = answer.json()
        except ValueError:
            yield f"expected JSON, found {answer.text[:300]!r}"
        else:
            yield from _unlike(site.filled(expected["json"]), value, "json")


def _unlike(expected: Any, found: Any, at: str) -> Iterator[str]:
    """Where a value is not as expected. Objects may hold more than is named."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, inner in expected.items():
            if inner == "<absent>":
                if name in found:
                    yield f"{at}.{name}: expected none, found {found[name]!r}"
            elif name not in found:
                yield f"{at}: expected {name}, found only {', '.join(found)}"
            else:
                yield from _unlike(inner, found[name], f"{at}.{name}")
    elif isinstance(expected, list) and expected[:1] in (["<has>"], ["<once>"]):
        if not isinstance(found, list) or (not found and len(expected) > 1):
            yield f"{at}: expected entries, found {found!r}"
            return
        for wanted in expected[1:]:
            times = sum(not list(_unlike(wanted, one, at)) for one in found)
            if times == 0 or (expected[0] == "<once>" and times > 1):
                yield f"{at}: expected {wanted!r} in it, {times} times in {found!r}"
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{at}: expected {len(expected)} entries, found {found!r}"
            return
        for index, (wanted, one) in enumerate(zip(expected, found, strict=True)):
            yield from _unlike(wanted, one, f"{at}.{index}")
    elif isinstance(expected, str) and expected in KINDS:
        if not KINDS[expected](found):
            yield f"{at}: expected {expected}, found {found!r}"
    elif isinstance(expected, str) and expected.startswith("<not "):
        if found == expected[5:-1]:
            yield f"{at}: expected anything but {found!r}"
    elif isinstance(expected, str) and expected.endswith("<rest>"):
        start = expected.removesuffix("<rest>")
        if not (isinstance(found, str) and found.startswith(start) and found != start):
            yield f"{at}: expected more than {start!r}, found {found!r}"
    elif json.dumps(expected) != json.dumps(found):
        yield f"{at}: expected {expected!r}, found {found!r}"

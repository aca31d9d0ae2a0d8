from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepforge.errors import ConfigError
from deepforge.execution.access import Address
from deepforge.server.home import Home, open_home
from deepforge.server.services import Services, open_services
from deepforge.server.start import _checked_url, embedded, start
from deepforge.settings import Secret

SERVER = """
import json, sys
from deepforge.server.home import open_home
from deepforge.server.listen import run
from deepforge.server.logs import configure_logging
from deepforge.server.start import start

def announce(listening):
    print(json.dumps([listening.url, listening.wants_login]), flush=True)

configure_logging()
options = json.loads(sys.argv[1])
run(start(open_home(), announce=announce, **{"host": "127.0.0.1", "port": 0, **options}))
"""


@contextmanager
def server(
    folder: Path, variables: Mapping[str, str] | None = None, **options: Any
) -> Iterator[tuple[subprocess.Popen[str], str, bool]]:
    """A server process on a home below `folder`: the process, its URL, whether it wants a login."""
    environ = {"DEEPFORGE_HOME": str(folder / "home"), "PATH": os.environ["PATH"]}
    environ |= variables or {}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, json.dumps(options)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            url, wants_login = json.loads(process.stdout.readline())
            yield process, url, wants_login
        finally:
            if process.poll() is None:
                process.kill()


def test_a_local_server_asks_for_no_token_and_leaves_in_good_order(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with server(tmp_path) as (process, url, wants_login):
        answer = httpx.get(f"{url}/api/v1/projects")
        foreign = httpx.get(f"{url}/api/v1/projects", headers={"host": "evil.example"})
        address = home.read_address()
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        log = [json.loads(line) for line in process.stderr]
        assert process.wait(10) == 0

    assert (answer.status_code, foreign.status_code) == (200, 403)
    assert not wants_login
    assert address == url
    assert home.read_address() is None
    assert [one["event"] for one in log] == ["server_started", "server_stopping", "server_stopped"]


@pytest.mark.parametrize(
    "options", [{"host": "0.0.0.0"}, {"public_url": "https://forge.example.org/"}]
)
async def test_a_server_others_can_reach_wants_a_token(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    home = open_home({"DEEPFORGE_HOME": str(tmp_path / "home")})
    async with open_services(home, drive=False, address=Address(), environ={}) as services:
        await services.users.add("ada", Secret("correct horse"))
        token = (await services.tokens.create("ada", "laptop", ["api"]))[1].reveal()
    with server(tmp_path, **options) as (_, url, wants_login):
        here = home.read_address() or ""
        async with httpx.AsyncClient(base_url=f"{here}/api/v1") as http:
            without = await http.get("/projects")
            right = await http.get("/projects", headers={"authorization": f"Bearer {token}"})
            health = await http.get("/health")

    assert url.startswith("https://forge.example.org" if "public_url" in options else "http://127")
    assert (without.status_code, right.status_code, health.status_code) == (401, 200, 200)
    assert wants_login


async def test_a_server_others_can_reach_does_not_start_without_accounts(home: Home) -> None:
    with pytest.raises(ConfigError, match="wants accounts") as caught:
        await start(home, host="0.0.0.0", port=0, announce=lambda _: None)

    assert "deepforge users add" in str(caught.value.hint)
    assert home.read_address() is None


async def test_disabled_accounts_are_not_enough_to_start(home: Home, services: Services) -> None:
    await services.users.add("ada", Secret("correct horse"))
    await services.users.change("ada", is_disabled=True)

    with pytest.raises(ConfigError, match="wants accounts"):
        await start(home, host="0.0.0.0", port=0, announce=lambda _: None)


def test_idle_connections_do_not_hold_the_server_up(tmp_path: Path) -> None:
    with server(tmp_path) as (process, url, _), httpx.Client(base_url=f"{url}/api/v1") as http:
        http.get("/health")
        began = time.monotonic()
        process.terminate()

        assert process.wait(10) == 0
        assert time.monotonic() - began < 4


async def test_a_home_without_a_database_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPFORGE_DATABASE", "oracle://nowhere")
    home = open_home({"DEEPFORGE_HOME": str(tmp_path)})

    with pytest.raises(ConfigError, match="database"):
        await start(home, host="127.0.0.1", port=0, announce=lambda _: None)
    assert home.read_address() is None


@pytest.mark.parametrize(
    "url", ["forge.example.org", "ftp://x", "http://", "http://[::1", "http://x:99999", "",
            "http://x/?q=1", "http://me:secret@x"],
)  # fmt: skip
def test_a_public_url_that_runners_could_not_call_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not a URL"):
        _checked_url(url)


async def test_embedded_and_driving_runners_reach_the_channel_and_nothing_else(home: Home) -> None:
    async with embedded(home, drive=True) as app:
        url = home.read_address()
        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1") as inside,
            httpx.AsyncClient(base_url=f"{url}/api/v1") as outside,
        ):
            assert (await inside.get("/projects")).status_code == 200
            assert (await outside.get("/projects")).status_code == 404
            assert (await outside.post("/attempts/x/heartbeat")).status_code == 401

    assert home.read_address() is None


async def test_embedded_without_driving_nothing_listens(home: Home) -> None:
    async with embedded(home, drive=False) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            assert (await http.get("/api/v1/projects")).status_code == 200
        assert home.read_address() is None


async def test_two_may_use_one_home_at_once(home: Home) -> None:
    async with embedded(home, drive=True) as first, embedded(home, drive=True) as second:
        for number, app in enumerate((first, second)):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                made = await http.post("/api/v1/projects", json={"name": f"p{number}"})
                listed = await http.get("/api/v1/projects")
            assert made.status_code == 200
            assert len(listed.json()["items"]) == number + 1
    await asyncio.sleep(0)


@pytest.mark.parametrize("key", ["too short", "0" * 63, "g" * 64, "ä" * 32])
async def test_a_secret_key_that_is_none_stops_everything_at_once(
    home: Home, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Not only what happens to need it, job after job."""
    monkeypatch.setenv("DEEPFORGE_SECRET_KEY", key)

    with pytest.raises(ConfigError, match="does not hold a secret key"):
        await start(home, host="127.0.0.1", port=0, announce=lambda _: None)
    for drive in (False, True):
        with pytest.raises(ConfigError, match="DEEPFORGE_SECRET_KEY"):
            async with embedded(home, drive=drive):
                pass
    assert home.read_address() is None
    assert not home.secret_key.exists()


@pytest.mark.parametrize("allowed", ["", "127.0.0.1"])
async def test_a_server_others_can_reach_is_no_way_into_its_network(
    tmp_path: Path, allowed: str
) -> None:
    home = open_home({"DEEPFORGE_HOME": str(tmp_path / "home")})
    async with open_services(home, drive=False, address=Address(), environ={}) as services:
        await services.users.add("ada", Secret("correct horse"))
        token = (await services.tokens.create("ada", "laptop", ["api"]))[1].reveal()
    settings = {
        "endpoint_url": "http://127.0.0.1:9", "bucket": "lab", "access_key_id": "a",
        "secret_access_key": "b",
    }  # fmt: skip
    body = {"name": "lab", "adapter": "s3", "settings": settings}
    variables = {"DEEPFORGE_ALLOW_PRIVATE_ENDPOINTS": allowed} if allowed else {}
    with server(tmp_path, variables, host="0.0.0.0"):
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}) as http:
            url = f"{home.read_address()}/api/v1/connections/storage"
            answer = await http.post(url, json=body)

    assert answer.status_code == (201 if allowed else 422), answer.text
    if not allowed:
        assert "DEEPFORGE_ALLOW_PRIVATE_ENDPOINTS=127.0.0.1" in answer.json()["error"]["hint"]


async def test_what_is_allowed_in_a_way_nobody_understands_stops_the_server(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPFORGE_ALLOW_PRIVATE_ENDPOINTS", "http://minio.lab")

    with pytest.raises(ConfigError, match="neither a host nor a network"):
        await start(home, host="0.0.0.0", port=0, announce=lambda _: None)

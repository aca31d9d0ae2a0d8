"""The stand-in of SciServer is wrong in just the way it is told, as often as it is told."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from deepforge.testing.sciserver import SciServer, running

FILE = "/fileservice/api/file/Storage/alice/persistent/x"
MOVE = "/fileservice/api/data/Storage/alice/persistent/x"
HUNDRED = bytes(range(100))


@pytest.fixture
def stored(http: httpx.Client) -> None:
    assert 200 == http.put(FILE, content=HUNDRED).status_code


def test_a_page_of_the_proxy_comes_as_often_as_told(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("status", status=502, times=2, skip=1, path="/fileservice/")

    found = [http.get("/fileservice/api/volumes").status_code for _ in range(4)]

    assert [200, 502, 502, 200] == found


def test_another_method_or_path_is_answered_well(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("status", method="PUT", path="/file/")

    assert 200 == http.get(FILE).status_code
    assert 200 == http.put("/fileservice/api/folder/Storage/alice/persistent/a").status_code
    assert 503 == http.put(FILE, content=b"x").status_code


def test_an_error_carries_its_text(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("error", text="Missing required permissions on volume")

    answer = http.get(FILE)

    assert 500 == answer.status_code
    assert "Missing required permissions on volume" == answer.json()["error"]


@pytest.mark.usefixtures("stored")
def test_a_file_can_look_missing_once(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("missing", path="/file/")

    first, second = http.get(FILE), http.get(FILE)

    assert (200, b"", None) == (first.status_code, first.content, first.headers.get("Etag"))
    assert HUNDRED == second.content


@pytest.mark.usefixtures("stored")
def test_a_body_ends_early(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("truncate", after_bytes=40)

    with pytest.raises(httpx.RemoteProtocolError):
        http.get(FILE)


@pytest.mark.usefixtures("stored")
def test_a_body_hangs_after_some_bytes(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("hang", after_bytes=40)
    came = b""

    with (  # noqa: PT012  # what came before is asserted
        pytest.raises(httpx.ReadTimeout),
        http.stream("GET", FILE, timeout=0.3) as answer,
    ):
        for chunk in answer.iter_raw():
            came += chunk

    assert HUNDRED[:40] == came


@pytest.mark.usefixtures("stored")
def test_one_byte_is_another(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("corrupt", after_bytes=40)

    found = http.get(FILE).content

    assert [40] == [at for at in range(100) if found[at] != HUNDRED[at]]


def test_one_byte_is_stored_as_another(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("corrupt", method="PUT", after_bytes=40)
    assert 200 == http.put(FILE, content=HUNDRED).status_code

    found = http.get(FILE).content

    assert [40] == [at for at in range(100) if found[at] != HUNDRED[at]]


@pytest.mark.usefixtures("stored")
def test_a_trickle_is_slow_and_whole(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("trickle", after_bytes=20, after_s=0.05)
    began = time.monotonic()

    assert HUNDRED == http.get(FILE).content
    assert time.monotonic() - began >= 0.2


@pytest.mark.usefixtures("stored")
def test_a_connection_breaks_before_a_move_took_effect(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("reset_before", method="PUT", path="/data/")

    with pytest.raises(httpx.TransportError):
        http.put(MOVE, json=_to("y"))

    assert "Etag" in http.head(FILE).headers


@pytest.mark.usefixtures("stored")
def test_a_connection_breaks_after_a_move_took_effect(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("reset_after", method="PUT", path="/data/")

    with pytest.raises(httpx.TransportError):
        http.put(MOVE, json=_to("y"))

    assert "Etag" not in http.head(FILE).headers
    assert HUNDRED == http.get(FILE[:-1] + "y").content


@pytest.mark.usefixtures("stored")
def test_who_reads_what_is_overwritten_waits_in_vain(http: httpx.Client) -> None:
    http.put(f"{FILE}?quiet=true", content=bytes(30_000_000))
    came = 0

    with (  # noqa: PT012  # what came before is asserted
        pytest.raises(httpx.ReadTimeout),
        http.stream("GET", FILE, timeout=0.5) as answer,
    ):
        chunks = answer.iter_raw()
        came += len(next(chunks))
        assert 200 == http.put(f"{FILE}?quiet=true", content=b"short").status_code
        for chunk in chunks:
            came += len(chunk)

    assert 30_000_000 > came


@pytest.mark.usefixtures("stored")
def test_an_upload_that_breaks_loses_what_was_there(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("reset_before", method="PUT", path="/file/", after_bytes=50_000)

    with pytest.raises(httpx.TransportError):
        http.put(f"{FILE}?quiet=true", content=bytes(1_000_000))

    _until_gone(http)


@pytest.mark.usefixtures("stored")
def test_a_client_that_leaves_an_upload_loses_what_was_there(http: httpx.Client) -> None:
    def half() -> object:
        yield b"half"
        raise ConnectionAbortedError("told to")

    with pytest.raises(ConnectionAbortedError):
        http.put(f"{FILE}?quiet=true", content=half())  # type: ignore[arg-type]  # it iterates

    _until_gone(http)


@pytest.mark.usefixtures("stored")
def test_a_full_disk_takes_the_old_file_too(site: SciServer, http: httpx.Client) -> None:
    site.faults.add("quota", after_bytes=10)

    answer = http.put(f"{FILE}?quiet=true", content=HUNDRED)

    assert 500 == answer.status_code
    assert "Disk quota exceeded" in answer.json()["error"]
    assert "Etag" not in http.head(FILE).headers


def test_a_quota_is_over_all_volumes(site: SciServer, http: httpx.Client) -> None:
    site.users.by_name["alice"].quota_bytes = 150
    http.put(FILE, content=HUNDRED)
    http.put("/fileservice/api/volume/Storage/alice/other")
    other = "/fileservice/api/file/Storage/alice/other/x"

    assert 500 == http.put(other, content=HUNDRED).status_code
    assert 200 == http.put(other, content=HUNDRED[:50]).status_code
    assert 150 == http.get("/fileservice/api/usage").json()[0]["numberOfBytesUsed"]


def test_a_revoked_token_lives_on_in_files_for_a_while(site: SciServer, http: httpx.Client) -> None:
    site.state.verdicts_kept_s = 60.0
    http.get("/fileservice/api/volumes")
    site.users.revoke()

    assert 200 == http.get("/fileservice/api/volumes").status_code
    assert 401 == http.get("/racm/jobm/rest/jobs").status_code


@pytest.mark.parametrize("path", ["/fileservice/api/volumes", "/racm/jobm/rest/jobs"])
def test_a_refused_token_looks_as_if_it_were_wrong(
    site: SciServer, http: httpx.Client, path: str
) -> None:
    site.faults.add("unauthorized")
    told, wrong = http.get(path), http.get(path, headers={"X-Auth-Token": "wrong"})

    assert (401, set(wrong.json())) == (told.status_code, set(told.json()))
    assert wrong.headers.get("WWW-Authenticate") == told.headers.get("WWW-Authenticate")
    assert 200 == http.get(path).status_code


def test_the_portal_may_send_nobody_back_to_a_strange_host(
    site: SciServer, http: httpx.Client
) -> None:
    site.portal.allowed_hosts = frozenset({"localhost"})
    path = "/login-portal/login?callbackUrl=http%3A%2F%2F"

    assert 200 == http.get(f"{path}localhost%3A8000%2F").status_code
    strange = http.get(f"{path}example.org%2F")
    assert (500, True) == (strange.status_code, "Host not allowed" in strange.text)


def test_a_lock_ends_ten_minutes_after_the_first_failure(site: SciServer) -> None:
    def log_in(password: str) -> int:
        asked = {"username": "alice", "password": password}
        return httpx.post(f"{site.url}/login-portal/api/auth", json=asked).status_code

    assert [401] * 4 == [log_in(one) for one in ("wrong", "wrong", "wrong", "secret")]
    site.state.clock_skew_s = 601.0
    assert 200 == log_in("secret")


def test_a_token_ends_by_the_clock_of_the_service(site: SciServer, http: httpx.Client) -> None:
    assert 200 == http.get("/racm/jobm/rest/jobs").status_code
    site.state.clock_skew_s = 86_400.0

    assert 401 == http.get("/racm/jobm/rest/jobs").status_code


def test_all_requests_are_counted(site: SciServer, http: httpx.Client) -> None:
    http.get("/fileservice/api/volumes?TaskName=a")
    http.head(FILE)

    assert [
        ("GET", "/fileservice/api/volumes", "TaskName=a", 200),
        ("HEAD", FILE, "", 200),
    ] == [(one.method, one.path, one.query, one.status) for one in site.requests]


def test_what_requests_carry_is_measured(site: SciServer, http: httpx.Client) -> None:
    http.put(FILE, content=HUNDRED)
    http.get(FILE)
    http.head(FILE)

    assert [100, 100, 0] == [one.size_bytes for one in site.requests]


def test_links_do_not_lead_out_of_a_volume(
    site: SciServer, http: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    http.get("/fileservice/api/volumes")
    volume = site.state.volume("Storage", "alice", "persistent")
    assert volume is not None
    (volume.folder / "x").symlink_to(tmp_path / "secret")

    answer = http.get(FILE)

    assert 500 == answer.status_code
    assert "outside of the requested volume" in answer.json()["error"]


def test_it_ends_while_clients_still_wait(tmp_path: Path) -> None:
    with (
        httpx.Client(timeout=20) as idle,
        running(tmp_path / "world") as site,
    ):
        idle.get(f"{site.url}/fileservice/api/ping")  # and keeps the connection
        began = time.monotonic()
    assert time.monotonic() - began < 5


def test_it_is_a_program_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deepforge.testing.sciserver", "--user", "carol:pass"]
    with subprocess.Popen(
        [*command, "--folder", str(tmp_path / "world"), "--tick", "0.02"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            fault = {"kind": "status", "status": 502, "path": "/fileservice/"}
            assert 204 == httpx.post(f"{url}/control/faults", json=fault).status_code
            assert 502 == httpx.get(f"{url}/fileservice/api/ping").status_code
            login = {"username": "carol", "password": "pass"}
            assert 200 == httpx.post(f"{url}/login-portal/api/auth", json=login).status_code
            wrong = httpx.post(f"{url}/control/faults", json={"kind": "nonsense"})
            assert 400 == wrong.status_code
        finally:
            process.terminate()
    assert 0 == process.returncode


def _to(path: str) -> dict[str, str]:
    return {
        "destinationPath": path,
        "destinationRootVolume": "Storage",
        "destinationOwnerName": "alice",
        "destinationUserVolume": "persistent",
    }


def _until_gone(http: httpx.Client) -> None:
    """The service notices in its own time."""
    deadline = time.monotonic() + 5
    while "Etag" in http.head(FILE).headers:
        assert time.monotonic() < deadline
        time.sleep(0.01)

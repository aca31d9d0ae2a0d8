"""The way back from the login page, with the portal's own form."""

from __future__ import annotations

import http.client
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from deepforge.errors import AuthError
from deepforge.sciserver import link
from deepforge.sciserver.hosts import Hosts
from deepforge.sciserver.link import listening
from deepforge.testing.sciserver import SciServer


class Led(NamedTuple):
    """What a browser shows in the end, and at which address: that is what its history keeps."""

    text: str
    address: str


def log_in(page_url: str, username: str, password: str) -> Led:
    """What a browser does with the form: send it, and go where it is led."""
    form = urllib.parse.urlencode({"username": username, "password": password}).encode()
    with urllib.request.urlopen(page_url, data=form, timeout=10) as answer:
        return Led(answer.read().decode(), answer.url)


def callback_of(page_url: str) -> str:
    query = urllib.parse.urlsplit(page_url).query
    return urllib.parse.parse_qs(query)["callbackUrl"][0]


def test_a_browser_brings_the_token(site: SciServer, hosts: Hosts) -> None:
    with listening(hosts) as listener:
        told = log_in(listener.page_url, "alice", "wonderland")

        token = listener.wait(5).reveal()

    assert "linked" in told.text
    assert site.users.token(token).user.name == "alice"


def test_the_token_stays_in_no_history_and_goes_no_further(site: SciServer, hosts: Hosts) -> None:
    token = site.users.add_token("alice")
    with listening(hosts) as listener:
        back = urllib.parse.urlsplit(callback_of(listener.page_url))
        assert back.port is not None
        connection = http.client.HTTPConnection("127.0.0.1", back.port, timeout=10)
        with closing(connection):
            connection.request("GET", f"{back.path}?{back.query}&token={token}")
            answer = connection.getresponse()
            body, headers = answer.read(), dict(answer.getheaders())
        led = log_in(listener.page_url, "alice", "wonderland")
        assert listener.wait(5)

    assert (answer.status, body) == (303, b"")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert urllib.parse.urljoin(back.geturl(), headers["Location"]) == led.address
    assert "?" not in led.address


def test_the_last_page_is_for_nobody_before_somebody_came(hosts: Hosts) -> None:
    with listening(hosts) as listener:
        address = callback_of(listener.page_url).partition("?")[0] + "/linked"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(address, timeout=10)
        with caught.value:
            assert caught.value.code == 400


def test_the_browser_gets_the_last_page_though_linking_goes_on_at_once(
    site: SciServer, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes for that with a request of its own."""
    token, told = site.users.add_token("alice"), ""
    with ThreadPoolExecutor(1) as pool:
        with listening(hosts) as listener:
            callback = callback_of(listener.page_url)

            def come() -> str:
                opener = urllib.request.build_opener(_Slow())
                with opener.open(f"{callback}&token={token}", timeout=10) as answer:
                    return str(answer.read().decode())

            coming = pool.submit(come)
            listener.wait(5)
        told = coming.result()
    assert "linked" in told

    since = time.monotonic()
    monkeypatch.setattr(link, "SHOWN_WITHIN_S", 0.05)
    with listening(hosts) as listener:  # and one that does not come for it holds up nobody
        assert listener.take(f"{callback_of(listener.page_url)}&token={token}")
    assert time.monotonic() - since < 5


class _Slow(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
        time.sleep(0.3)
        return super().redirect_request(*arguments)


def test_a_connection_that_says_nothing_holds_up_nobody(site: SciServer, hosts: Hosts) -> None:
    """Browsers open some in advance."""
    with listening(hosts) as listener:
        address = urllib.parse.urlsplit(callback_of(listener.page_url))
        with socket.create_connection((str(address.hostname), int(address.port or 0))):
            log_in(listener.page_url, "alice", "wonderland")
            assert listener.wait(5)


@pytest.mark.parametrize(
    "forged",
    [
        "?token=gAAAAAforged-token",
        "?state=guessed&token=gAAAAAforged-token",
        "?state={state}",
        "?state={state}&token=no%20token",
        "?state={state}&token=",
    ],
)
def test_nobody_else_is_believed(hosts: Hosts, forged: str) -> None:
    """Any page in the browser may call this address: only the state tells who comes from there."""
    with listening(hosts) as listener:
        address, _, query = callback_of(listener.page_url).partition("?")
        state = urllib.parse.parse_qs(query)["state"][0]
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(address + forged.format(state=state), timeout=10)
        with caught.value:
            assert caught.value.code == 400
        with pytest.raises(AuthError, match="nobody came back") as failed:
            listener.wait(0.01)

    assert "--password" in (failed.value.hint or "")


def test_the_state_is_new_each_time(hosts: Hosts) -> None:
    states = set()
    for _ in range(3):
        with listening(hosts) as listener:
            states.add(callback_of(listener.page_url).partition("state=")[2])

    assert len(states) == 3
    assert all(len(state) >= 32 for state in states)

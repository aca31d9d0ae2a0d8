"""The way back from the login page, with the portal's own form."""

from __future__ import annotations

import socket
import urllib.error
import urllib.parse
import urllib.request

import pytest

from deepforge.errors import AuthError
from deepforge.sciserver.hosts import Hosts
from deepforge.sciserver.link import listening
from deepforge.testing.sciserver import SciServer


def log_in(page_url: str, username: str, password: str) -> str:
    """What a browser does with the form: send it, and go where it is led."""
    form = urllib.parse.urlencode({"username": username, "password": password}).encode()
    with urllib.request.urlopen(page_url, data=form, timeout=10) as answer:
        return str(answer.read().decode())


def callback_of(page_url: str) -> str:
    query = urllib.parse.urlsplit(page_url).query
    return urllib.parse.parse_qs(query)["callbackUrl"][0]


def test_a_browser_brings_the_token(site: SciServer, hosts: Hosts) -> None:
    with listening(hosts) as listener:
        told = log_in(listener.page_url, "alice", "wonderland")

        token = listener.wait(5).reveal()

    assert "linked" in told
    assert site.users.token(token).user.name == "alice"


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

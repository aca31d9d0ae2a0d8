"""Logging in, tokens that end, passwords that are wrong: against the stand-in."""

from __future__ import annotations

import asyncio
import logging

import pytest

from deepforge.errors import (
    AuthError,
    ConfigError,
    DeepForgeError,
    InvalidRequest,
    OutcomeUnknown,
    RateLimited,
    Unavailable,
)
from deepforge.ids import epoch_s, utc_now
from deepforge.sciserver.hosts import Hosts
from deepforge.sciserver.refusals import remembered_by
from deepforge.sciserver.session import Session, error_text, json_of
from deepforge.settings import Secret
from deepforge.testing.sciserver import SciServer
from deepforge.testing.sciserver.world import NotAuthenticated

RIGHT, WRONG = Secret("wonderland"), Secret("looking-glass")


def logins(site: SciServer) -> int:
    return len([one for one in site.requests if one.path.endswith("/keystone/v3/tokens")])


async def volumes(session: Session) -> int:
    answer = await session.request("GET", f"{session.hosts.files_url}/volumes")
    return answer.status_code


async def test_a_password_is_used_once_for_all_sessions(site: SciServer, hosts: Hosts) -> None:
    async with Session(hosts, "alice", RIGHT) as one, Session(hosts, "alice", RIGHT) as other:
        statuses = await asyncio.gather(*(volumes(each) for each in (one, other, one, other)))

        assert statuses == [200] * 4
        assert logins(site) == 1
        assert one.expires_at == other.expires_at
        assert one.expires_at is not None
        left_s = epoch_s(one.expires_at) - epoch_s(utc_now())
        assert 86_000 < left_s <= 86_400


async def test_a_wrong_password_is_never_tried_again(site: SciServer, hosts: Hosts) -> None:
    """Three of them lock the account: that would be the user's trouble, not ours."""
    async with Session(hosts, "alice", WRONG) as one, Session(hosts, "alice", WRONG) as other:
        for session in (one, other, one, other):
            with pytest.raises(AuthError, match="does not accept this password") as caught:
                await session.token()
            assert caught.value.expired, "linking helps, and what runs waits for it"

    assert logins(site) == 1
    async with Session(hosts, "alice", RIGHT) as corrected:
        assert await volumes(corrected) == 200


class Memory:
    """Refusals that last as long as the test. With `trouble` nobody can know them."""

    def __init__(self, trouble: bool = False) -> None:
        self.kept: set[tuple[tuple[str, ...], str]] = set()
        self._trouble = trouble

    async def has(self, account: tuple[str, ...], secret: Secret) -> bool:
        if self._trouble:
            raise Unavailable("the database is away")
        return (account, secret.reveal()) in self.kept

    async def add(self, account: tuple[str, ...], secret: Secret) -> None:
        self.kept.add((account, secret.reveal()))


async def test_what_is_remembered_beyond_the_process_is_asked_first(
    site: SciServer, hosts: Hosts
) -> None:
    memory = Memory()
    with remembered_by(memory):
        async with Session(hosts, "alice", WRONG) as session:
            for _ in range(3):
                with pytest.raises(AuthError, match="does not accept this password"):
                    await session.token()
            assert (logins(site), len(memory.kept)) == (1, 1)

            memory.kept.clear()  # its user gave it anew
            with pytest.raises(AuthError, match="does not accept this password"):
                await session.token()
            assert logins(site) == 2
        async with Session(hosts, "alice", RIGHT) as session:
            assert await volumes(session) == 200


async def test_no_password_is_sent_while_nobody_knows_whether_it_was_refused(
    site: SciServer, hosts: Hosts
) -> None:
    with remembered_by(Memory(trouble=True)):
        async with Session(hosts, "alice", RIGHT) as session:
            with pytest.raises(Unavailable, match="the database is away"):
                await session.token()

    assert logins(site) == 0
    async with Session(hosts, "alice", RIGHT) as session:
        assert await volumes(session) == 200, "nobody remembers after the block"


async def test_a_locked_account_is_left_alone(site: SciServer, hosts: Hosts) -> None:
    for _ in range(3):
        with pytest.raises(NotAuthenticated):
            site.users.log_in("alice", "no")
    async with Session(hosts, "alice", RIGHT) as session:
        for _ in range(3):
            with pytest.raises(AuthError, match="locks the account") as caught:
                await session.token()

    assert "10 minutes" in (caught.value.hint or "")
    assert logins(site) == 1


async def test_a_login_whose_answer_is_lost_is_not_repeated(site: SciServer, hosts: Hosts) -> None:
    """The password may have been wrong: it counts there, whether we heard of it or not."""
    site.faults.add("reset_after", path="/keystone/v3/tokens$", times=9)
    async with Session(hosts, "alice", WRONG) as session:
        for _ in range(5):
            with pytest.raises(Unavailable):
                await session.token()

    assert logins(site) == 1


async def test_who_leaves_during_a_login_does_not_spoil_it(site: SciServer, hosts: Hosts) -> None:
    site.faults.add("slow", path="/keystone/v3/tokens$", after_s=0.3)
    async with Session(hosts, "alice", RIGHT) as session:
        impatient = asyncio.create_task(session.token())
        await asyncio.sleep(0.1)
        impatient.cancel()
        token = await session.token()

        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert token in site.users.tokens
        assert logins(site) == 1


async def test_a_portal_that_is_away_is_asked_again() -> None:
    async with Session(Hosts.of("http://127.0.0.1:9"), "alice", RIGHT) as session:
        for _ in range(2):
            with pytest.raises(Unavailable, match="could not be reached"):
                await session.token()


async def test_a_token_that_ended_is_renewed_with_the_password(
    site: SciServer, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepforge.sciserver.session._TOO_YOUNG_S", 0.0)
    async with Session(hosts, "alice", RIGHT) as session:
        assert await volumes(session) == 200
        site.users.revoke()

        assert await volumes(session) == 200
        assert logins(site) == 2


async def test_a_site_that_refuses_every_token_gets_no_storm_of_logins(
    site: SciServer, hosts: Hosts
) -> None:
    site.faults.add("unauthorized", path="/fileservice/", times=9)
    async with Session(hosts, "alice", RIGHT) as session:
        for _ in range(3):
            with pytest.raises(AuthError):
                await volumes(session)

    assert logins(site) == 1


async def test_a_link_that_ended_asks_for_a_new_one(site: SciServer, hosts: Hosts) -> None:
    token = Secret(site.users.add_token("alice"))
    async with Session(hosts, "alice", token=token) as session:
        assert await volumes(session) == 200
        site.users.revoke()
        for _ in range(3):
            with pytest.raises(AuthError, match="has ended") as caught:
                await volumes(session)
            assert caught.value.expired
            assert "deepforge sciserver link" in (caught.value.hint or "")

    refused = [one for one in site.requests if one.status == 401]
    assert len(refused) == 1  # the others were known to be in vain
    assert logins(site) == 0
    again = Secret(site.users.add_token("alice"))
    async with Session(hosts, "alice", token=again) as relinked:
        assert await volumes(relinked) == 200


async def test_a_session_that_nobody_uses_holds_no_connection(
    site: SciServer, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After linking again the former one stays open for who holds it, and may be held for ever."""
    monkeypatch.setattr("deepforge.sciserver.session.REST_S", 0.1)
    async with Session(hosts, "alice", RIGHT) as session:
        site.faults.add("slow", path="/volumes", after_s=0.5)
        assert await volumes(session) == 200  # it takes longer than a rest, and is not cut off
        held = session._http
        assert held is not None
        for _ in range(500):
            if held.is_closed:
                break
            await asyncio.sleep(0.02)
        assert held.is_closed

        assert await volumes(session) == 200
        again = session._http
        assert again is not None
        assert again is not held
    assert again.is_closed


async def test_an_account_that_was_never_linked_says_how(hosts: Hosts) -> None:
    async with Session(hosts, "alice") as session:
        with pytest.raises(AuthError) as caught:
            await session.token()

    assert caught.value.expired
    assert "deepforge sciserver link" in (caught.value.hint or "")


async def test_a_token_of_somebody_else_is_refused(site: SciServer, hosts: Hosts) -> None:
    site.users.add_user("bob")
    token = Secret(site.users.add_token("bob"))
    async with Session(hosts, "alice", token=token) as session:
        with pytest.raises(ConfigError, match="'bob', not 'alice'"):
            await session.token()


@pytest.mark.parametrize("text", ["", "short", "a/../b/tokens", "line\nbreak" * 3, "ü" * 20])
async def test_what_is_no_token_goes_nowhere(hosts: Hosts, text: str) -> None:
    if not text:
        return
    with pytest.raises(InvalidRequest):
        Session(hosts, "alice", token=Secret(text))


@pytest.mark.parametrize(
    ("method", "status", "kind"),
    [
        ("GET", 502, Unavailable),
        ("POST", 502, OutcomeUnknown),
        ("PUT", 503, Unavailable),
        ("POST", 504, OutcomeUnknown),
        ("PUT", 413, InvalidRequest),
        ("GET", 429, RateLimited),
        ("GET", 302, ConfigError),
    ],
)
async def test_answers_of_proxies_are_told_alike(
    site: SciServer, hosts: Hosts, method: str, status: int, kind: type[DeepForgeError]
) -> None:
    async with Session(hosts, "alice", RIGHT) as session:
        site.faults.add("status", path="/racm/", status=status)
        with pytest.raises(kind):
            await session.request(method, f"{hosts.compute_url}/x")


@pytest.mark.parametrize(
    ("method", "fault", "kind"),
    [
        ("POST", "reset_after", OutcomeUnknown),
        ("POST", "reset_before", OutcomeUnknown),
        ("GET", "reset_before", Unavailable),
        ("GET", "truncate", Unavailable),
    ],
)
async def test_a_lost_answer_says_whether_it_matters(
    site: SciServer, hosts: Hosts, method: str, fault: str, kind: type[DeepForgeError]
) -> None:
    async with Session(hosts, "alice", RIGHT) as session:
        await session.token()
        site.faults.add(fault, path="/racm/", after_bytes=1 if fault == "truncate" else 0)  # type: ignore[arg-type]
        with pytest.raises(kind):
            await session.request(method, f"{hosts.compute_url}/x")


async def test_silence_ends_a_request(site: SciServer, hosts: Hosts) -> None:
    async with Session(hosts, "alice", RIGHT) as session:
        await session.token()
        site.faults.add("slow", path="/volumes", after_s=30)
        with pytest.raises(Unavailable, match="in time"):
            await session.request("GET", f"{hosts.files_url}/volumes", timeout_s=0.2)


async def test_a_web_page_is_not_taken_for_data(site: SciServer, hosts: Hosts) -> None:
    async with Session(hosts, "alice", RIGHT) as session:
        site.faults.add("login_page", path="/volumes")
        answer = await session.request("GET", f"{hosts.files_url}/volumes")

        with pytest.raises(ConfigError, match="web page"):
            json_of(answer)
        assert error_text(answer) is None


async def test_neither_passwords_nor_tokens_reach_a_log(
    site: SciServer, hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with Session(hosts, "alice", RIGHT) as session:
        await volumes(session)
        token = await session.token()
        site.users.revoke()
        with pytest.raises(AuthError) as caught:
            await volumes(session)

    told = caplog.text + str(caught.value) + repr(vars(session))
    assert token not in told
    assert RIGHT.reveal() not in told

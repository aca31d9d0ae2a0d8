"""Links to SciServer that end while a pipeline runs: it waits for the next one, and goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from deepforge.plugins import Port
from deepforge.testing.sciserver import SciServer
from journeys.parts import wait_until
from journeys.sciserver_lab import Lab, lab

__all__ = ["lab"]


def revoked(site: SciServer, token: str) -> None:
    site.users.revoke(token)


def ended_by_the_clock(site: SciServer, token: str) -> None:
    site.users.tokens[token].expires_at = site.state.now()


def believed_by_files_for_a_while(site: SciServer, token: str) -> None:
    site.state.verdicts_kept_s = 1.0
    site.users.revoke(token)


@pytest.mark.parametrize("compute", ["server", "sciserver"])
@pytest.mark.parametrize("end", [revoked, ended_by_the_clock, believed_by_files_for_a_while])
def test_it_goes_on_after_linking_again(
    lab: Lab, compute: str, end: Callable[[SciServer, str], None]
) -> None:
    user = f"{compute}_{end.__name__}"
    lab.site.users.add_user(user, "builder")
    token = lab.site.users.add_token(user)
    lab.add("storage", f"s-{user}", user=user, secret=("token", token))
    lab.add("compute", f"c-{user}", user=user, secret=("token", token))
    place = f"c-{user}" if compute == "sciserver" else "server"
    execution = lab.begin(place, seconds=1.5, storage=f"s-{user}")
    wait_until(lambda: {job["status"] for job in lab.view(execution)["jobs"]} >= {"running"})

    end(lab.site, token)

    paused = wait_until(lambda: lab.view(execution)["paused_by"])
    assert "your link to SciServer" in paused
    assert "deepforge sciserver link" in paused
    shown = lab.server.client("executions", "show", execution)
    assert "has ended; hint: link again: deepforge sciserver link" in shown.out
    assert f"s-{user}: your link to SciServer" in shown.err
    assert lab.view(execution)["status"] == "running"

    lab.server.client("sciserver", "link", "--username", user, "--password", input=b"builder\n")

    ran = lab.ended(execution)
    assert ran.states == {"data": "succeeded", "size": "succeeded"}, ran.view
    assert ran.view["paused_by"] is None
    if compute == "sciserver":
        assert ran.attempts == {"data": 1, "size": 1}
        assert len(lab.labels(execution)) == 2


@pytest.mark.parametrize("with_link", [True, False])
def test_a_stale_password_pauses_what_is_being_prepared(lab: Lab, with_link: bool) -> None:
    """Also after a link that ended: the password is tried once, and what runs waits for a link."""
    user = f"stale_{with_link}"
    account = lab.site.users.add_user(user, "builder")
    token = lab.site.users.add_token(user)
    for port, name in (("storage", f"s-{user}"), ("compute", f"c-{user}")):
        lab.add(cast("Port", port), name, user=user, secret=("token", token))
        lab.server.client(port, "secret", name, "password", input=b"mason\n")
    execution = lab.begin(f"c-{user}", storage=f"s-{user}") if with_link else ""
    lab.site.users.revoke(token)
    execution = execution or lab.begin(f"c-{user}", storage=f"s-{user}")

    paused = wait_until(lambda: lab.view(execution)["paused_by"])

    assert f"does not accept this password of '{user}'" in paused
    assert "deepforge sciserver link" in paused
    assert lab.view(execution)["status"] == "running"
    assert len(account.failed_at) == 1
    told = lab.server.client(
        "sciserver", "link", "--username", user, "--password", input=b"builder\n"
    ).err
    assert f"compute c-{user}: SciServer refused the password that was kept" in told
    ran = lab.ended(execution)
    assert ran.states == {"data": "succeeded", "size": "succeeded"}, ran.view

"""`deepforge sciserver`: the account of storages at the stand-in."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepforge.testing.sciserver import SciServer, running
from shell import EXAMPLES, Shell

BROWSER = """
import sys, urllib.parse, urllib.request
form = urllib.parse.urlencode({"username": "alice", "password": "wonderland"}).encode()
urllib.request.urlopen(sys.argv[1], data=form, timeout=20).close()
"""


@pytest.fixture
def site() -> Iterator[SciServer]:
    with running() as site:
        site.users.add_user("alice", "wonderland")
        yield site


@pytest.fixture
def linked(shell: Shell, site: SciServer) -> Shell:
    """With a storage of alice, not linked yet."""
    shell("storage", "add", "sciserver", "sky", "--username", "alice", "--site", site.url)
    return shell


def test_a_storage_works_once_its_account_is_linked(linked: Shell, site: SciServer) -> None:
    told = linked("storage", "check", "sky", code=1)
    assert "deepforge sciserver link" in told.out

    told = linked("sciserver", "link", "--password", input=b"wonderland\n")

    assert "linked as alice for 23 h 59 min: storage sky" in told.err.replace("24 h 0", "23 h 59")
    assert "sky works" in linked("storage", "check", "sky").err
    (shown,) = linked("sciserver", "status", "--json").json
    assert shown["username"] == "alice"
    assert shown["volume"] == "Storage/alice/deepforge_data"
    assert shown["limit_bytes"] == 10 * 2**30
    assert not shown["renews_itself"]
    assert "23 h 59 min" in linked("sciserver", "status").out


def test_the_password_is_not_kept_and_the_token_is_sealed(linked: Shell, site: SciServer) -> None:
    linked("sciserver", "link", "--password", input=b"wonderland\n")

    tokens = list(site.users.tokens)
    assert len(tokens) == 1
    for path in linked.home.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"wonderland" not in content, path
        assert tokens[0].encode() not in content, path
    assert tokens[0] not in linked("storage", "list").out


def test_a_browser_links_too(linked: Shell, tmp_path: Path) -> None:
    script = tmp_path / "browser.py"
    script.write_text(BROWSER)
    browsing = dataclasses.replace(
        linked, environment={"BROWSER": f"{sys.executable} {script} %s &"}
    )

    told = browsing("sciserver", "link", "--wait", "20")

    assert "linked as alice" in told.err
    assert "sky works" in linked("storage", "check", "sky").err


def test_a_link_that_ends_soon_is_told(linked: Shell, site: SciServer) -> None:
    token = site.users.add_token("alice", life_s=7200)
    linked("storage", "remove", "sky")
    linked(
        "storage", "add", "sciserver", "sky", "--username", "alice", "--site", site.url,
        "--token", "-", input=token.encode(),
    )  # fmt: skip

    told = linked("sciserver", "status").err

    assert "your SciServer link ends in 1 h 59 min" in told.replace("2 h 0 min", "1 h 59 min")
    site.users.revoke()
    told = linked("sciserver", "status", code=1).err
    assert "has ended" in told
    assert "deepforge sciserver link" in told


def test_a_wrong_password_is_tried_once_and_changes_nothing(linked: Shell, site: SciServer) -> None:
    told = linked("sciserver", "link", "--password", input=b"looking-glass\n", code=3).err

    assert "does not accept this password" in told
    assert len(site.state.users.by_name["alice"].failed_at) == 1
    assert linked("storage", "list", "--json").json[1]["secrets"] == []


def test_without_a_storage_there_is_nothing_to_link(shell: Shell) -> None:
    assert "deepforge storage add sciserver" in shell("sciserver", "link", code=3).err
    assert "no storage or compute" in shell("sciserver", "status").err


def test_of_several_accounts_one_is_named(linked: Shell, site: SciServer) -> None:
    site.users.add_user("bob", "builder")
    linked("storage", "add", "sciserver", "bobs", "--username", "bob", "--site", site.url)

    told = linked("sciserver", "link", "--password", input=b"x\n", code=2).err
    assert "alice, bob" in told

    told = linked("sciserver", "link", "--password", "--username", "bob", input=b"builder\n").err
    assert "linked as bob" in told
    assert "storage bobs" in told
    assert "sky" not in told
    told = linked("sciserver", "link", "--password", "--username", "eve", input=b"x\n", code=2).err
    assert "'eve'" in told


def test_a_run_that_may_outlive_its_link_says_so(linked: Shell, site: SciServer) -> None:
    linked("sciserver", "link", "--password", input=b"wonderland\n")
    (token,) = site.users.tokens.values()
    arguments = ("run", EXAMPLES / "hello", "--storage", "sky")
    assert "SciServer link" not in linked(*arguments).err

    token.expires_at = token.issued_at + 7200

    told = linked(*arguments).err.replace("2 h 0 min", "1 h 59 min")
    assert "sky: your SciServer link ends in 1 h 59 min" in told
    asked = len(site.requests)
    assert "SciServer link" not in linked("run", EXAMPLES / "hello", "--storage", "local").err
    assert len(site.requests) == asked

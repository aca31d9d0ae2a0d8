"""`deepforge sciserver`: the account of storages at the stand-in."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepforge.testing.sciserver import SciServer, running
from shell import EXAMPLES, Shell, write_project

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


def test_a_file_that_does_not_fit_is_refused_before_it_is_sent(
    linked: Shell, site: SciServer
) -> None:
    linked("sciserver", "link", "--password", input=b"wonderland\n")
    site.users.by_name["alice"].quota_bytes = 2000
    (linked.folder / "large.bin").write_bytes(bytes(2001))
    (linked.folder / "fitting.bin").write_bytes(bytes(1999))

    put = ("artifacts", "put", "--storage", "sky", "--name", "data")
    told = linked(*put, "large.bin", code=1)

    assert "2001 bytes do not fit into the volume 'Storage/alice/deepforge_data'" in told.err
    assert not [one for one in site.requests if "/api/file/" in one.path]
    linked(*put, "fitting.bin")


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


def test_a_rerun_that_may_outlive_its_link_says_so_too(
    linked: Shell, site: SciServer, tmp_path: Path
) -> None:
    """Also where the project names the storage, and nobody did."""
    linked("sciserver", "link", "--password", input=b"wonderland\n")
    (token,) = site.users.tokens.values()
    token.expires_at = token.issued_at + 7200
    operation = "class Op:\n    def execute(self):\n        raise ValueError('never')\n"
    pipeline = "from operations.op import Op\n\n\ndef p():\n    Op().execute()\n"
    project = write_project(
        tmp_path / "project", {"operations/op.py": operation, "pipelines/p.py": pipeline}
    )
    (project / "deepforge.toml").write_text('name = "trial"\n[defaults]\nstorage = "sky"\n')

    ran = linked("run", project, "--json", code=1)
    again = linked("executions", "rerun", ran.json["execution"], code=1)

    for told in (ran.err, again.err):
        assert "sky: your SciServer link ends in 1 h 59 min" in told.replace("2 h 0", "1 h 59")
    (shown,) = linked("sciserver", "status", "--json").json
    assert shown["ends_soon"]


def account(site: SciServer, username: str = "alice") -> tuple[str, ...]:
    return ("--username", username, "--site", site.url)


def test_one_link_serves_what_is_added_later(linked: Shell, site: SciServer) -> None:
    linked("sciserver", "link", "--password", input=b"wonderland\n")

    told = linked("compute", "add", "sciserver", "sci", *account(site)).err

    assert "it uses the login of what you have at the same account" in told
    assert "sci works" in linked("compute", "check", "sci").err


def test_a_newcomer_is_told_to_link_first(shell: Shell, site: SciServer) -> None:
    told = shell("compute", "add", "sciserver", "sci", *account(site), "--domain", "Smal").err
    assert "compute sci is kept" in told
    assert "is not linked" in told
    assert "deepforge sciserver link" in told
    told = shell("compute", "choices", "sci", code=3).err
    assert "deepforge sciserver link" in told

    shell("sciserver", "link", "--password", input=b"wonderland\n")

    lines = shell("compute", "choices", "sci").out.splitlines()
    assert ["SETTING", "domain", "domain"] == [line.split()[0] for line in lines]
    told = shell("compute", "check", "sci", code=1).out
    assert "did you mean 'Small Jobs Domain'?" in told
    assert "there is: Small Jobs Domain, Large Jobs Domain" in told


@pytest.mark.parametrize(
    ("port", "options", "near"),
    [
        ("compute", ("--domain", "large jobs domain"), "'Large Jobs Domain'"),
        ("compute", ("--image", "SciServer Essentials 3.9"), "'SciServer Essentials 4.0'"),
        ("compute", ("--data-volumes", "sdss, SDS"), "'sdss'"),
        ("storage", ("--pool", "data", "--volume", "sds"), "'sdss'"),
        ("storage", ("--pool", "data"), "there is: sdss"),
    ],
)
def test_what_is_not_offered_is_not_added(
    linked: Shell, site: SciServer, port: str, options: tuple[str, ...], near: str
) -> None:
    linked("sciserver", "link", "--password", input=b"wonderland\n")

    told = linked(port, "add", "sciserver", "new", *account(site), *options, code=3).err

    assert "not offered: " in told
    assert near in told
    assert [
        one["name"] for one in linked(port, "list", "--json").json if one["name"] == "new"
    ] == []


@pytest.mark.parametrize(
    ("port", "option", "volume", "why"),
    [
        ("storage", "--volume", "bob/secret", "no volume 'Storage/bob/secret'"),
        ("storage", "--volume", "Temporary/bob/team", "no volume 'Temporary/bob/team'"),
        ("storage", "--volume", "bob/sealed", "may not read the volume 'Storage/bob/sealed'"),
        ("compute", "--job-volume", "Storage/bob/secret", "no volume 'Storage/bob/secret'"),
        ("compute", "--job-volume", "Storage/bob/shown", "may not write the volume"),
    ],
)
def test_a_volume_of_somebody_else_that_is_not_shared_is_not_added(
    linked: Shell, site: SciServer, port: str, option: str, volume: str, why: str
) -> None:
    bob = site.users.add_user("bob", "builder")
    site.state.add_volume("Storage", bob, "secret")
    site.state.add_volume("Storage", bob, "sealed").shares["alice"] = ("grant",)
    site.state.add_volume("Storage", bob, "shown").shares["alice"] = ("read",)
    site.state.add_volume("Storage", bob, "team").shares["alice"] = ("read", "write")
    linked("sciserver", "link", "--password", input=b"wonderland\n")
    add = (port, "add", "sciserver", "new", *account(site), option)

    told = linked(*add, volume, code=3).err

    assert why in told
    assert "bob/team" in told
    assert [one["name"] for one in linked(port, "list", "--json").json].count("new") == 0
    linked(*add, "Storage/bob/team")  # by its longest name, too


def test_a_volume_that_cannot_be_looked_up_is_added(shell: Shell, site: SciServer) -> None:
    told = shell("storage", "add", "sciserver", "b", *account(site), "--volume", "bob/any").err

    assert "its settings were not looked up" in told


def test_a_password_that_is_refused_is_not_kept(shell: Shell, site: SciServer) -> None:
    told = shell(
        "storage", "add", "sciserver", "sky", *account(site), "--password", "-",
        input=b"looking-glass\n", code=3,
    ).err  # fmt: skip

    assert "does not accept this password" in told
    assert len(site.state.users.by_name["alice"].failed_at) == 1
    assert len(shell("storage", "list", "--json").json) == 1


def test_what_is_chosen_is_explained(linked: Shell, site: SciServer) -> None:
    bob = site.users.add_user("bob", "builder")
    site.state.add_volume("Storage", bob, "odd\x1b[31m\nname").shares["alice"] = ("read",)
    site.state.add_volume("Storage", bob, "team").shares["alice"] = ("read", "write")
    linked("sciserver", "link", "--password", input=b"wonderland\n")

    passing = linked(
        "storage", "add", "sciserver", "tmp", *account(site), "--pool", "Temporary"
    ).err
    shared = linked("storage", "add", "sciserver", "b", *account(site), "--volume", "bob/team").err
    typo = linked("storage", "add", "sciserver", "p", *account(site), "--volume", "persistant").err
    chosen = linked("storage", "choices", "tmp").out

    assert "72 hours" in passing
    assert "72 hours" in linked("sciserver", "status").err
    assert "72 hours" in linked("run", EXAMPLES / "hello", "--storage", "tmp").err
    assert "Storage/bob/team" in linked("sciserver", "status").out
    assert "volume bob/team: shared by bob" in shared
    assert "did you mean 'persistent'?" in typo
    assert "\x1b" not in chosen


def test_an_account_that_nothing_belongs_to_is_told_before_the_browser(linked: Shell) -> None:
    told = linked("sciserver", "link", "--username", "bob", code=2).err

    assert "the username 'bob'" in told
    assert "there is: alice" in told
    assert "log in at SciServer" not in told


def test_choices_of_a_storage_without_any(shell: Shell) -> None:
    assert "offers no choices" in shell("storage", "choices", "local").err
    assert shell("storage", "choices", "local", "--json").json == []
    shell("storage", "choices", "none", code=4)


def test_files_of_a_data_volume_become_artifacts(linked: Shell, site: SciServer) -> None:
    (site.state.data_volumes["sdss"].folder / "plates.csv").write_bytes(b"plate,mjd\n")
    (linked.folder / "file").write_text("content")
    linked("sciserver", "link", "--password", input=b"wonderland\n")
    linked(
        "storage", "add", "sciserver", "sdss", *account(site), "--pool", "data", "--volume", "sdss"
    )

    told = linked("storage", "check", "sdss", "--deep")
    assert "nothing can be stored in it, only read" in told.out
    assert "sdss works" in told.err
    linked("artifacts", "import", "plates", "--storage", "sdss", "--key", "plates.csv")
    assert linked("artifacts", "get", "plates", "-").out == "plate,mjd\n"
    linked("artifacts", "import", "none", "--storage", "sdss", "--key", "none.csv", code=4)
    told = linked("artifacts", "put", "file", "--name", "x", "--storage", "sdss", code=3)
    assert "for reading only" in told.err
    told = linked("run", EXAMPLES / "hello", "--storage", "sdss", code=2)
    assert "for reading only" in told.err
    rows = {one["name"]: one for one in linked("sciserver", "status", "--json").json}
    assert (rows["sdss"]["volume"], rows["sdss"]["problem"]) == ("sdss", None)


@pytest.fixture
def stale(shell: Shell, site: SciServer) -> Shell:
    """With storages and a compute that keep a password which was changed at SciServer."""
    for port, name in (("storage", "sky"), ("storage", "two"), ("compute", "sci")):
        shell(
            port, "add", "sciserver", name, *account(site), "--password", "-",
            input=b"wonderland\n",
        )  # fmt: skip
    site.users.by_name["alice"].password = "through"
    return shell


def wrong_ones(site: SciServer) -> int:
    logins = [one for one in site.requests if one.path.endswith("/keystone/v3/tokens")]
    return len([one for one in logins if one.status != 200])


def test_a_refused_password_is_never_tried_again_by_any_command(
    stale: Shell, site: SciServer
) -> None:
    for arguments in (("storage", "check", "sky"), ("storage", "check", "two")):
        told = stale(*arguments, code=1).out
        assert "does not accept this password of 'alice'" in told
        assert "deepforge sciserver link" in told
    assert "does not accept" in stale("sciserver", "status", code=1).err
    assert "does not accept" in stale("compute", "check", "sci", code=1).out

    assert wrong_ones(site) == 1
    for path in stale.home.rglob("*"):
        assert not path.is_file() or b"wonderland" not in path.read_bytes(), path


def test_two_commands_at_once_try_it_twice_at_worst(stale: Shell, site: SciServer) -> None:
    at_once = [stale.begin("storage", "check", name) for name in ("sky", "two")]
    for one in at_once:
        one.communicate(timeout=60)
    stale("storage", "check", "sky", code=1)

    assert 1 <= wrong_ones(site) <= 2


def test_a_password_of_the_environment_is_remembered_too(shell: Shell, site: SciServer) -> None:
    prefix = "DEEPFORGE_STORAGE_SKY__"
    given = dataclasses.replace(
        shell,
        environment={
            f"{prefix}ADAPTER": "sciserver",
            f"{prefix}USERNAME": "alice",
            f"{prefix}PASSWORD": "looking-glass",
            f"{prefix}SITE": site.url,
        },
    )
    for _ in range(3):
        assert "does not accept" in given("storage", "check", "sky", code=1).out

    assert wrong_ones(site) == 1


def test_linking_forgets_a_password_that_was_refused(stale: Shell, site: SciServer) -> None:
    stale("storage", "check", "sky", code=1)

    told = stale("sciserver", "link", "--password", input=b"through\n").err

    for one in ("storage sky", "storage two", "compute sci"):
        assert f"{one}: SciServer refused the password that was kept; it is forgotten" in told
    kept = [*stale("storage", "list", "--json").json, *stale("compute", "list", "--json").json]
    assert {tuple(one["secrets"]) for one in kept if one["adapter"] == "sciserver"} == {("token",)}
    assert "sky works" in stale("storage", "check", "sky").err
    site.users.revoke()
    assert "has ended" in stale("storage", "check", "sky", code=1).out
    assert wrong_ones(site) == 1


def test_linking_keeps_a_password_that_works(shell: Shell, site: SciServer) -> None:
    shell(
        "storage", "add", "sciserver", "sky", *account(site), "--password", "-",
        input=b"wonderland\n",
    )  # fmt: skip

    told = shell("sciserver", "link", "--password", input=b"wonderland\n").err

    assert "forgotten" not in told
    (kept,) = [one for one in shell("storage", "list", "--json").json if one["name"] == "sky"]
    assert kept["secrets"] == ["password", "token"]


def test_a_password_can_be_given_anew(stale: Shell, site: SciServer) -> None:
    stale("storage", "check", "sky", code=1)

    told = stale("storage", "secret", "sky", "password", input=b"through\n").err

    assert "password of sky is replaced; prove it: deepforge storage check sky" in told
    assert "sky works" in stale("storage", "check", "sky").err
    assert "does not accept" in stale("storage", "check", "two", code=1).out
    assert wrong_ones(site) == 1
    stale("storage", "secret", "two", "password", input=b"wonderland\n")
    stale("storage", "check", "two", code=1)
    assert wrong_ones(site) == 2, "who gives the same one anew wants it tried"
    stale("storage", "secret", "sky", "site", input=b"x\n", code=3)
    stale("storage", "secret", "none", "password", input=b"x\n", code=4)

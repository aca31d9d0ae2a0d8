"""`deepforge login` and `deepforge tokens`, in a home and against a server."""

from __future__ import annotations

import re

import pytest

from cli.reachable import PASSWORD, serving, with_token
from shell import EXAMPLES, Shell


def test_tokens_are_made_listed_and_revoked(shell: Shell) -> None:
    shell("users", "add", "ada", input=PASSWORD)
    made = shell("tokens", "create", "gpu", "--scope", "worker", "--user", "ada")
    shell("tokens", "create", "both", "--scope", "worker", "--scope", "api", "--user", "ada")
    listed = shell("tokens", "list", "--user", "ada", "--json").json
    table = shell("tokens", "list", "--user", "ada").out

    assert re.fullmatch(r"df_\w{32}\n", made.out)
    assert [(one["name"], one["scopes"]) for one in listed] == [
        ("both", ["api", "worker"]), ("gpu", ["worker"]),
    ]  # fmt: skip
    assert made.out.strip() not in table
    assert "never" in table

    shell("tokens", "revoke", "gpu", "--user", "ada")
    assert [one["name"] for one in shell("tokens", "list", "--user", "ada", "--json").json] == [
        "both"
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["create", "gpu"], 4, "--user NAME"),
        (["create", "a b", "--user", "ada"], 2, "cannot be the name of a token"),
        (["create", "gpu", "--user", "ada", "--days", "0"], 2, "--days"),
        (["create", "gpu", "--user", "ada", "--scope", "root"], 2, "--scope"),
        (["revoke", "none", "--user", "ada"], 4, "has no token 'none'"),
    ],
)
def test_what_cannot_be_is_told(shell: Shell, arguments: list[str], code: int, words: str) -> None:
    shell("users", "add", "ada", input=PASSWORD)

    assert words in shell("tokens", *arguments, code=code).err


def test_a_user_elsewhere_logs_in_and_is_told_what_is_not_theirs(shell: Shell) -> None:
    """The whole way: accounts on the server's machine, then all from somewhere else."""
    shell("users", "add", "ada", input=PASSWORD)
    shell("users", "add", "bob", input=PASSWORD)
    with serving(shell) as anybody:
        assert "deepforge login" in anybody("executions", "list", code=3).err
        assert "is wrong" in anybody("login", "bob", input=b"wrong horse\n", code=3).err
        ada = with_token(anybody, anybody("login", "ada", input=PASSWORD).out.strip())
        bob = with_token(anybody, anybody("login", "bob", input=PASSWORD).out.strip())

        refused = bob("run", EXAMPLES / "hello", code=3)
        assert "'server' (Server Compute)" in refused.err
        assert "deepforge users permit bob --server-compute" in refused.err
        assert "administrators" in bob("users", "list", code=3).err

        ada("users", "permit", "bob", "--server-compute")
        bob("run", EXAMPLES / "hello")
        assert bob("artifacts", "get", "letters", "-").data
        assert ada("executions", "list", "--json").json == []
        assert "no artifact" in ada("artifacts", "get", "letters", "-", code=4).err

        bob("users", "passwd", input=PASSWORD + b"another horse\n")
        bob("tokens", "create", "spare")
        ada("users", "disable", "bob")
        assert "disabled" in bob("executions", "list", code=3).err
        assert "disabled" in anybody("login", "bob", input=b"another horse\n", code=3).err

    assert (shell.home / "users" / "bob" / "storage").is_dir()
    assert not anybody.home.exists()

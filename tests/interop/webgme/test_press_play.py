"""Pipelines whose data lie in WebGME blobs: the original server's, and ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepforge.webgme.blobs import is_hash
from interop.webgme.server import Engine, run_script
from shell import EXAMPLES, Shell


@pytest.mark.parametrize("which", ["engine", "engine_auth", "our_server"])
def test_hello_with_its_data_in_blobs(
    which: str, request: pytest.FixtureRequest, shell: Shell
) -> None:
    """Of the original server, and of another server of ours."""
    engine = request.getfixturevalue(which)
    if not isinstance(engine, Engine):
        engine = Engine(engine, None, 0, Path())
    token = () if engine.token is None else ("--api-token", "-")
    shell(
        "storage", "add", "webgme", "blobs", "--url", engine.url, *token,
        input=(engine.token or "").encode(),
    )  # fmt: skip

    ran = shell("run", EXAMPLES / "hello", "--storage", "blobs", "--json").json

    assert ran["status"] == "succeeded"
    assert {"blobs"} == {one["storage"] for one in ran["artifacts"]}
    for one in ran["artifacts"]:
        assert shell("artifacts", "get", one["name"], "-").data
        shown = shell("artifacts", "show", one["name"], "--json").json
        assert is_hash(shown["key"]), "what is kept must not need our receipts"
    assert b"Hello" in shell("executions", "logs", ran["execution"], "greeting").data


def test_files_that_lie_in_blobs_are_imported_by_their_hash(engine: Engine, shell: Shell) -> None:
    made = json.loads(run_script("blob_client.js", engine.url))
    shell("storage", "add", "webgme", "blobs", "--url", engine.url)

    for name, key in (("one", made["file"]), ("two", f"{made['artifact']}/dir/inner.txt")):
        shell("artifacts", "import", name, "--storage", "blobs", "--key", key)

    assert b"some text" == shell("artifacts", "get", "one", "-").data
    assert b"inner" == shell("artifacts", "get", "two", "-").data


def test_a_deep_check_passes_with_what_the_server_can_do(engine: Engine, shell: Shell) -> None:
    shell("storage", "add", "webgme", "blobs", "--url", engine.url)

    checked = shell("storage", "check", "blobs", "--deep", "--json").json

    assert checked["ok"], checked

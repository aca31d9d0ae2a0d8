"""Press play with the data in an S3 storage, and look for its keys in every corner afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seaweed import Seaweed
from shell import EXAMPLES, Shell, write_project

PRY = """
import os
from pathlib import Path


class Pry:
    def execute(self):
        found = {}
        pid = os.getpid()
        while pid > 1:  # this process and all that it descends from, as far as it may look
            try:
                found[pid] = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
                found[-pid] = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                break
        for name in ("job.json", "result.json", "ticket.json"):
            for path in Path.cwd().rglob(name):
                found[str(path)] = path.read_text()
        print(found)
        seen = str({**os.environ}) + str(found)
        return seen
"""


@pytest.fixture
def lab(shell: Shell, seaweed: Seaweed) -> Seaweed:
    """A storage `lab` in a bucket that is made on the way, its secret key read from a pipe."""
    values = seaweed.settings("journey-" + shell.home.parent.name.lower().replace("_", "-")[:40])
    shell(
        "storage", "add", "s3", "lab", "--endpoint-url", values["endpoint_url"],
        "--bucket", values["bucket"].strip("-"), "--create-bucket",
        "--access-key-id", values["access_key_id"], "--secret-access-key", "-",
        input=values["secret_access_key"].encode(),
    )  # fmt: skip
    return seaweed


def test_digits_on_s3(shell: Shell, lab: Seaweed) -> None:
    checked = shell("storage", "check", "lab", "--deep", "--json", timeout_s=300).json
    assert checked["ok"], checked

    result = shell("run", EXAMPLES / "digits", "--storage", "lab", "--json", timeout_s=300).json

    assert result["status"] == "succeeded"
    assert {one["storage"] for one in result["artifacts"]} == {"lab"}
    assert shell("artifacts", "get", "confusion", "-").data.startswith(b"\x89PNG")


def test_the_keys_of_a_storage_are_nowhere_to_be_found(shell: Shell, lab: Seaweed) -> None:
    project = write_project(
        shell.folder / "project",
        {
            "operations/pry.py": PRY,
            "pipelines/trial.py": "from operations.pry import Pry\n\n\n"
            "def trial():\n    seen = Pry().execute()\n    return seen\n",
        },
    )

    ran = shell("run", project, "--storage", "lab", "--json")
    execution = ran.json["execution"]

    said = [ran.data, ran.err.encode(), shell("artifacts", "get", "seen", "-").data]
    for arguments in (
        ["executions", "show", execution, "--json"],
        ["executions", "logs", execution, "seen"],
        ["artifacts", "list", "--json"],
        ["storage", "list", "--json"],
        ["storage", "list"],
    ):
        said.append(shell(*arguments).data)
    secret = lab.secret_access_key.encode()
    assert not [text for text in said if secret in text]
    assert b"DEEPFORGE_HOME" in said[2] or b"PATH" in said[2], "the operation did look"

    assert _files_holding(shell.home, secret) == []
    # what jobs read and wrote, bundles included, lies unencrypted in the volumes of the service
    volumes = lab.folder / "data"
    assert _files_holding(volumes, execution.encode()), "the search finds what is there"
    assert _files_holding(volumes, secret) == []


def test_data_that_lie_in_a_bucket_are_used_where_they_are(shell: Shell, lab: Seaweed) -> None:
    project = write_project(
        shell.folder / "project",
        {
            "operations/count.py": "class Count:\n    def execute(self, data):\n"
            "        size = len(data)\n        return size\n",
            "pipelines/trial.py": "from operations.count import Count\n\n\n"
            "def trial(data=None):\n    size = Count().execute(data)\n    return size\n",
        },
    )
    put = shell("artifacts", "put", "-", "--name", "a", "--storage", "lab", "--json", input=b"abc")
    shown = shell("artifacts", "show", "a", "--json").json
    shell("artifacts", "import", "b", "--storage", "lab", "--key", shown["key"])

    result = shell("run", project, "--input", "data=b", "--storage", "lab", "--json").json

    assert put.json["size_bytes"] == 3
    assert result["status"] == "succeeded"
    view = shell("executions", "show", result["execution"], "--json").json
    assert view["inputs"] == {"data": "b@1"} or "b" in json.dumps(view["inputs"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secret_access_key": "wrong"}, "key"),
        ({"bucket": "not-there-at-all"}, "bucket"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "127.0.0.1:9"),
    ],
    ids=["wrong key", "missing bucket", "wrong endpoint"],
)
def test_a_storage_that_is_set_up_wrong_says_what_to_change(
    shell: Shell, seaweed: Seaweed, change: dict[str, str], words: str
) -> None:
    values = {**seaweed.settings(seaweed.new_bucket()), **change}
    shell(
        "storage", "add", "s3", "lab", "--endpoint-url", values["endpoint_url"],
        "--bucket", values["bucket"], "--access-key-id", values["access_key_id"],
        "--secret-access-key", "-", input=values["secret_access_key"].encode(),
    )  # fmt: skip

    told = shell("storage", "check", "lab", code=1).out
    assert words in told

    if "endpoint_url" not in change:  # that may pass, so a run tries for half a minute
        ran = shell("run", EXAMPLES / "hello", "--storage", "lab", code=1)
        assert "hint: " in ran.err
        told += ran.err
    assert seaweed.secret_access_key not in told


def _files_holding(folder: Path, text: bytes) -> list[Path]:
    return [
        path for path in sorted(folder.rglob("*")) if path.is_file() and text in path.read_bytes()
    ]

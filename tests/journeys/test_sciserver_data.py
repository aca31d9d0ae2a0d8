"""Published data of SciServer in pipelines: read where they lie, never copied, never changed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepforge.testing.sciserver import SciServer, running
from journeys.parts import Server, serving
from shell import Shell, write_project

CATALOGUE = b"".join(b"%d,%d\n" % (plate, plate * plate) for plate in range(200_000))
KEY = "dr16/a catalogue, 100%.csv"

LOOK = """import hashlib


class Look:
    def execute(self, data):
        seen = hashlib.sha256(data).hexdigest().encode()
        return seen
"""
PIPELINE = """from operations.look import Look


def survey(data=None):
    seen = Look().execute(data)
    return seen
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SciServer]:
    with running(tmp_path / "sciserver") as site:
        site.users.add_user("alice", "wonderland")
        folder = site.state.data_volumes["sdss"].folder / "dr16"
        folder.mkdir()
        (site.state.data_volumes["sdss"].folder / KEY).write_bytes(CATALOGUE)
        yield site


@pytest.fixture
def server(shell: Shell, site: SciServer) -> Iterator[Server]:
    """With the volume's file imported as `plates`, and all that alice has at SciServer."""
    with serving(shell) as running:
        client = running.client
        account = ("--site", site.url, "--username", "alice")
        client(
            "storage", "add", "sciserver", "sky", *account, "--password", "-",
            input=b"wonderland\n",
        )  # fmt: skip
        client("sciserver", "link", "--password", input=b"wonderland\n")
        client(
            "storage", "add", "sciserver", "sdss", *account, "--pool", "data", "--volume", "sdss"
        )
        client("compute", "add", "sciserver", "sci", *account, "--python", sys.executable)
        client("artifacts", "import", "plates", "--storage", "sdss", "--key", KEY)
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(
        tmp_path / "survey",
        {"operations/look.py": LOOK, "pipelines/survey.py": PIPELINE},
        name="survey",
    )


@pytest.mark.parametrize("compute", ["sci", "server"])
def test_a_pipeline_reads_a_file_of_a_data_volume(
    server: Server, site: SciServer, project: Path, compute: str
) -> None:
    site.requests.clear()

    ran = server.client(
        "run", project, "--input", "data=plates", "--storage", "sky", "--compute", compute, "--json",
        timeout_s=300,
    ).json  # fmt: skip

    assert "succeeded" == ran["status"]
    digest = hashlib.sha256(CATALOGUE).hexdigest()
    assert digest == server.client("artifacts", "get", "seen", "-").out
    passed = [one for one in site.requests if "/api/file/sdss/" in one.path and one.method == "GET"]
    if compute == "sci":
        (job,) = site.jobs.by_id.values()
        assert [(one.name, writes) for one, writes in job.data_volumes] == [("sdss", False)]
        assert passed == []
    else:
        assert len(passed) == 1


def test_a_domain_without_the_volume_is_refused_before_the_run(
    server: Server, site: SciServer, project: Path
) -> None:
    site.state.domains[0].data_volumes = ()

    told = server.client(
        "run", project, "--input", "data=plates", "--storage", "sky", "--compute", "sci", code=2
    ).err

    assert "jobs in 'Small Jobs Domain' of SciServer cannot see /sdss" in told
    assert "a data volume of another domain: Large Jobs Domain" in told
    assert server.client("executions", "list", "--json").json == []
    assert site.jobs.by_id == {}

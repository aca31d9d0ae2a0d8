"""Digits with SciServer: jobs there and data there, jobs there and data elsewhere, and the reverse."""

from __future__ import annotations

import pickle

import pytest

from journeys.parts import working
from journeys.sciserver_lab import USER, Lab, lab
from seaweed import Seaweed
from shell import EXAMPLES

__all__ = ["lab"]

RUN = ("run", EXAMPLES / "digits", "--json")


def test_digits_inside_sciserver_moves_no_data_through_us(lab: Lab) -> None:
    before = len(lab.site.requests)

    ran = lab.server.client(*RUN, "--storage", "sky", "--compute", "sci", timeout_s=300).json

    assert "succeeded" == ran["status"]
    made = {one["name"] for one in ran["artifacts"]}
    assert made == {"model", "history", "accuracy", "confusion"}
    asked = [one for one in lab.site.requests[before:] if "/api/file/" in one.path]
    read = {
        one.path.rpartition("/")[2]
        for one in asked
        if one.method == "GET" and "/executions/" in one.path
    }
    assert read <= {"result.json", "log.txt", "events.jsonl"}
    sent = [one.size_bytes for one in asked if one.method == "PUT" and "/parts/" in one.path]
    volume = lab.site.state.volume("Storage", USER, "deepforge_data")
    assert volume is not None
    assert sent == [path.stat().st_size for path in (volume.folder / "bundles").iterdir()]
    lab.nothing_is_left()


def test_digits_inside_sciserver_with_a_bucket(lab: Lab, seaweed: Seaweed) -> None:
    """Our server cannot be called from there: signed requests are enough."""
    values = seaweed.settings(seaweed.new_bucket())
    lab.server.client(
        "storage", "add", "s3", "bucket", "--endpoint-url", values["endpoint_url"],
        "--bucket", values["bucket"], "--access-key-id", values["access_key_id"],
        "--secret-access-key", "-", input=values["secret_access_key"].encode(),
    )  # fmt: skip

    ran = lab.server.client(*RUN, "--storage", "bucket", "--compute", "sci", timeout_s=300).json

    assert "succeeded" == ran["status"]
    lab.nothing_is_left()


@pytest.mark.parametrize("compute", ["server", "worker"])
def test_digits_elsewhere_with_data_in_a_volume(lab: Lab, compute: str) -> None:
    """The server passes the data on: no token reaches the job."""
    storage = f"for-{compute}"  # of its own: nothing of it was made before
    lab.add("storage", storage, "--folder", storage)
    if compute == "server":
        result = lab.server.client(*RUN, "--storage", storage, timeout_s=300)
    else:
        lab.server.client("compute", "add", "worker", "mine")
        with working(lab.shell, lab.server.url):
            result = lab.server.client(
                *RUN, "--storage", storage, "--compute", "mine", timeout_s=300
            )

    assert result.json["status"] == "succeeded"
    assert not any(job["cached"] for job in result.json["jobs"])
    accuracy = lab.server.client("artifacts", "get", "accuracy", "-").data
    assert pickle.loads(accuracy) > 0.9  # we wrote these bytes ourselves a moment ago

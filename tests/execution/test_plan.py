"""From a graph to jobs: pure, so the text of a pipeline is all these tests need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deepforge.errors import InvalidRequest
from deepforge.execution.model import (
    Job,
    JobState,
    Needs,
    PlannedArgument,
    PlannedInput,
    PlannedJob,
    StoredValue,
)
from deepforge.execution.plan import ChosenArtifact, first_jobs, jobs_again, plan
from deepforge.pipelines.choose import choose
from deepforge.pipelines.project import read_pipeline
from deepforge.storage.port import ObjectRef

FILES = {
    "operations/load.py": (
        "# /// script\n# [tool.deepforge.resources]\n# cpus = 2\n# memory = '1 GiB'\n"
        "# time = '90s'\n# ///\n"
        "class Load:\n    def execute(self):\n        images, labels = 1, 2\n"
        "        return images, labels\n"
    ),
    "operations/train.py": (
        "class Train:\n    def __init__(self, network, rate: float = 0.1):\n"
        "        self.network = network\n\n"
        "    def execute(self, images, labels, start=None):\n        model = 1\n"
        "        return model\n"
    ),
    "operations/join.py": (
        "class Join:\n    def execute(self, *parts):\n        whole = 1\n        return whole\n"
    ),
    "resources/network.py": "def network(hidden: int = 3):\n    return hidden\n",
    "pipelines/inner.py": (
        "from operations.load import Load\n\n\ndef inner():\n    images, labels = Load().execute()\n"
        "    return images, labels\n"
    ),
    "pipelines/outer.py": (
        "from operations.join import Join\nfrom operations.train import Train\n"
        "from pipelines.inner import inner\nfrom resources.network import network\n\n\n"
        "def outer(hidden: int = 64, extra=None):\n"
        "    images, labels = inner()\n"
        "    model = Train(network(hidden=hidden), rate=0.5).execute(images, labels, extra)\n"
        "    whole = Join().execute(images, None, model)\n"
        "    return whole, images\n"
    ),
}
VALUE = StoredValue(ObjectRef("lab", "some/key", 3, "sha256:" + "0" * 64), "builtins.int", "pickle")


def planned(extra: bool = False, **computes: str) -> dict[str, PlannedJob]:
    graph = read_pipeline({path: text.encode() for path, text in FILES.items()}, "outer")
    inputs = {"extra": "photos"} if extra else {}
    chosen = choose(graph, {"hidden": "7"}, inputs)
    artifacts = {"extra": ChosenArtifact("id-of-photos", VALUE)} if extra else {}
    jobs = plan(chosen.graph, artifacts, compute="server", computes=computes)
    assert [job.index for job in jobs] == [0, 1, 2]
    return {job.name: job for job in jobs}


def test_every_node_is_a_job_that_can_run_when_those_before_it_have() -> None:
    jobs = planned()
    ids = [job.id for job in jobs.values()]

    assert list(jobs) == ["images/images", "model", "whole"]
    assert len(set(ids)) == 3
    for index, job in enumerate(jobs.values()):
        assert set(job.upstream) <= set(ids[:index])
    assert jobs["whole"].upstream == (jobs["images/images"].id, jobs["model"].id)


def test_a_job_says_what_to_call_with_what() -> None:
    jobs = planned()
    load, train = jobs["images/images"], jobs["model"]

    assert (train.module, train.operation, train.file) == (
        "operations.train",
        "Train",
        "operations/train.py",
    )
    assert train.arguments == (
        PlannedArgument(
            "network",
            resource_module="resources.network",
            resource_name="network",
            arguments={"hidden": "7"},
        ),
        PlannedArgument("rate", "0.5"),
    )
    assert train.outputs == ("model",)
    assert load.needs == Needs(cpus=2, memory_bytes=2**30, time_s=90)
    assert train.needs == Needs()


def test_inputs_come_from_jobs_artifacts_or_nowhere() -> None:
    without, given = planned()["model"], planned(extra=True)["model"]
    load = planned()["images/images"].id

    assert without.inputs == (
        PlannedInput("images", job=load, output="images"),
        PlannedInput("labels", job=load, output="labels"),
        PlannedInput("start"),
    )
    assert given.inputs[2] == PlannedInput("start", artifact="id-of-photos", value=VALUE)


def test_variadic_parts_keep_their_places() -> None:
    parts = planned()["whole"].inputs

    assert [(one.name, one.position, one.output) for one in parts] == [
        ("parts", 0, "images"),
        ("parts", 1, None),
        ("parts", 2, "model"),
    ]
    assert len({one.object_name for one in parts}) == 3


def test_what_the_pipeline_returns_is_published_under_its_name() -> None:
    jobs = planned()

    assert jobs["whole"].publishes == (("whole", "whole"),)
    assert jobs["images/images"].publishes == (("images", "images"),)
    assert jobs["model"].publishes == ()


def test_a_compute_is_chosen_by_node_then_by_class_then_for_all() -> None:
    jobs = planned(Train="gpu-box", whole="big-box", Join="small-box")

    assert [job.compute for job in jobs.values()] == ["server", "gpu-box", "big-box"]


def test_a_compute_for_what_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(InvalidRequest, match="'Trian'") as caught:
        planned(Trian="gpu-box")

    assert "images/images, model, whole" in str(caught.value)


def test_the_same_choices_give_the_same_plan() -> None:
    assert planned(extra=True) == planned(extra=True)


def test_a_rerun_keeps_what_succeeded_and_nothing_else() -> None:
    load, train, whole = (Job("earlier", one) for one in planned().values())
    load = replace(
        load,
        state=JobState.SUCCEEDED,
        outputs={"images": VALUE},
        published=("artifact",),
    )
    train = replace(train, state=JobState.FAILED)
    again = jobs_again("later", [load, train, replace(whole, state=JobState.SKIPPED)])

    assert [job.execution for job in again] == ["later"] * 3
    assert [job.state for job in again] == ["succeeded", "waiting", "waiting"]
    assert (again[0].outputs, again[0].published, again[0].cached) == (
        load.outputs,
        load.published,
        True,
    )
    assert again[1:] == first_jobs("later", tuple(planned().values()))[1:]

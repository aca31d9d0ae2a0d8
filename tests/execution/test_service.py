"""Start, look, cancel, rerun: what is refused, what begins, and what an artifact remembers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from deepforge.compute.memory import MemoryCompute, MemoryJob
from deepforge.compute.port import JobRequest, Refusal
from deepforge.connections.store import LOCAL_OWNER
from deepforge.errors import (
    Conflict,
    DeepForgeError,
    InvalidProject,
    InvalidRequest,
    NotFound,
)
from deepforge.execution.model import ExecutionState, StartRequest
from deepforge.ids import digest
from deepforge.storage.local import LocalAdapter
from execution.rig import CHAIN, Rig, fail, job_named, job_of, leave_result, opened, states


async def refused(rig: Rig, kind: type[DeepForgeError], **choices: Any) -> str:
    """Start, which must fail, and return what is said. Nothing may have begun."""
    with pytest.raises(kind) as caught:
        await rig.start(**choices)
    assert await rig.executions.list(LOCAL_OWNER) == []
    assert rig.ran == []
    return str(caught.value)


async def put_artifact(rig: Rig, name: str, data: bytes, *, owner: str = LOCAL_OWNER) -> str:
    storage = await rig.opener.storage("local")
    ref = await storage.put_bytes(f"given/{name}", data)
    artifact = await rig.artifacts.add(
        project=None, name=name, type="builtins.int", format="pickle", ref=ref, owner=owner
    )
    return artifact.id


@pytest.mark.parametrize(
    ("choices", "kind", "words"),
    [
        ({"project": "trail"}, NotFound, "'trail'"),
        ({"pipeline": "chian"}, InvalidRequest, "chain"),
        ({"commit": "0" * 40}, NotFound, "0" * 40),
        ({"attributes": {"txet": "a"}}, InvalidRequest, "text"),
        ({"attributes": {"text": ["not", 1, object]}}, InvalidRequest, "text"),
        ({"attributes": {"given": "x"}}, InvalidRequest, "given"),
        ({"inputs": {"text": "x"}}, InvalidRequest, "text"),
        ({"inputs": {"given": "none@3"}}, InvalidRequest, "'none@3'"),
        ({"inputs": {"given": "a b/../c"}}, InvalidRequest, "given"),
        ({"storage": "nowhere"}, NotFound, "local"),
        ({"compute": "nowhere"}, NotFound, "server"),
        ({"computes": {"Frist": "mem"}}, InvalidRequest, "one, two, alone"),
    ],
)
async def test_choices_that_do_not_fit_are_refused_with_what_would(
    rig: Rig, choices: dict[str, Any], kind: type[DeepForgeError], words: str
) -> None:
    await rig.record()

    assert words in await refused(rig, kind, **choices)


async def test_a_project_without_a_commit_says_how_to_record_one(rig: Rig) -> None:
    await rig.projects.create(LOCAL_OWNER, "trial")

    assert "deepforge run FOLDER" in await refused(rig, InvalidRequest)


async def test_every_finding_comes_at_once_with_its_place(rig: Rig) -> None:
    await rig.record(
        {
            **CHAIN,
            "pipelines/chain.py": "from operations.first import First\n\n\ndef chain():\n"
            "    one = First().execute(two)\n    two = Frist().execute(one)\n"
            "    while one:\n        pass\n    return one\n",
        }
    )
    with pytest.raises(InvalidProject) as caught:
        await rig.start()

    assert {one["line"] for one in caught.value.findings} == {5, 6, 7}
    assert {one["file"] for one in caught.value.findings} == {"pipelines/chain.py"}


async def test_a_required_input_must_be_given(rig: Rig) -> None:
    text = CHAIN["pipelines/chain.py"].replace("text: str = 'x', given=None", "given, text='x'")
    await rig.record({**CHAIN, "pipelines/chain.py": text})

    assert "given" in await refused(rig, InvalidRequest)


async def test_two_outputs_of_one_name_are_refused(rig: Rig) -> None:
    text = CHAIN["pipelines/chain.py"].replace("return two, alone", "return two, two")
    await rig.record({**CHAIN, "pipelines/chain.py": text})

    assert "two" in await refused(rig, InvalidProject)


async def test_an_output_with_a_name_that_no_artifact_can_have_is_refused(rig: Rig) -> None:
    text = CHAIN["pipelines/chain.py"].replace("alone", "a" * 101)
    await rig.record({**CHAIN, "pipelines/chain.py": text})

    assert "101 characters" in await refused(rig, InvalidRequest)


async def test_a_storage_the_compute_cannot_reach_is_refused(home: Path) -> None:
    environ = {"DEEPFORGE_STORAGE_PLAIN__ADAPTER": "memory"}
    async with opened(home, environ=environ) as rig:
        await rig.record()

        assert "--public-url" in await refused(rig, InvalidRequest, storage="plain")


async def test_a_storage_for_reading_only_is_refused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalAdapter, "read_only", True)
    await rig.record()

    assert "for reading only" in await refused(rig, InvalidRequest)


async def test_a_compute_is_asked_once_for_jobs_that_want_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[JobRequest] = []

    async def why_not(self: MemoryCompute, request: JobRequest) -> list[Refusal]:
        asked.append(request)
        return [Refusal("paths", "not today")]

    monkeypatch.setattr(MemoryCompute, "why_not", why_not)
    await rig.record()

    assert "not today" in await refused(rig, InvalidRequest)
    (only,) = asked
    assert [(one.path, one.writable) for one in only.paths] == [
        ((await rig.opener.storage("local")).file_root, True)
    ]


async def test_an_operation_the_compute_cannot_run_is_refused(rig: Rig) -> None:
    head = "# /// script\n# [tool.deepforge.resources]\n# gpus = 1\n# ///\n"
    await rig.record({**CHAIN, "operations/first.py": head + CHAIN["operations/first.py"]})

    assert "GPU" in await refused(rig, InvalidRequest)


async def test_somebody_elses_artifact_is_not_there(rig: Rig) -> None:
    await rig.record()
    await put_artifact(rig, "secret", b"1", owner="somebody")

    assert "no artifact" in await refused(rig, InvalidRequest, inputs={"given": "secret"})


async def test_somebody_elses_execution_is_not_there(rig: Rig) -> None:
    await rig.record()
    id = await rig.start()
    await rig.ended(id)

    for asked in (
        rig.executions.get(id, "somebody"),
        rig.executions.cancel(id, "somebody"),
        rig.executions.rerun(id, "somebody"),
        rig.executions.log(id, "one", "somebody"),
        rig.executions.start(StartRequest("somebody", "trial", compute="mem")),
    ):
        with pytest.raises(NotFound):
            await asked


async def test_an_artifact_remembers_all_that_it_came_from(rig: Rig) -> None:
    project = await rig.record()
    given = await put_artifact(rig, "given", b"photos")
    id = await rig.start(attributes={"text": "it's"}, inputs={"given": "given"})
    view = await rig.ended(id)
    found = {one.name: one for one in await rig.artifacts.list(project=project)}
    one, two = job_named(view, "one"), job_named(view, "two")
    value = one.outputs["one"].ref

    assert set(found) == {"two", "alone"}
    assert view.execution.inputs == {"given": "given@1"}
    assert found["two"].ref == two.outputs["two"].ref
    assert found["two"].provenance == {
        "execution": id,
        "job": "two",
        "attempt": 1,
        "output": "two",
        "project": "trial",
        "pipeline": "chain",
        "commit": await rig.history.head(project),
        "operation": {"file": "operations/after.py", "class": "After", "node": "two"},
        "attributes": {"text": '"it\'s"'},
        "inputs": {
            "part": {
                "job": "one",
                "output": "one",
                "digest": value.digest,
                "storage": "local",
                "key": value.key,
            },
            "other": {
                "artifact": given,
                "digest": digest(b"photos"),
                "storage": "local",
                "key": "given/given",
            },
        },
    }
    assert found["alone"].provenance["inputs"] == {}


async def test_a_failed_operation_skips_what_needs_it_and_nothing_else(rig: Rig) -> None:
    rig.far_sides["one"] = fail
    await rig.record()
    view = await rig.ended(await rig.start())

    assert view.execution.state is ExecutionState.FAILED
    assert states(view.jobs) == {"one": "failed", "two": "skipped", "alone": "succeeded"}
    assert job_named(view, "two").skipped_because == "one"
    assert len(job_named(view, "one").attempts) == 1
    assert job_named(view, "one").failure is not None
    assert len(rig.ran) == 2


async def test_a_rerun_runs_only_what_is_left(rig: Rig) -> None:
    rig.far_sides["two"] = fail
    project = await rig.record()
    first = await rig.ended(await rig.start())
    rig.far_sides.clear()
    rig.ran.clear()
    again = await rig.executions.rerun(first.execution.id, LOCAL_OWNER)
    view = await rig.ended(again.execution.id)

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert view.execution.rerun_of == first.execution.id
    assert rig.ran == [job_named(view, "two").key(1)]
    assert [job.id for job in view.jobs if job.cached] == ["one", "alone"]
    assert job_named(view, "one").outputs == job_named(first, "one").outputs
    names = [one.name for one in await rig.artifacts.list(project=project)]
    assert sorted(names) == ["alone", "two"]  # what was taken over is not published twice
    provenance = (await rig.artifacts.resolve("two", owner=LOCAL_OWNER, project=project)).provenance
    assert provenance["execution"] == view.execution.id
    assert provenance["inputs"]["part"]["key"].startswith(f"executions/{first.execution.id}/")


async def test_a_rerun_of_a_rerun_still_knows_everything(rig: Rig) -> None:
    rig.far_sides["two"] = fail
    await rig.record()
    id = await rig.start()
    for _ in range(3):
        await rig.ended(id)
        id = (await rig.executions.rerun(id, LOCAL_OWNER)).execution.id
    view = await rig.ended(id)

    assert states(view.jobs) == {"one": "succeeded", "two": "failed", "alone": "succeeded"}
    assert len(rig.ran) == 2 + 4


async def test_what_runs_or_succeeded_is_not_run_again(rig: Rig) -> None:
    gate = asyncio.Event()

    async def wait(job: MemoryJob) -> int:
        await gate.wait()
        leave_result(job_of(job))
        return 0

    rig.far_sides["one"] = wait
    await rig.record()
    id = await rig.start()
    with pytest.raises(Conflict, match="still running") as caught:
        await rig.executions.rerun(id, LOCAL_OWNER)
    gate.set()
    await rig.ended(id)

    assert f"cancel {id}" in str(caught.value)
    with pytest.raises(InvalidRequest, match="succeeded"):
        await rig.executions.rerun(id, LOCAL_OWNER)


async def test_a_cancel_ends_everything_and_may_be_repeated(rig: Rig) -> None:
    started = asyncio.Event()

    async def wait(job: MemoryJob) -> int:
        started.set()
        await asyncio.sleep(3600)
        return 0

    rig.far_sides["one"] = wait
    await rig.record()
    id = await rig.start()
    await asyncio.wait_for(started.wait(), 10)
    await rig.until(id, lambda view: states(view.jobs)["alone"] == "succeeded")
    await asyncio.gather(*(rig.executions.cancel(id, LOCAL_OWNER) for _ in range(3)))
    view = await rig.ended(id)
    again = await rig.executions.cancel(id, LOCAL_OWNER)

    assert view.execution.state is again.execution.state is ExecutionState.CANCELLED
    assert states(view.jobs) == {"one": "cancelled", "two": "cancelled", "alone": "succeeded"}
    assert (await rig.compute()).jobs == {}


async def test_what_was_cancelled_can_be_run_again(rig: Rig) -> None:
    async def wait(job: MemoryJob) -> int:
        await asyncio.sleep(3600)
        return 0

    rig.far_sides["one"] = wait
    await rig.record()
    id = await rig.start()
    await rig.executions.cancel(id, LOCAL_OWNER)
    await rig.ended(id)
    rig.far_sides.clear()
    view = await rig.ended((await rig.executions.rerun(id, LOCAL_OWNER)).execution.id)

    assert view.execution.state is ExecutionState.SUCCEEDED
    assert view.execution.cancel_requested_at is None
    assert not any(job.cancel_requested for job in view.jobs)


async def test_a_log_is_whole_though_only_half_of_it_came_live(rig: Rig) -> None:
    """The last lines of an operation go into the stored log alone."""
    text = b"first\nsecond\nthird\n"

    async def talk(job: MemoryJob) -> int:
        leave_result(job_of(job), log=text)
        return 0

    rig.far_sides["one"] = talk
    await rig.record()
    id = await rig.start()
    await rig.ended(id)
    rig.logs.append(id, "one", 1, 0, text[:6])
    whole = await rig.executions.log(id, "one", LOCAL_OWNER)
    rest = await rig.executions.log(id, "one", LOCAL_OWNER, start=3)
    behind = await rig.executions.log(id, "one", LOCAL_OWNER, start=1000)

    assert (whole.data, whole.ended) == (text, True)
    assert (rest.data, rest.ended) == (text[3:], True)
    assert (behind.data, behind.ended) == (b"", True)


async def test_the_log_of_a_lost_attempt_is_what_came_live(rig: Rig) -> None:
    async def vanish(job: MemoryJob) -> int:
        execution, name = job.request.labels["execution"], job.request.labels["job"]
        rig.logs.append(execution, name, int(job.request.key[-1]), 0, b"I was here\n")
        return -9

    rig.far_sides["one"] = vanish
    await rig.record()
    id = await rig.start()
    view = await rig.ended(id)
    part = await rig.executions.log(id, "one", LOCAL_OWNER, attempt=1)

    assert [one.outcome for one in job_named(view, "one").attempts] == ["lost"] * 4
    assert (part.data, part.ended) == (b"I was here\n", True)


async def test_a_job_or_attempt_that_is_not_there_is_said(rig: Rig) -> None:
    await rig.record()
    id = await rig.start()
    await rig.ended(id)

    with pytest.raises(NotFound, match="'none'") as caught:
        await rig.executions.log(id, "none", LOCAL_OWNER)
    assert "one, two, alone" in str(caught.value)
    with pytest.raises(NotFound, match="no attempt 7"):
        await rig.executions.log(id, "one", LOCAL_OWNER, attempt=7)

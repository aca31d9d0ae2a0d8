"""How long a job waits for a network: as long as the machine says, whatever it wants of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from deepforge.runner import protocol
from deepforge.runner.protocol import EXIT_TRY_AGAIN, Grant, OutputSlot, Ticket
from runner.far_server import FarServer, Fault, Request
from runner.far_side import FarSide, until

QUICK = "class Op:\n    def execute(self): return 1\n"


def test_results_are_stored_when_the_network_is_back(make_far: Callable[..., FarSide]) -> None:
    far = make_far(environment={protocol.ENV_PATIENCE: "60"})
    with FarServer() as gone:
        pass
    result = Grant("http", "PUT", url=f"{gone.address}/objects/result.json")
    process = far.start(replace(far.job(QUICK), result=result))
    until((far.store / "outputs" / "result").exists)
    with FarServer(port=gone.port) as back:
        assert 0 == far.ended(process).code
        assert "result.json" in back.objects


def test_nobody_waits_longer_than_the_machine_says(make_far: Callable[..., FarSide]) -> None:
    far = make_far(environment={protocol.ENV_PATIENCE: "0.2"})
    with FarServer() as gone:
        pass
    result = Grant("http", "PUT", url=f"{gone.address}/objects/result.json")

    assert EXIT_TRY_AGAIN == far.run(replace(far.job(QUICK), result=result)).code


def test_a_storage_that_answers_is_not_asked_for_longer(
    make_far: Callable[..., FarSide], server: FarServer
) -> None:
    """The patience is for the network; here the usual one is made short."""
    far = make_far(
        environment={protocol.ENV_PATIENCE: "600"},
        settings=("deepforge.runner.watch.PATIENCE_S=0.2",),
    )
    server.fail("/objects/result.json", *[Fault(status=503)] * 100)
    job = replace(far.job(QUICK), result=server.granted("result.json", "PUT"))

    assert EXIT_TRY_AGAIN == far.run(job).code


OUTAGE_S = 1.5


@pytest.mark.parametrize("wanted", ["the job", "its code", "an input", "a grant", "parts"])
def test_everything_waits_for_a_network_that_is_gone(
    make_far: Callable[..., FarSide], server: FarServer, wanted: str
) -> None:
    """The usual patience is far shorter here than the outage."""
    far = make_far(
        environment={protocol.ENV_PATIENCE: "60"},
        settings=("deepforge.runner.watch.PATIENCE_S=0.2",),
    )
    with FarServer() as gone:
        pass
    given = far.given("number", 7)
    job = far.job(
        "class Op:\n    def execute(self, number): return number\n",
        inputs=[given],
    )
    away = Grant("http", "GET", url=f"{gone.address}/objects/x")
    content = b""
    if wanted == "its code":
        job = replace(job, code=replace(job.code, grant=away))
        content = (far.store / "code.zip").read_bytes()
    elif wanted == "an input":
        job = replace(job, inputs=[replace(given, grant=away)])
        content = (far.store / "inputs" / "number").read_bytes()
    elif wanted == "a grant":
        server.fail("/objects/result", Fault(status=403))
        old = OutputSlot("result", server.granted("result", "PUT"))
        job = replace(job, outputs=[old])
    elif wanted == "parts":
        job = replace(job, outputs=[OutputSlot("result", None)])

    def granted(request: Request) -> tuple[int, Any]:
        return 200, {"grants": {"outputs/result": server.granted("result", "PUT").__dict__}}

    def parts(request: Request) -> tuple[int, Any]:
        return 200, {"grant": server.granted("result", "PUT").__dict__}

    process = far.start(
        Ticket(job.attempt, gone.channel())
        if wanted == "the job"
        else replace(job, channel=gone.channel())
    )
    with pytest.raises(AssertionError, match="did not happen"):
        until(lambda: process.poll() is not None, within_s=OUTAGE_S)
    with FarServer(port=gone.port, job=job) as back:
        back.objects["x"] = content
        back.answers |= {"/grants": granted, "/outputs/result/parts": parts}
        ended = far.ended(process)

    assert (0, "succeeded") == (ended.code, ended.result.status), ended.stderr

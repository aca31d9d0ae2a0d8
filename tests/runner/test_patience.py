"""How long results wait for a network: as long as the machine says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deepforge.runner import protocol
from deepforge.runner.protocol import EXIT_TRY_AGAIN, Grant
from runner.far_server import FarServer, Fault
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
        settings=("deepforge.runner.store.PATIENCE_S=0.2",),
    )
    server.fail("/objects/result.json", *[Fault(status=503)] * 100)
    job = replace(far.job(QUICK), result=server.granted("result.json", "PUT"))

    assert EXIT_TRY_AGAIN == far.run(job).code

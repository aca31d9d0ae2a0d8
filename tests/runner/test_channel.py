"""A job with a line to the server: claimed once, live while it runs, and not lost with the line."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepforge.runner import protocol
from deepforge.runner.protocol import Channel, Input, Job, OutputSlot, Ticket
from runner.far_server import ATTEMPT, TOKEN, FarServer, Fault, Request
from runner.far_side import FarSide, dumped, until

NO_OP = "class Op:\n    def execute(self): return 1\n"


def remote(far: FarSide, server: FarServer, files: Any, **more: Any) -> Job:
    """A job all of whose objects are granted over HTTP."""
    job = far.job(files, **more)
    server.objects["code"] = (far.store / "code.zip").read_bytes()
    return replace(
        job,
        code=replace(job.code, grant=server.granted("code", "GET")),
        outputs=[OutputSlot(one.name, server.granted(one.name, "PUT")) for one in job.outputs],
        result=server.granted("result.json", "PUT"),
        log=server.granted("log.txt", "PUT"),
    )


def ticket(server: FarServer, job: Job, **channel: Any) -> Ticket:
    server.job = job
    return Ticket(job.attempt, server.channel(**channel))


def result_of(server: FarServer) -> protocol.Result:
    return protocol.read_result(server.objects["result.json"])


def test_a_ticket_is_exchanged_for_the_job(far: FarSide, server: FarServer) -> None:
    """A short job costs the server two requests, and the storage four."""
    ended = far.run(ticket(server, remote(far, server, NO_OP)))

    assert (0, "") == (ended.code, ended.stderr)
    assert "succeeded" == result_of(server).status
    assert [
        ("POST", ATTEMPT + "/start"),
        ("GET", "/objects/code"),
        ("PUT", "/objects/result"),
        ("PUT", "/objects/result.json"),
        ("POST", ATTEMPT + "/finished"),
    ] == [(one.method, one.path) for one in server.requests]
    (start,) = server.called("/start")
    assert protocol.PROTOCOL == start.json["protocol"]
    assert start.json["runner"]
    assert "" == ended.stdout


@pytest.mark.parametrize("status", [401, 404, 409, 410])
def test_an_attempt_that_is_not_ours_runs_nothing(
    far: FarSide, server: FarServer, status: int
) -> None:
    server.answers["/start"] = lambda _: (status, {})

    ended = far.run(ticket(server, remote(far, server, NO_OP)))

    assert (0, "", "") == (ended.code, ended.stdout, ended.stderr)
    assert ["/start"] == [one.path.removeprefix(ATTEMPT) for one in server.requests]


def test_a_server_that_restarts_elsewhere_is_found_again(
    far: FarSide, server: FarServer, tmp_path: Path
) -> None:
    address = tmp_path / "address"
    with FarServer() as gone:
        job = remote(far, gone, NO_OP)
        moved = replace(
            job,
            code=replace(
                job.code,
                grant=replace(job.code.grant, url=f"{gone.address}{ATTEMPT}/objects/code"),
            ),
            outputs=[OutputSlot("result", server.granted("result", "PUT"))],
            result=server.granted("result.json", "PUT"),
        )
        channel = gone.channel(address_file=str(address))
    server.job = moved
    server.faults[ATTEMPT + "/objects/code"].append(
        Fault(whole=(far.store / "code.zip").read_bytes())
    )
    process = far.start(Ticket(job.attempt, channel))
    time.sleep(0.3)  # it may knock at the old door first
    address.write_text(server.address + "\n")
    ended = far.ended(process)

    assert 0 == ended.code, ended.stderr
    assert "succeeded" == result_of(server).status


def test_a_server_that_stays_away_is_tried_again_later(tmp_path: Path) -> None:
    far = FarSide(tmp_path, "fork", environment={protocol.ENV_PATIENCE: "0.5"})
    with FarServer() as gone:
        handed = Ticket("e-op-1", gone.channel())

    ended = far.run(handed)

    assert protocol.EXIT_TRY_AGAIN == ended.code
    assert "not reached" in ended.stderr


def test_trouble_of_the_server_at_the_start_passes(far: FarSide, server: FarServer) -> None:
    job = remote(far, server, NO_OP)
    troubles = iter([503, 500])
    names = []

    def start(request: Request) -> tuple[int, Any]:
        names.append(request.json["runner"])
        status = next(troubles, 200)
        return status, protocol.to_json(job) if status == 200 else {}

    server.answers["/start"] = start
    ended = far.run(ticket(server, job))

    assert 0 == ended.code, ended.stderr
    assert 3 == len(names)
    assert 1 == len(set(names))  # so that a repeat after a lost answer is known as one


LINES = """
    import os, time
    class Op:
        def execute(self):
            print("first")
            while not os.path.exists("go"):
                time.sleep(0.01)
            print("second", flush=True)
            return 1
"""


def test_the_log_is_live(far: FarSide, server: FarServer) -> None:
    process = far.start(ticket(server, remote(far, server, LINES)))
    until(lambda: bytes(server.log) == b"first\n")
    (far.folder / "work" / "go").touch()
    ended = far.ended(process)

    assert 0 == ended.code, ended.stderr
    assert b"first\nsecond\n" == server.objects["log.txt"]
    assert b"first\nsecond\n".startswith(bytes(server.log))


def test_a_long_job_says_that_it_lives(far: FarSide, server: FarServer) -> None:
    silent = LINES.replace('print("first")', "pass")
    process = far.start(ticket(server, remote(far, server, silent), heartbeat_s=0.2))
    until(lambda: len(server.called("/heartbeat")) >= 2)
    (far.folder / "work" / "go").touch()
    ended = far.ended(process)

    assert 0 == ended.code, ended.stderr


@pytest.mark.parametrize("way", ["/heartbeat", "/log"])
def test_the_server_may_cancel(far: FarSide, server: FarServer, way: str) -> None:
    server.answers[way] = lambda _: (200, {"cancel": True})
    op = LINES if way == "/log" else LINES.replace('print("first")', "pass")

    ended = far.run(ticket(server, remote(far, server, op), heartbeat_s=0.2))

    assert 130 == ended.code
    assert "cancelled" == result_of(server).status


def test_a_cancel_ends_a_long_transfer(far: FarSide, server: FarServer) -> None:
    """The storage never answers; the heartbeat goes on beside it, and brings the cancel."""
    import socket

    server.answers["/heartbeat"] = lambda _: (200, {"cancel": True})
    job = remote(far, server, NO_OP)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/code"
        job = replace(job, code=replace(job.code, grant=replace(job.code.grant, url=url)))
        ended = far.run(ticket(server, job, heartbeat_s=0.5), timeout_s=20)

    assert 130 == ended.code
    assert "cancelled" == result_of(server).status


@pytest.mark.parametrize("status", [401, 410])
def test_an_attempt_that_is_over_stops_and_writes_nothing(
    far: FarSide, server: FarServer, status: int
) -> None:
    server.answers["/log"] = lambda _: (status, {})

    ended = far.run(ticket(server, remote(far, server, LINES)), timeout_s=20)

    assert 130 == ended.code
    assert "result.json" not in server.objects


def test_a_lost_line_does_not_stop_the_job(far: FarSide, server: FarServer) -> None:
    for path in ("/log", "/heartbeat", "/finished"):
        server.answers[path] = lambda _: (503, {})
    process = far.start(ticket(server, remote(far, server, LINES), heartbeat_s=0.2))
    until(lambda: server.called("/log"))
    (far.folder / "work" / "go").touch()
    ended = far.ended(process)

    assert 0 == ended.code, ended.stderr
    assert "succeeded" == result_of(server).status
    assert "not reached" in ended.stderr


def test_expired_grants_are_asked_for_again(far: FarSide, server: FarServer) -> None:
    job = remote(far, server, "class Op:\n    def execute(self, x): return x\n")
    data, type_name, format_name = dumped("x")
    server.objects["fresh-in"] = data
    given = Input("x", None, server.granted("in", "GET"), len(data), None, type_name, format_name)
    job = replace(job, inputs=[given])
    fresh = {
        "inputs/x": server.granted("fresh-in", "GET"),
        "outputs/result": server.granted("fresh-out", "PUT"),
        "result": server.granted("fresh-result", "PUT"),
    }
    for path in ("/objects/in", "/objects/result", "/objects/result.json"):
        server.fail(path, Fault(403, b"Request has expired"))

    def grants(request: Request) -> tuple[int, Any]:
        return 200, {"grants": {name: fresh[name].__dict__ for name in request.json["names"]}}

    server.answers["/grants"] = grants
    ended = far.run(ticket(server, job))

    assert 0 == ended.code, ended.stderr
    assert data == server.objects["fresh-out"]
    assert "succeeded" == protocol.read_result(server.objects["fresh-result"]).status


def test_expired_grants_without_a_line_ask_for_another_attempt(
    far: FarSide, server: FarServer
) -> None:
    job = remote(far, server, NO_OP)
    server.fail("/objects/result", Fault(403, b"Request has expired"))

    ended = far.run(job)

    failure = result_of(server).failure
    assert failure is not None
    assert protocol.EXIT_TRY_AGAIN == ended.code
    assert ("grants_expired", True) == (failure.kind, failure.transient)


def test_without_a_line_the_log_is_printed_between_marks(far: FarSide, server: FarServer) -> None:
    op = "class Op:\n    def execute(self):\n        print('hello')\n        raise OSError('no')\n"
    job = remote(far, server, op)
    first, last = protocol.log_marks(job.attempt)

    ended = far.run(job)

    log = server.objects["log.txt"].decode()
    assert log.startswith("hello\nTraceback")
    assert first.decode() + log + last.decode() == ended.stdout
    assert "exception: OSError: no\n" == ended.stderr


def test_without_a_line_and_a_log_nothing_is_printed(far: FarSide, server: FarServer) -> None:
    ended = far.run(remote(far, server, NO_OP))

    assert (0, "", "") == (ended.code, ended.stdout, ended.stderr)


def test_a_result_that_cannot_be_stored_is_said_on_stderr(far: FarSide, server: FarServer) -> None:
    job = remote(far, server, NO_OP)
    server.fail("/objects/result.json", *[Fault(403, b"AccessDenied")] * 5)

    ended = far.run(job)

    assert 1 == ended.code
    assert "the result cannot be stored" in ended.stderr
    assert "AccessDenied" in ended.stderr


def test_the_result_comes_after_everything_else(far: FarSide, server: FarServer) -> None:
    op = "class Op:\n    def execute(self):\n        print(1)\n        return 1, 2, 3\n"
    job = remote(far, server, op, outputs=["a", "b", "c"])

    far.run(job)

    paths = [one.path.removeprefix("/objects/") for one in server.requests]
    assert {"a", "b", "c"} == set(paths[1:4])
    assert ["log.txt", "result.json"] == paths[4:]


def test_a_proxy_is_used_only_if_told(far: FarSide, server: FarServer) -> None:
    """The proxy is a second server of ours: it sees whole addresses as targets."""
    for name in ("http_proxy", "HTTP_PROXY"):
        far.environment[name] = f"http://user:pass%20word@127.0.0.1:{server.port}"
    for name in ("no_proxy", "NO_PROXY"):
        far.environment[name] = ""
    channel = Channel("http://storage.invalid/api/v1/attempts/e-op-1", TOKEN, proxied=True)
    job = replace(remote(far, server, NO_OP), channel=channel)

    ended = far.run(job)

    assert 0 == ended.code, ended.stderr
    (told,) = [one for one in server.requests if one.path.endswith("/finished")]
    assert "http://storage.invalid/api/v1/attempts/e-op-1/finished" == told.path
    assert "Basic dXNlcjpwYXNzIHdvcmQ=" == told.headers["proxy-authorization"]
    server.requests.clear()
    far.again()
    far.run(replace(job, channel=None))
    assert all(one.path.startswith("/objects/") for one in server.requests)

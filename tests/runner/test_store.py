"""Outputs end up where they were granted, all or nothing, each hashed once."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from deepforge.runner.channel import Line
from deepforge.runner.failures import JobFailed, of_status
from deepforge.runner.protocol import Grant
from deepforge.runner.store import Stored, Upload, put_bytes, store_many
from deepforge.runner.wire import Client
from runner.far_server import FarServer, Fault, Request
from runner.far_side import digest

DATA = os.urandom(300_000)


def written(tmp_path: Path, name: str = "output-0", data: bytes = DATA) -> str:
    path = tmp_path / "job" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return str(path)


def store(upload: Upload, **more: Any) -> Stored:
    more.setdefault("patience_s", 1.0)
    (found,) = store_many([upload], **more)
    return found


def line(server: FarServer) -> Any:
    channel = server.channel()
    return lambda client: Line(channel, client)


def test_many_files_are_sent_and_hashed(server: FarServer, tmp_path: Path) -> None:
    contents = [os.urandom(number * 37) for number in range(60)]
    uploads = [
        Upload(f"outputs/{n}", written(tmp_path, str(n), data), server.granted(f"k{n}", "PUT"))
        for n, data in enumerate(contents)
    ]

    found = store_many(uploads, workers=4)

    assert contents == [server.objects[f"k{n}"] for n in range(60)]
    assert [Stored(len(data), digest(data)) for data in contents] == found
    assert not any("expect" in request.headers for request in server.requests)


def test_the_headers_of_a_grant_are_sent_as_they_are(server: FarServer, tmp_path: Path) -> None:
    grant = server.granted("k", "PUT", headers={"X-Amz-Meta": "yes", "Host": "other"})

    store(Upload("outputs/x", written(tmp_path), grant))

    (request,) = server.requests
    assert "yes" == request.headers["x-amz-meta"]
    assert str(len(DATA)) == request.headers["content-length"]
    assert f"127.0.0.1:{server.port}" == request.headers["host"]


def test_a_cut_or_refused_upload_is_sent_again_whole(server: FarServer, tmp_path: Path) -> None:
    server.fail("/objects/k", Fault(cut_after=1000), Fault(status=503))

    found = store(Upload("outputs/x", written(tmp_path), server.granted("k", "PUT")))

    assert DATA == server.objects["k"]
    assert digest(DATA) == found.digest


@pytest.mark.parametrize(
    ("fault", "kind", "transient"),
    [
        (Fault(403, b"AccessDenied"), "transfer", False),
        (Fault(403, b"Request has expired"), "grants_expired", True),
        (Fault(413, b"EntityTooLarge"), "transfer", False),
        (Fault(507, b""), "storage_full", False),
        (Fault(502, b""), "transfer", True),
    ],
)
def test_what_a_storage_refuses(
    server: FarServer, tmp_path: Path, fault: Fault, kind: str, transient: bool
) -> None:
    server.fail("/objects/k", *[fault] * 30)

    with pytest.raises(JobFailed) as caught:
        store(Upload("outputs/x", written(tmp_path), server.granted("k", "PUT")), patience_s=0.4)

    assert (kind, transient) == (caught.value.failure.kind, caught.value.failure.transient)
    assert "outputs/x" in caught.value.failure.message


def test_an_answer_before_the_end_of_the_body_is_heard(tmp_path: Path) -> None:
    """A server that is full says so and hangs up, while we still send."""
    import socket
    import threading

    path = written(tmp_path, data=bytes(64 * 1024 * 1024))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 20):
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        grant = Grant("http", "PUT", url=f"http://127.0.0.1:{listener.getsockname()[1]}/x")
        with pytest.raises(JobFailed) as caught:
            store(Upload("outputs/x", path, grant))
        thread.join()

    assert "storage_full" == caught.value.failure.kind


def test_a_granted_file_moves_there(tmp_path: Path) -> None:
    source = written(tmp_path)
    inode = Path(source).stat().st_ino
    target = tmp_path / "far" / "away" / "x"

    found = store(Upload("outputs/x", source, Grant("file", "PUT", path=str(target))))

    assert Stored(len(DATA), digest(DATA)) == found
    assert (DATA, inode) == (target.read_bytes(), target.stat().st_ino)
    assert ["x"] == [path.name for path in target.parent.iterdir()]
    assert not Path(source).exists()


def test_a_granted_file_on_another_file_system_is_copied(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        target = Path(elsewhere, "deep", "x")
        source = written(tmp_path)

        found = store(Upload("outputs/x", source, Grant("file", "PUT", path=str(target))))

        assert DATA == target.read_bytes()
        assert digest(DATA) == found.digest
        assert [target] == list(target.parent.iterdir())
        assert not Path(source).exists()


def test_a_disk_that_is_full_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    target = tmp_path / "far" / "x"

    with pytest.raises(JobFailed) as caught:
        store(Upload("outputs/x", written(tmp_path), Grant("file", "PUT", path=str(target))))
    with pytest.raises(JobFailed) as whole:
        put_bytes(Client(), "result", b"{}", Grant("file", "PUT", path=str(target)))

    assert "storage_full" == caught.value.failure.kind == whole.value.failure.kind
    assert [] == list(target.parent.iterdir())


def test_a_large_output_is_sent_in_parts(server: FarServer, tmp_path: Path) -> None:
    completed: list[Any] = []

    def parts(request: Request) -> tuple[int, Any]:
        assert {"size_bytes": len(DATA)} == request.json
        grants = [server.granted(f"part{n}", "PUT").__dict__ for n in range(3)]
        return 200, {"upload": "u1", "part_bytes": 110_000, "parts": grants}

    def complete(request: Request) -> tuple[int, Any]:
        completed.append(request.json)
        return 200, {}

    server.answers |= {"/outputs/x/parts": parts, "/outputs/x/complete": complete}
    server.fail("/objects/part1", Fault(cut_after=500), Fault(status=500))
    upload = Upload("outputs/x", written(tmp_path), server.granted("k", "PUT"), None, 100_000)

    found = store(upload, make_line=line(server))

    assert Stored(len(DATA), digest(DATA)) == found
    assert DATA == b"".join(server.objects[f"part{n}"] for n in range(3))
    etags = [f'"{len(server.objects[f"part{n}"])}-part{n}"' for n in range(3)]
    assert [{"upload": "u1", "etags": etags}] == completed


def test_parts_that_fail_are_given_up(server: FarServer, tmp_path: Path) -> None:
    grants = [server.granted("part0", "PUT").__dict__]
    server.answers["/outputs/x/parts"] = lambda _: (
        200,
        {"upload": "u1", "part_bytes": 10**6, "parts": grants},
    )
    server.fail("/objects/part0", Fault(status=403))

    with pytest.raises(JobFailed):
        store(Upload("outputs/x", written(tmp_path)), make_line=line(server))

    assert [{"upload": "u1"}] == [one.json for one in server.called("/outputs/x/abort")]


def test_the_server_may_say_that_one_put_is_enough(server: FarServer, tmp_path: Path) -> None:
    server.answers["/outputs/x/parts"] = lambda _: (
        200,
        {"grant": server.granted("k", "PUT").__dict__},
    )

    store(Upload("outputs/x", written(tmp_path)), make_line=line(server))

    assert DATA == server.objects["k"]


def test_too_large_without_a_line_to_the_server(server: FarServer, tmp_path: Path) -> None:
    upload = Upload("outputs/x", written(tmp_path), server.granted("k", "PUT"), 200_000)

    with pytest.raises(JobFailed) as caught:
        store(upload)

    assert "300000 bytes" in caught.value.failure.message
    assert "200000" in caught.value.failure.message
    assert caught.value.failure.hint
    assert not server.requests


def test_an_empty_output_is_stored(server: FarServer, tmp_path: Path) -> None:
    path = written(tmp_path, data=b"")

    found = store(Upload("outputs/x", path, server.granted("k", "PUT")))

    assert (b"", Stored(0, digest(b""))) == (server.objects["k"], found)
    assert "0" == server.requests[0].headers["content-length"]


@pytest.mark.parametrize(
    ("body", "told", "cure"),
    [
        (
            b'{"error": {"message": "no such volume", "hint": "share it"}}',
            "no such volume",
            "share it",
        ),
        (b'{"error": {"message": "no such volume", "hint": null}}', "no such volume", None),
        (b"<html>oh\n no</html>", "<html>oh no</html>", None),
        (b'{"error": "other"}', '{"error": "other"}', None),
        (b"\xff", "\ufffd", None),
    ],
)
def test_a_refusal_of_our_server_is_told_in_its_words(
    body: bytes, told: str, cure: str | None
) -> None:
    failure = of_status("x cannot be stored", 422, body, Grant("http", "PUT", url="u")).failure

    assert (f"x cannot be stored: the storage answered 422 {told}.", cure) == (
        failure.message,
        failure.hint,
    )

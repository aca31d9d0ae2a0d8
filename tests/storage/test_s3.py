from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from certificates import make_certificate
from deepforge.errors import (
    AlreadyExists,
    AuthError,
    ConfigError,
    Corrupt,
    DeepForgeError,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from deepforge.ids import new_id
from deepforge.settings import Secret, build
from deepforge.storage.client import StorageClient
from deepforge.storage.memory import MemoryAdapter, MemorySettings
from deepforge.storage.registry import open_storage
from deepforge.storage.retry import Retry
from deepforge.storage.s3 import S3Adapter, S3Settings, just_before, part_bytes
from deepforge.storage.s3_bucket import etag_of_parts
from deepforge.storage.signing import Credentials, Place, presign
from deepforge.storage.streams import BLOCK_BYTES
from deepforge.testing.storage import StorageContract
from deepforge.testing.storage_exam import Opener, stream
from seaweed import DOMAIN, Seaweed
from tcp_proxy import proxied

MIB = 1024 * 1024


class TestS3(StorageContract):
    @pytest.fixture
    def opener(self, seaweed: Seaweed, bucket: str) -> Opener:
        return lambda: S3Adapter(build(S3Settings, seaweed.settings(bucket)))


@pytest.fixture
def settings(seaweed: Seaweed, bucket: str) -> dict[str, str]:
    """A folder of its own in the bucket."""
    return {**seaweed.settings(bucket), "prefix": f"tests/{new_id()}"}


@pytest.fixture
async def client(settings: dict[str, str]) -> AsyncIterator[StorageClient]:
    async with open_storage("lab", "s3", settings) as client:
        yield client


async def quick(adapter: S3Adapter) -> StorageClient:
    """A client that tries everything once."""
    return StorageClient(adapter, "lab", retry=Retry(attempts=1))


def every_use(client: StorageClient) -> dict[str, Callable[[], Awaitable[object]]]:
    async def listing() -> list[object]:
        return [info async for info in client.list("x")]

    return {
        "check": client.check,
        "put": lambda: client.put_bytes("key", b"x"),
        "put large": lambda: client.put_bytes("key", bytes(BLOCK_BYTES + 1)),
        "get": lambda: client.get_bytes("key", limit_bytes=10),
        "stat": lambda: client.stat("key"),
        "list": listing,
        "delete": lambda: client.delete(["key"]),
        "parts": lambda: client.begin_parts("key"),
    }


async def errors_of(values: dict[str, str]) -> dict[str, DeepForgeError]:
    """What every use of a storage with these settings raises."""
    found: dict[str, DeepForgeError] = {}
    async with S3Adapter(build(S3Settings, values)) as adapter:
        for name, use in every_use(await quick(adapter)).items():
            with pytest.raises(DeepForgeError) as caught:
                await use()
            found[name] = caught.value
    return found


@pytest.mark.parametrize(
    ("field", "value"),
    [("access_key_id", "nobody"), ("secret_access_key", "wrong"), ("session_token", "old")],
)
async def test_wrong_keys_are_told_at_every_use(
    settings: dict[str, str], field: str, value: str
) -> None:
    found = await errors_of(settings | {field: value})

    for use, error in found.items():
        assert isinstance(error, AuthError), (use, error)
        assert error.hint
        assert settings["secret_access_key"] not in str(error)


async def test_a_missing_bucket_is_told_at_every_use(settings: dict[str, str]) -> None:
    found = await errors_of(settings | {"bucket": "not-there"})

    for use, error in found.items():
        if use == "delete":  # which may well succeed elsewhere: nothing was there
            assert isinstance(error, ConfigError | NotFound), (use, error)
            continue
        assert isinstance(error, ConfigError), (use, error)
        assert error.fields == {"bucket": "does not exist"}
        assert "create_bucket" in (error.hint or "")


async def test_a_missing_bucket_is_made_if_that_is_wanted(settings: dict[str, str]) -> None:
    values: dict[str, object] = {**settings, "bucket": f"made-{new_id()}", "create_bucket": True}

    async with open_storage("lab", "s3", values) as client:
        with pytest.raises(NotFound):
            await client.stat("key")
        await client.check()
    async with open_storage("lab", "s3", values) as client:
        await client.put_bytes("key", b"x")


@pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid"])
async def test_a_wrong_endpoint_is_told_within_seconds(settings: dict[str, str], host: str) -> None:
    values = {**settings, "endpoint_url": f"http://{host}"}

    async with open_storage("lab", "s3", values) as client:
        for use in (client.check, lambda: client.put_bytes("key", b"x")):
            began = time.monotonic()
            with pytest.raises(Unavailable, match=host) as caught:
                await use()
            assert time.monotonic() - began < 10
            assert "endpoint" in (caught.value.hint or "")


async def test_http_where_https_is_spoken_is_no_puzzle(settings: dict[str, str]) -> None:
    values = {**settings, "endpoint_url": settings["endpoint_url"].replace("http:", "https:")}

    for use, error in (await errors_of(values)).items():
        assert isinstance(error, ConfigError | Unavailable), (use, error)


class Answers(BaseHTTPRequestHandler):
    """Some web site that knows nothing of S3."""

    status = 200

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b"<html>Welcome</html>"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web_site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [200, 301, 403, 404, 405])
async def test_an_endpoint_that_is_no_s3_service_is_called_so(
    settings: dict[str, str], web_site: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "status", status)

    async with open_storage("lab", "s3", {**settings, "endpoint_url": web_site}) as client:
        with pytest.raises(ConfigError) as caught:
            await client.check()

    assert set(caught.value.fields) <= {"endpoint_url", "region"}


async def test_a_service_that_fails_may_be_asked_again(
    settings: dict[str, str], web_site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "status", 500)

    for use, error in (await errors_of(settings | {"endpoint_url": web_site})).items():
        assert isinstance(error, Unavailable), (use, error)


class Redirects(Answers):
    """Sends everybody on to somewhere else."""

    status = 307
    target = ""

    def end_headers(self) -> None:
        self.send_header("Location", self.target)
        super().end_headers()


async def test_no_redirect_leads_from_https_to_http(
    settings: dict[str, str], web_site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is how a service on the internet would read in our network for its owner."""
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain_file, certificate.key_file)
    monkeypatch.setattr(Redirects, "target", f"{web_site}/latest/meta-data")
    inside: list[str] = []
    monkeypatch.setattr(Answers, "log_request", lambda self, *_: inside.append(type(self).__name__))
    with ThreadingHTTPServer(("127.0.0.1", 0), Redirects) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            async with proxied(f"http://127.0.0.1:{server.server_port}", tls=context) as proxy:
                values = {"endpoint_url": proxy.url, "ca_file": str(certificate.authority_file)}
                errors = await errors_of({**settings, **values})
        finally:
            server.shutdown()
            thread.join()

    assert all(isinstance(error, DeepForgeError) for error in errors.values()), errors
    assert set(inside) == {"Redirects"}


@pytest.mark.parametrize(
    ("bucket", "rule"),
    [
        ("b", "must have 2 to 255 characters, and has 1"),
        ("b" * 256, "must have 2 to 255 characters, and has 256"),
        ("my bucket", "and has ' '"),
        ("-bucket", "must begin with a letter or a digit, and begins with '-'"),
        ("..", "must begin with a letter or a digit"),
    ],
)
def test_a_bucket_that_cannot_be_one_is_told_the_rule_it_breaks(bucket: str, rule: str) -> None:
    values = {"endpoint_url": "https://s3.example.org", "bucket": bucket, "access_key_id": "a"}
    with pytest.raises(ConfigError) as caught:
        S3Adapter(build(S3Settings, values | {"secret_access_key": "b"}))

    assert rule in caught.value.fields["bucket"]


def test_the_endpoints_are_the_hosts_that_are_really_called() -> None:
    values = {
        "endpoint_url": "https://s3.example.org/path",
        "public_endpoint_url": "http://10.0.0.1:9000",
        "bucket": "lab",
        "access_key_id": "a",
        "secret_access_key": "b",
        "path_style": False,
    }

    assert S3Adapter(build(S3Settings, values)).endpoints == {
        "endpoint_url": "https://lab.s3.example.org",
        "public_endpoint_url": "http://lab.10.0.0.1:9000",
    }
    assert MemoryAdapter(MemorySettings()).endpoints == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpoint_url", "ftp://host"),
        ("endpoint_url", "host:9000"),
        ("endpoint_url", "http://user:password@host"),
        ("endpoint_url", "http://host:port"),
        ("public_endpoint_url", "http://"),
        ("bucket", "a/b"),
        ("bucket", ""),
        ("access_key_id", "a\r\nb"),
        ("access_key_id", ""),
        ("secret_access_key", ""),
        ("region", ""),
        ("prefix", "/a"),
        ("prefix", "a/../b"),
        ("ca_file", "/no/such/file"),
        ("ca_file", __file__),
    ],
)
async def test_settings_that_cannot_be_right_are_named(
    settings: dict[str, str], field: str, value: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        async with open_storage("lab", "s3", settings | {field: value}):
            pass

    assert field in caught.value.fields


async def test_our_own_certificate_authority_is_trusted_when_named(
    settings: dict[str, str], tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain_file, certificate.key_file)
    async with proxied(settings["endpoint_url"], tls=context) as proxy:
        values = {**settings, "endpoint_url": proxy.url}

        for use, error in (await errors_of(values)).items():
            assert isinstance(error, ConfigError), (use, error)
            assert "ca_file" in error.fields, (use, error)

        values["ca_file"] = str(certificate.authority_file)
        async with open_storage("lab", "s3", values) as client:
            ref = await client.put_bytes("key", bytes(2 * BLOCK_BYTES))
            assert await client.get_bytes(ref, limit_bytes=2 * BLOCK_BYTES) == bytes(
                2 * BLOCK_BYTES
            )


async def test_the_servers_own_aws_variables_do_not_matter(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_SESSION_TOKEN": "somebody else's",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_REGION": "mars-1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
    }.items():
        monkeypatch.setenv(name, value)

    async with open_storage("lab", "s3", settings) as client:
        await client.check()


async def test_a_bucket_in_the_host_name_works_too(
    settings: dict[str, str], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name leads to the server here, so it plays the proxy through which we ask for the name."""
    monkeypatch.setenv("http_proxy", settings["endpoint_url"])
    monkeypatch.delenv("no_proxy", raising=False)
    values: dict[str, object] = {
        **settings,
        "endpoint_url": f"http://{DOMAIN}",
        "path_style": False,
    }

    async with open_storage("lab", "s3", values) as client:
        await client.check()
        large = await client.put_bytes("a b/ü+%", bytes(BLOCK_BYTES + 1))
        assert [info.key async for info in client.list()] == ["a b/ü+%"]
        grant = await client.grant(large.key, "GET", expires_s=60)
        assert grant.url is not None
        assert grant.url.startswith(f"http://{bucket}.{DOMAIN}/tests/")
        async with httpx.AsyncClient() as http:
            assert len((await http.get(grant.url)).content) == large.size_bytes


async def test_the_public_endpoint_is_what_others_are_given(settings: dict[str, str]) -> None:
    """The host is part of the signature, so it cannot be replaced afterwards."""
    async with proxied(settings["endpoint_url"]) as proxy:
        values = {**settings, "public_endpoint_url": proxy.url}
        async with open_storage("lab", "s3", values) as client, httpx.AsyncClient() as http:
            await client.put_bytes("key", b"content")
            grant = await client.grant("key", "GET", expires_s=60)
            assert grant.url is not None
            assert grant.url.startswith(proxy.url)
            assert (await http.get(grant.url)).content == b"content"
            moved = grant.url.replace(proxy.url, settings["endpoint_url"])
            assert (await http.get(moved)).status_code == 403


async def test_a_prefix_keeps_storages_in_one_bucket_apart(settings: dict[str, str]) -> None:
    inner = {**settings, "prefix": f"{settings['prefix']}/inner"}
    async with (
        open_storage("outer", "s3", settings) as outer,
        open_storage("inner", "s3", inner) as other,
    ):
        await outer.put_bytes("key", b"outer")
        await other.put_bytes("key", b"inner")

        assert [info.key async for info in other.list()] == ["key"]
        assert [info.key async for info in outer.list()] == ["inner/key", "key"]
        assert [info.key async for info in outer.list(after="inner/key")] == ["key"]
        assert await outer.get_bytes("inner/key", limit_bytes=9) == b"inner"


async def test_keys_of_others_that_are_none_for_us_are_left_out(
    settings: dict[str, str], seaweed: Seaweed, bucket: str
) -> None:
    credentials = Credentials(seaweed.access_key_id, seaweed.secret_access_key)
    for name in ("folder/", "fine"):
        url = presign(
            "PUT",
            Place(seaweed.endpoint_url, bucket),
            f"{settings['prefix']}/{name}",
            credentials=credentials,
            region="us-east-1",
            expires_s=60,
        )
        async with httpx.AsyncClient() as http:
            assert (await http.put(url)).status_code == 200

    async with open_storage("lab", "s3", settings) as client:
        assert [info.key async for info in client.list()] == ["fine"]


async def test_a_download_that_is_cut_goes_on_where_it_was_cut(
    settings: dict[str, str], client: StorageClient, tmp_path: Path
) -> None:
    data = os.urandom(40 * MIB)
    ref = await client.put_bytes("key", data)
    async with (
        proxied(settings["endpoint_url"]) as proxy,
        open_storage("lab", "s3", {**settings, "endpoint_url": proxy.url}) as broken,
    ):
        proxy.cut_after = [10 * MIB, 7 * MIB, 1000, 0]
        await broken.get_file(ref, tmp_path / "out")

    assert proxy.cuts == 4
    assert (tmp_path / "out").read_bytes() == data


async def test_parts_that_are_cut_are_sent_again(
    settings: dict[str, str], client: StorageClient
) -> None:
    data = os.urandom(30 * MIB)
    async with (
        proxied(settings["endpoint_url"]) as proxy,
        open_storage("lab", "s3", {**settings, "endpoint_url": proxy.url}) as broken,
    ):
        await broken.begin_parts("warm")  # this connection is kept, so parts come by others
        proxy.cut_after = [0, 0]
        ref = await broken.put_stream("key", stream([data]))

    assert proxy.cuts == 2
    assert await client.get_bytes(ref, limit_bytes=len(data)) == data


async def uploads_left(settings: dict[str, str]) -> int:
    credentials = Credentials(settings["access_key_id"], settings["secret_access_key"])
    url = presign(
        "GET",
        Place(settings["endpoint_url"], settings["bucket"]),
        None,
        credentials=credentials,
        region="us-east-1",
        expires_s=60,
        query={"uploads": "", "prefix": settings["prefix"]},
    )
    async with httpx.AsyncClient() as http:
        answer = await http.get(url)
    assert answer.status_code == 200
    return answer.text.count("<UploadId>")


async def test_uploads_that_fail_leave_no_parts_behind(
    settings: dict[str, str], client: StorageClient
) -> None:
    await client.put_bytes("key", b"former")
    begun = await client.begin_parts("other")
    assert await uploads_left(settings) == 1, "the test would see one that is left"
    await client.abort_parts("other", begun)

    async def failing() -> AsyncIterator[bytes]:
        yield bytes(30 * MIB)
        raise ZeroDivisionError

    waits = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(30 * MIB)
        waits.set()
        await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        await client.put_stream("key", failing())
    with pytest.raises(AlreadyExists):
        await client.put_bytes("key", bytes(30 * MIB), only_if_absent=True)
    task = asyncio.create_task(client.put_stream("key", endless()))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await uploads_left(settings) == 0
    assert await client.get_bytes("key", limit_bytes=10) == b"former"


async def test_completing_again_after_a_lost_answer_is_fine(client: StorageClient) -> None:
    upload = await client.begin_parts("key")
    grant = await client.grant_part("key", upload, 1, expires_s=60)
    async with httpx.AsyncClient() as http:
        etag = (await http.put(grant.url or "", content=b"part")).headers["etag"]
    first = await client.complete_parts("key", upload, [etag])

    assert await client.complete_parts("key", upload, [etag]) == first
    # a service that has forgotten the upload by now
    assert await client.complete_parts("key", "forgotten", [etag]) == first
    with pytest.raises(NotFound):
        await client.complete_parts("key", "forgotten", [etag, etag])


def test_etags_that_are_no_sums_prove_nothing() -> None:
    assert etag_of_parts(["not a sum"]) is None


async def test_an_altered_object_is_corrupt(client: StorageClient) -> None:
    ref = await client.put_bytes("key", b"content")
    await client.put_bytes("key", b"CONTENT")

    with pytest.raises(Corrupt):
        await client.get_bytes(ref, limit_bytes=10)


async def test_deletes_of_thousands_are_few_requests(client: StorageClient) -> None:
    await client.put_bytes("key-7", b"")

    await client.delete([f"key-{number}" for number in range(2500)])

    assert [info async for info in client.list()] == []


async def test_a_grant_tells_when_it_ends_and_holds_no_secret(settings: dict[str, str]) -> None:
    values = {**settings, "session_token": Secret("the-token")}
    async with S3Adapter(build(S3Settings, values)) as adapter:
        grant = await adapter.grant("key", "PUT", expires_s=1e9)

    assert grant.url is not None
    assert settings["secret_access_key"] not in grant.url
    assert "X-Amz-Security-Token=the-token" in grant.url
    assert "X-Amz-Expires=604800" in grant.url  # a week is the most there is
    assert grant.expires_at is not None


def test_part_sizes_keep_the_number_of_parts_below_the_limit() -> None:
    for size in (None, 0, 1, 80_000 * MIB, 5 * 1024**4):
        part = part_bytes(size)

        assert part >= BLOCK_BYTES
        assert part % MIB == 0
        assert part * 10_000 >= (size or 0)


async def test_large_objects_that_wait_for_their_turn_hold_one_block(client: StorageClient) -> None:
    """However many are put at once: only those that are sent just now take more memory."""
    given = [0] * 6
    asked, at_the_end, may_end = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event()

    async def source(number: int) -> AsyncIterator[bytes]:
        for _ in range(2):
            given[number] += 1
            asked.release()
            yield bytes(BLOCK_BYTES)
        at_the_end.release()
        await may_end.wait()

    puts = [
        asyncio.create_task(client.put_stream(f"key-{number}", source(number)))
        for number in range(len(given))
    ]
    async with asyncio.timeout(30):
        for _ in range(3):
            await at_the_end.acquire()
        for _ in range(6 + 3):
            await asked.acquire()
        await asyncio.sleep(0.1)  # what would not wait has come by then

    assert [1, 1, 1, 2, 2, 2] == sorted(given)
    may_end.set()
    assert {2 * BLOCK_BYTES} == {ref.size_bytes for ref in await asyncio.gather(*puts)}


async def test_a_stream_of_too_many_parts_is_refused_in_time(
    client: StorageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepforge.storage.s3.MAX_PARTS", 2)

    with pytest.raises(InvalidRequest, match="more than 2 parts"):
        await client.put_stream("key", stream([bytes(BLOCK_BYTES)] * 3))


@pytest.mark.parametrize("after", ["a-b", "a/b", "a", "a0", "x/y.z", "/", "a b", "\ue000", "b0"])
def test_a_listing_starts_before_all_that_follows_in_either_order(after: str) -> None:
    letters = ["a", "b", "0", "-", "/", "z", "x", "y", ".", " ", "\ue000", "é"]
    keys = [first + second + third for first in letters for second in letters for third in letters]
    start = just_before(after)

    for key in keys:
        if key > after:
            assert key > start
            assert key.split("/") > start.split("/")


MEMORY_CODE = """
import asyncio, json, pathlib, sys
from deepforge.storage.registry import open_storage

def peak_mib():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024

async def chunks(count):
    for number in range(count):
        yield number.to_bytes(8, "big") * (1024 * 1024 // 8)

async def main():
    settings, path = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
    async with open_storage("lab", "s3", settings) as client:
        peaks = []
        for count in (48, 256):
            ref = await client.put_stream("key", chunks(count))
            await client.get_file(ref, path)
            peaks.append(peak_mib())
    print(*peaks)

asyncio.run(main())
"""


async def test_memory_does_not_grow_with_the_object(
    settings: dict[str, str], tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MEMORY_CODE, json.dumps(settings), str(tmp_path / "file")),
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate()

    small, large = (int(word) for word in output.split())
    assert large <= 130
    assert large - small <= 40

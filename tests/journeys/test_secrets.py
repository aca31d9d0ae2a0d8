"""The operator's secrets stay with the server: no process of a job, no object, no file holds them.

`test_s3` looks for the keys of a storage that was added; here they come from the environment of the
server, and the key that seals all others too. That environment is theirs to see and nobody else's.
"""

from __future__ import annotations

import io
import json
import secrets
import zipfile
from dataclasses import replace
from pathlib import Path

from deepforge.settings import build
from deepforge.storage.client import StorageClient
from deepforge.storage.s3 import S3Adapter, S3Settings
from journeys.parts import (
    processes_of,
    serving,
    steps_project,
    supervisors,
    wait_until,
    working,
)
from seaweed import Seaweed
from shell import Shell

BODY = """
print("PLANTED-" + "IN-THE-LOG", flush=True)
pid = os.getpid()
while pid > 1:
    for name in ("environ", "cmdline"):
        print(name, Path(f"/proc/{pid}/{name}").read_bytes(), flush=True)
    pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
for path in [*Path.cwd().parent.rglob("*"), *Path.cwd().rglob("*")]:
    if path.is_file():
        print(path, path.read_bytes(), flush=True)
while not (folder / "gate").exists():
    time.sleep(0.02)
"""


async def test_secrets_of_the_environment_reach_no_job(shell: Shell, seaweed: Seaweed) -> None:
    bucket = seaweed.new_bucket()
    values = seaweed.settings(bucket)
    master = secrets.token_hex(32)
    operator = replace(
        shell,
        environment={
            "DEEPFORGE_SECRET_KEY": master,
            "DEEPFORGE_STORAGE_LAB__ADAPTER": "s3",
            **{f"DEEPFORGE_STORAGE_LAB__{name.upper()}": one for name, one in values.items()},
        },
    )
    hidden = [seaweed.secret_access_key.encode(), master.encode(), bytes.fromhex(master)]
    folder = shell.folder / "steps"
    project = steps_project(folder, 1, BODY)
    said: list[bytes] = []

    with serving(operator) as server:
        client = server.client
        execution = client("run", project, "--storage", "lab", "--detach").out.strip()
        wait_until(
            lambda: b"PLANTED-IN-THE-LOG" in client("executions", "logs", execution, "v0").data
        )
        of_jobs = [pid for pid in processes_of(shell.home) if pid != server.process.pid]
        for pid in of_jobs:
            said += [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline")]
        assert set(supervisors(shell.home)) < set(of_jobs)
        files = [path.read_bytes() for path in shell.home.rglob("*") if path.is_file()]
        (folder / "gate").touch()
        followed = client("executions", "logs", "-f", execution)
        for command in (
            ["executions", "logs", execution, "v0"],
            ["executions", "show", execution, "--json"],
            ["storage", "list", "--json"],
            ["storage", "check", "lab", "--deep"],
        ):
            told = client(*command)
            said += [told.data, told.err.encode()]
    said += [followed.data, followed.err.encode()]
    files += [path.read_bytes() for path in shell.home.rglob("*") if path.is_file()]
    files.append((shell.home.with_name("server.log")).read_bytes())
    objects = await _objects(values)

    assert "steps succeeded" in followed.err
    assert any(b"PLANTED-IN-THE-LOG" in one for one in said)
    assert any(b"PLANTED-IN-THE-LOG" in one for one in objects)
    assert any(b'"PLANTED-" + "IN-THE-LOG"' in one for one in objects), "bundles are looked into"
    assert any(b"job.json" in one or b"PATH=" in one for one in said), "the operation did look"
    for secret in hidden:
        for where in (said, files, objects):
            assert not [one for one in where if secret in one]


def test_the_token_of_an_attempt_is_not_in_the_database(shell: Shell, tmp_path: Path) -> None:
    """What waits for a worker, and what a worker has, lies there with it, but sealed."""
    body = """
print("begun", flush=True)
while not (folder / "gate").exists():
    time.sleep(0.02)
"""
    project = steps_project(tmp_path, 2, body)
    with serving(shell) as server:
        server.client("compute", "add", "worker", "box")
        execution = server.client("run", project, "--compute", "box", "--detach").out.strip()
        with working(shell, server.url):
            wait_until(
                lambda: b"begun" in server.client("executions", "logs", execution, "v0").data
            )
            handed = list((shell.folder / "worker" / "jobs").rglob("job.json"))
            tokens = [json.loads(one.read_bytes())["channel"]["token"].encode() for one in handed]
            stored = [path.read_bytes() for path in shell.home.rglob("*") if path.is_file()]
            (tmp_path / "gate").touch()
            server.client("executions", "logs", "-f", execution)
        stored += [path.read_bytes() for path in shell.home.rglob("*") if path.is_file()]

    assert tokens
    assert any(execution.encode() in one for one in stored), "the search finds what is there"
    assert not [one for one in stored for token in tokens if token in one]


async def _objects(values: dict[str, str]) -> list[bytes]:
    """Everything in the bucket, archives unpacked."""
    found = []
    async with S3Adapter(build(S3Settings, values)) as adapter:
        storage = StorageClient(adapter, "lab")
        keys = [info.key async for info in storage.list("")]
        for key in keys:
            data = await storage.get_bytes(key, limit_bytes=10**8)
            found += [key.encode(), data]
            if key.endswith(".zip"):
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    found += [archive.read(name) for name in archive.namelist()]
    return found

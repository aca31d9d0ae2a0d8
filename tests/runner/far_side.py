"""What tests of the runner share: a job in a folder, and ways of running it for real."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deepforge import serialization
from deepforge.runner import protocol
from deepforge.runner.build import runner_archive
from deepforge.runner.protocol import (
    Argument,
    Channel,
    Code,
    Grant,
    Input,
    Job,
    Limits,
    Operation,
    OutputSlot,
    Result,
    Ticket,
)

Mode = Literal["fresh", "fork"]

SOURCE = Path(serialization.__file__).parents[1]

# As the supervisor of Server Compute does: a clean process with one thread, forked for one job.
DRIVER = """
import os, sys
sys.path.insert(0, sys.argv[1])
for setting in sys.argv[3:]:
    place, value = setting.split("=")
    module, name = place.rsplit(".", 1)
    __import__(module)
    setattr(sys.modules[module], name, float(value))
from deepforge.runner.__main__ import main, warm
warm()
pid = os.fork()
if pid == 0:
    os._exit(main([sys.argv[2]]))
import signal
signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
_, status = os.waitpid(pid, 0)
os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
"""


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def project(files: Mapping[str, str]) -> bytes:
    """A project as the zip file that the server makes of a commit."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, textwrap.dedent(text))
    return buffer.getvalue()


def dumped(value: object) -> tuple[bytes, str, str]:
    """Bytes, type and format of a value, as an earlier job would have stored it."""
    with io.BytesIO() as file:
        type_name, format_name = serialization.dump(value, file)
        return file.getvalue(), type_name, format_name


@dataclass(frozen=True)
class Ended:
    """What a run left behind."""

    code: int
    stdout: str
    stderr: str
    store: Path
    folder: Path

    @property
    def result(self) -> Result:
        return protocol.read_result((self.store / "result.json").read_bytes())

    @property
    def failure(self) -> protocol.Failure:
        found = self.result.failure
        assert found is not None, self.result
        return found

    @property
    def log(self) -> bytes:
        return (self.store / "log.txt").read_bytes()

    def output(self, name: str = "result") -> Any:
        """Read an output as a later job would, after checking what the result says of it."""
        (said,) = (one for one in self.result.outputs if one.name == name)
        data = (self.store / "outputs" / name).read_bytes()
        assert (said.size_bytes, said.digest) == (len(data), digest(data))
        with io.BytesIO(data) as file:
            return serialization.load(said.type, said.format, file)


@dataclass
class FarSide:
    """A folder a job starts in, a storage that is a folder, and a cache."""

    root: Path
    mode: Mode = "fresh"
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.folder = self.root / "job"
        self.store = self.root / "store"
        self.cache = self.root / "cache"
        for folder in (self.folder, self.store):
            folder.mkdir(parents=True)
        self.pyz = self.root / "runner.pyz"
        self.pyz.write_bytes(runner_archive())

    def granted(self, key: str, method: str) -> Grant:
        return Grant("file", method, path=str(self.store / key))

    def put(self, key: str, data: bytes) -> Path:
        path = self.store / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def given(self, name: str, value: object, position: int | None = None) -> Input:
        """An input that an earlier job has stored."""
        data, type_name, format_name = dumped(value)
        self.put(f"inputs/{name}", data)
        return Input(
            name,
            position=position,
            grant=self.granted(f"inputs/{name}", "GET"),
            size_bytes=len(data),
            digest=digest(data),
            type=type_name,
            format=format_name,
        )

    def code(self, files: Mapping[str, str]) -> Code:
        data = project(files)
        self.put("code.zip", data)
        return Code(digest(data), len(data), self.granted("code.zip", "GET"))

    def job(
        self,
        files: Mapping[str, str] | str,
        *,
        arguments: Sequence[Argument] = (),
        inputs: Sequence[Input] = (),
        outputs: Sequence[str] = ("result",),
        channel: Channel | None = None,
        limits: Limits | None = None,
    ) -> Job:
        """A job that runs class `Op` of `operations/op.py`; a text is that file alone."""
        if isinstance(files, str):
            files = {"operations/op.py": files}
        return Job(
            attempt="e-op-1",
            operation=Operation("operations.op", "Op", "operations/op.py"),
            arguments=list(arguments),
            inputs=list(inputs),
            outputs=[OutputSlot(one, self.granted(f"outputs/{one}", "PUT")) for one in outputs],
            code=self.code(files),
            result=self.granted("result.json", "PUT"),
            log=self.granted("log.txt", "PUT"),
            channel=channel,
            limits=limits or Limits(),
        )

    def run(self, handed: Job | Ticket, timeout_s: float = 60) -> Ended:
        return self.ended(self.start(handed), timeout_s)

    def run_op(self, files: Mapping[str, str] | str, timeout_s: float = 60, **job: Any) -> Ended:
        return self.run(self.job(files, **job), timeout_s)

    def start(self, handed: Job | Ticket) -> subprocess.Popen[str]:
        """Start the runner as the mode says, and do not wait."""
        (self.folder / "job.json").write_bytes(protocol.to_json(handed))
        environment = {
            **os.environ,
            protocol.ENV_CACHE: str(self.cache),
            protocol.ENV_PYTHON: self.python,
            **self.environment,
        }
        if self.mode == "fork":
            environment[protocol.ENV_START] = "fork"
            command = [self.python, "-c", DRIVER, str(SOURCE), "job.json", *self.settings]
        else:
            command = [self.python, str(self.pyz), "job.json"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def ended(self, process: subprocess.Popen[str], timeout_s: float = 60) -> Ended:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            raise
        return Ended(process.returncode, stdout, stderr, self.store, self.folder)

    def again(self) -> None:
        """Make room for another run with the same storage and cache."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()


def until(true: Callable[[], object], *, within_s: float = 20.0) -> None:
    """Wait until something is so; fail if it does not become so."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pickled(value: object) -> bytes:
    return pickle.dumps(value, protocol=4)

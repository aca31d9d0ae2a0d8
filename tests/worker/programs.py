"""Real worker processes, and jobs as our server hands them out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepforge.runner import protocol
from deepforge.runner.protocol import Job
from worker.fake_server import FakeServer


@dataclass
class Running:
    """A worker process in a folder of its own."""

    process: subprocess.Popen[bytes]
    folder: Path
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def job_folders(self) -> list[Path]:
        return sorted((self.folder / "jobs").glob("*"))

    def keeper(self, hash: str) -> int:
        """The pid of the process beside a job."""
        return int(json.loads((self.folder / "jobs" / hash / "keeper.json").read_text())["pid"])

    def end(self, number: int = signal.SIGTERM, within_s: float = 20) -> int:
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Workers:
    """Starts workers; all of one folder are the same one to their server."""

    root: Path
    pyz: Path
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)
    started: list[Running] = field(default_factory=list)

    def __call__(
        self,
        server: FakeServer | str,
        *options: str,
        folder: Path | None = None,
        token: str | None = None,
        **more: Any,
    ) -> Running:
        folder = folder or self.root / "worker"
        url = server if isinstance(server, str) else server.url
        log = self.root / f"worker-{len(self.started)}.txt"
        command = [self.python, str(self.pyz), "--url", url, "--folder", str(folder), *options]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DEEPFORGE")
        }
        environment.update(self.environment)
        if token is not None:
            environment["DEEPFORGE_TOKEN"] = token
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **more,
            )
        running = Running(process, folder, log)
        self.started.append(running)
        return running

    def end(self) -> None:
        """End every worker, and what jobs they left."""
        for one in self.started:
            if one.process.poll() is None:
                one.process.kill()
            one.process.wait()
            for keeper in (one.folder / "jobs").glob("*/keeper.json"):
                with contextlib.suppress(OSError, ValueError, KeyError):
                    os.kill(json.loads(keeper.read_text())["pid"], signal.SIGKILL)


def handed(job: Job, **more: Any) -> dict[str, Any]:
    """A job as our server hands it out."""
    return {"files": {"job.json": protocol.to_json(job).decode()}, "key": job.attempt, **more}

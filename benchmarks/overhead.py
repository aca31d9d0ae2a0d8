"""What does one operation cost beyond itself? A chain of 50 and a fan of 100, each in a process.

The floor spawns `python op.py` as often, with the same interpreter and as many at a time, and keeps
nothing. Ours records every state, hashes and keeps every output, and keeps a log. Times come from the
operations' own clocks: from the first one's to the last one's, divided by how many there are.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.measure import (
    Measurement,
    clean_environment,
    in_turn,
    median,
    ratio,
    run,
    table,
)

CHAIN = 50
FAN = 100
SLOTS = 2

OPERATION = '''"""Pass the data on with the time noted in it."""
import time


class Step:
    def execute(self, *parts):
        marked = b"".join(parts) + b"%r\\n" % time.time()
        return marked
'''

FLOOR_OPERATION = """
import sys, time
data = b"".join(open(name, "rb").read() for name in sys.argv[2:])
with open(sys.argv[1], "wb") as file:
    file.write(data + b"%r\\n" % time.time())
"""

FLOOR_DRIVER = """
import subprocess, sys
shape, count, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def start(number, *sources):
    return subprocess.Popen([sys.executable, "op.py", f"{number}.out", *sources])
if shape == "chain":
    for number in range(count):
        assert start(number, *([f"{number - 1}.out"] if number else [])).wait() == 0
else:
    running = []
    for number in range(count):
        if len(running) == slots:
            assert running.pop(0).wait() == 0
        running.append(start(number))
    assert all(one.wait() == 0 for one in running)
    assert start(count, *[f"{number}.out" for number in range(count)]).wait() == 0
"""


def main(rounds: int, *, small: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        for shape, count in (("chain", CHAIN), ("fan", FAN)):
            write_project(folder / shape, shape, count)
        homes = {start: make_home(folder / f"home-{start}", start) for start in ("fresh", "warm")}
        for shape, count in (("chain", CHAIN), ("fan", FAN)):
            measured = in_turn(
                {
                    "spawn floor": partial(floor, folder, shape, count),
                    **{
                        f"DeepForge, {start}": partial(ours, folder / shape, home, start)
                        for start, home in homes.items()
                    },
                },
                rounds=rounds,
            )
            base = measured["spawn floor"]
            table(
                f"Overhead: {shape} of {count} no-ops, {1 if shape == 'chain' else SLOTS} at a time",
                ["", "ms/op", "x floor", "whole command s"],
                [
                    [
                        label,
                        f"{median([one['ms_per_op'] for one in found]):.1f}",
                        f"{ratio(found, base, 'ms_per_op'):.2f}",
                        f"{median([one['wall_s'] for one in found]):.2f}",
                    ]
                    for label, found in measured.items()
                ],
            )


def floor(folder: Path, shape: str, count: int) -> Measurement:
    place = Path(tempfile.mkdtemp(dir=folder))
    (place / "op.py").write_text(FLOOR_OPERATION)
    (place / "drive.py").write_text(FLOOR_DRIVER)
    began = time.perf_counter()
    run([sys.executable, "drive.py", shape, str(count), str(SLOTS)], clean_environment(), place)
    wall_s = time.perf_counter() - began
    last = count - 1 if shape == "chain" else count
    marks = (place / f"{last}.out").read_text().split()
    shutil.rmtree(place)
    return {"ms_per_op": ms_per_op(marks), "wall_s": wall_s}


def ours(project: Path, home: Path, start: str) -> Measurement:
    environment = clean_environment(DEEPFORGE_HOME=str(home))
    deepforge = Path(sys.executable).with_name("deepforge")
    began = time.perf_counter()
    said = run([deepforge, "run", project, "--compute", start, "--json"], environment)
    wall_s = time.perf_counter() - began
    summary = json.loads(said.splitlines()[-1])
    if summary["status"] != "succeeded":
        raise RuntimeError(f"the pipeline {summary['status']}: {summary}")
    artifact = summary["artifacts"][0]
    name = f"{project.name}/{artifact['name']}@{artifact['version']}"
    place = home / "marks"
    run([deepforge, "artifacts", "get", name, place, "--force"], environment)
    return {"ms_per_op": ms_per_op(read_marks(place)), "wall_s": wall_s}


def read_marks(place: Path) -> list[str]:
    return place.read_text(encoding="ascii").split()


def ms_per_op(marks: list[str]) -> float:
    times = sorted(float(one) for one in marks)
    return (times[-1] - times[0]) / (len(times) - 1) * 1000


def make_home(home: Path, start: str) -> Path:
    deepforge = Path(sys.executable).with_name("deepforge")
    environment = clean_environment(DEEPFORGE_HOME=str(home))
    options = ["--start", start, "--slots", str(SLOTS), "--python", sys.executable]
    run([deepforge, "compute", "add", "server", start, *options], environment)
    return home


def write_project(folder: Path, shape: str, count: int) -> None:
    (folder / "operations").mkdir(parents=True)
    (folder / "pipelines").mkdir()
    (folder / "operations" / "step.py").write_text(OPERATION)
    lines = ["from operations.step import Step", "", "", f"def {shape}():"]
    if shape == "chain":
        for number in range(count):
            source = f"x{number - 1}" if number else ""
            lines.append(f"    x{number} = Step().execute({source})")
        lines.append(f"    return x{count - 1}")
    else:
        lines += [f"    x{number} = Step().execute()" for number in range(count)]
        joined = ", ".join(f"x{number}" for number in range(count))
        lines += [f"    joined = Step().execute({joined})", "    return joined"]
    (folder / "pipelines" / f"{shape}.py").write_text("\n".join(lines) + "\n")
    (folder / "deepforge.toml").write_text(f'name = "{shape}"\n')

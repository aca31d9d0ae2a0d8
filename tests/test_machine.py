from __future__ import annotations

import os
import subprocess
import sys

from deepforge.machine import machine_space, process_is_alive, process_name


def test_every_process_names_this_machine_alike() -> None:
    code = "from deepforge.machine import machine_space; print(machine_space())"
    other = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()

    assert other == machine_space()
    assert other.startswith("host:")


def test_a_process_is_alive_until_it_ends() -> None:
    code = "from deepforge.machine import process_name; print(process_name(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()

        assert process_is_alive(name)

        process.kill()
        process.wait()

        assert not process_is_alive(name)


def test_a_process_of_the_same_number_is_another_one() -> None:
    assert process_is_alive(process_name())
    assert not process_is_alive(f"{os.getpid()}.earlier-boot-1")

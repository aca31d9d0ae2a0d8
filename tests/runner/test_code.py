"""The project's code is unpacked once, and only within its folder."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import pytest

from deepforge.runner import code as code_module
from deepforge.runner.cache import Cache
from deepforge.runner.code import find_code, unpack_code
from deepforge.runner.failures import JobFailed
from deepforge.runner.protocol import Code, Grant
from runner.far_side import FarSide, digest, project


def code_of(data: bytes) -> Code:
    return Code(digest(data), len(data), Grant("file", "GET", path="/nowhere"))


def unpack(tmp_path: Path, data: bytes, cache: Cache | None = None) -> Path:
    archive = tmp_path / "code.zip"
    archive.write_bytes(data)
    return Path(unpack_code(code_of(data), str(archive), str(tmp_path / "job"), cache))


def entry(name: str, mode: int = 0, text: str = "x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        entry("../evil.py"),
        entry("a/../../evil.py"),
        entry("/etc/evil.py"),
        entry("a\\..\\evil.py"),
        entry("a//b.py"),
        entry("link", stat.S_IFLNK | 0o777, "/etc/passwd"),
        entry("pipe", stat.S_IFIFO),
        b"no zip at all",
        entry("a.py")[:-30],
    ],
)
def test_odd_archives_are_refused_and_leave_nothing(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(JobFailed) as caught:
        unpack(tmp_path, data)

    assert "import" == caught.value.failure.kind
    assert ["code.zip"] == [path.name for path in tmp_path.rglob("*") if path.is_file()]


def test_a_bomb_is_refused_by_the_size_it_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_module, "LONGEST_CODE_BYTES", 1000)

    with pytest.raises(JobFailed, match="too much code"):
        unpack(tmp_path, entry("a.py", text="0" * 2000))


def test_ugly_names_are_kept(tmp_path: Path) -> None:
    names = ["operations/größe 🎈.py", 'it\'s "quoted"\n.py', "deep/er/x.py"]

    found = unpack(tmp_path, project(dict.fromkeys(names, "")))

    for name in names:
        assert (found / name).is_file()
    assert (found / "operations" / "__init__.py").is_file()


def test_many_runners_at_once_unpack_one_folder(tmp_path: Path) -> None:
    data = project({f"operations/op{n}.py": "x = 1\n" * 100 for n in range(50)})
    cache = Cache(str(tmp_path / "cache"))
    archive = tmp_path / "code.zip"
    archive.write_bytes(data)
    found: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(unpack_code(code_of(data), str(archive), "", cache))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 6 == len(found)
    assert {find_code(code_of(data), cache)} == set(found)
    assert 1 == len(list((tmp_path / "cache" / "code").iterdir()))


def test_the_second_attempt_needs_no_code_any_more(make_far: object, tmp_path: Path) -> None:
    far = FarSide(tmp_path / "far", "fork")
    job = far.job("class Op:\n    def execute(self): return 1\n")
    assert 0 == far.run(job).code
    far.again()
    (far.store / "code.zip").unlink()

    assert 0 == far.run(job).code


@pytest.mark.parametrize("harm", ["change", "add", "remove"])
def test_code_that_an_operation_wrote_into_is_not_used_again(tmp_path: Path, harm: str) -> None:
    data = entry("operations/step.py", text="result = 1")
    cache = Cache(str(tmp_path / "cache"), 10**9)
    first = unpack(tmp_path, data, cache)
    (first / "operations" / "__pycache__").mkdir()
    (first / "operations" / "__pycache__" / "step.pyc").write_bytes(b"byte code is no harm")

    assert find_code(code_of(data), cache) == str(first)

    file = first / "operations" / "step.py"
    if harm == "change":
        file.write_text("result = 2")
    elif harm == "add":
        (first / "notes.txt").write_text("x")
    else:
        file.unlink()

    assert find_code(code_of(data), cache) is None

    second = unpack(tmp_path, data, cache)

    assert (second / "operations" / "step.py").read_text() == "result = 1"
    assert find_code(code_of(data), cache) == str(second)
    assert first.is_dir()  # somebody may still run from it
    os.utime(first, (0, 0))
    os.utime(second, (0, 0))
    cache.trim()
    assert first.is_dir()
    cache.close()
    Cache(cache.folder, 10**9).trim()
    assert not first.is_dir()


def test_new_code_pushes_out_what_was_not_used_for_long(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"), 1500)
    old = unpack(tmp_path, entry("operations/old.py", text="#" * 1000), cache)
    cache.close()
    os.utime(old, (time.time() - 100,) * 2)

    new = unpack(tmp_path, entry("operations/new.py", text="#" * 1000), cache)

    assert [new] == list((tmp_path / "cache" / "code").iterdir())
    cache.close()


def test_an_executable_file_can_be_executed_by_whoever_may_read_it(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, mode in (("run.sh", 0o755), ("text", 0o644), ("unsaid", 0)):
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = mode << 16
            archive.writestr(info, "#!/bin/sh\necho it ran\n")
    found = unpack(tmp_path, buffer.getvalue())

    modes = {name: stat.S_IMODE((found / name).stat().st_mode) for name in ("run.sh", "text")}
    assert modes["run.sh"] == modes["text"] | (modes["text"] & 0o444) >> 2
    assert not (found / "text").stat().st_mode & 0o111
    assert not (found / "unsaid").stat().st_mode & 0o111
    assert "it ran\n" == subprocess.check_output([found / "run.sh"], text=True)

"""Values become files and come back the same, or somebody is told what to do."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from deepforge import serialization
from deepforge.serialization import SerializationError, dump, full_name, load, register


class Animal:
    def __init__(self, name: str) -> None:
        self.name = name


class Cat(Animal):
    pass


class Odd:
    def __reduce__(self) -> Any:
        raise RuntimeError("not today")


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialization, "_registered", {})


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[object], tuple[str, str, Path]]:
    def store(value: object) -> tuple[str, str, Path]:
        path = tmp_path / "value"
        with path.open("wb") as file:
            return *dump(value, file), path

    return store


def back(type: str, format: str, path: Path) -> Any:
    with path.open("rb") as file:
        return load(type, format, file)


VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    -128,
    -129,
    2**31,
    -(2**63),
    10**1000,
    10**100_000,
    0.0,
    -0.0,
    0.1,
    1e300,
    5e-324,
    math.inf,
    "",
    "hé 🎈",
    "\ud800",
    "x" * 100_000,
    "🎈" * 16_384,
    bytearray(b"\x00\xff."),
    (1, "two", [3.0, {"four": {5}}]),
    frozenset("ab"),
    range(3),
    Path("x"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_plain_values_come_back_and_are_ordinary_pickles(value: object, stored: Any) -> None:
    type_name, format_name, path = stored(value)

    found = back(type_name, format_name, path)
    assert (value, type(value)) == (found, type(found))
    assert (full_name(type(value)), "pickle") == (type_name, format_name)
    assert value == pickle.loads(path.read_bytes())
    if isinstance(value, float):
        assert math.copysign(1, value) == math.copysign(1, found)  # -0.0 is equal to 0.0


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_others_are_read(value: object, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_bytes(pickle.dumps(value, protocol=protocol))

    assert value == back("x", "pickle", path)


@pytest.mark.parametrize("value", [b"", b"\x89PNG\r\n\x1a\n", b"\x00\xff." * 100_000])
def test_bytes_are_stored_as_they_are(value: bytes, stored: Any) -> None:
    """So that a picture that an operation returns is a picture to everybody else."""
    type_name, format_name, path = stored(value)

    assert ("builtins.bytes", "file") == (type_name, format_name)
    assert value == path.read_bytes()
    assert value == back(type_name, format_name, path)


def test_a_file_of_a_users_own_type_is_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(b"content")

    assert b"content" == back("photo", "file", tmp_path / "value")


def test_not_a_number_comes_back(stored: Any) -> None:
    assert math.isnan(back(*stored(math.nan)))


def test_the_same_value_has_the_same_bytes_whether_pickle_is_loaded_or_not(tmp_path: Path) -> None:
    """Results are cached by the digest of these bytes."""
    script = (
        "import sys; from deepforge.serialization import dump; f = open(sys.argv[1], 'wb');"
        "dump({value}, f); f.close(); assert ('_pickle' in sys.modules) == {loaded}"
    )
    for value, loaded in (("'text'", False), ("1.5", False), ("[1]", True)):
        found = []
        for before in ("", "import pickle;"):
            expected = loaded or bool(before)
            code = before + script.format(value=value, loaded=expected)
            subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=True)
            found.append((tmp_path / "x").read_bytes())
        assert found[0] == found[1]


def test_a_registered_class_is_written_by_its_own_function(stored: Any) -> None:
    names: list[str] = []

    def write(animal: Animal, file: BinaryIO) -> None:
        names.append(file.name)
        file.write(animal.name.encode())

    register(Animal, write, lambda file: Animal(file.read().decode()))

    type_name, format_name, path = stored(Animal("Tom"))

    assert (full_name(Animal), "registered", b"Tom") == (
        type_name,
        format_name,
        path.read_bytes(),
    )
    assert [str(path)] == names
    assert "Tom" == back(type_name, format_name, path).name


def test_a_derived_class_uses_its_nearest_registered_base(stored: Any) -> None:
    register(object, lambda *_: None, lambda _: "object")
    register(Animal, lambda value, file: file.write(b"!"), lambda _: "animal")

    type_name, format_name, path = stored(Cat("Tom"))

    assert (full_name(Cat), "registered", b"!") == (type_name, format_name, path.read_bytes())
    assert "animal" == back(type_name, format_name, path)


def test_what_is_registered_goes_before_everything_else(stored: Any) -> None:
    register(int, lambda value, file: file.write(b"int"), lambda _: "mine")

    assert "mine" == back(*stored(3))
    assert 2.5 == back(*stored(2.5))


def test_registering_again_replaces(stored: Any) -> None:
    register(Animal, lambda value, file: file.write(b"1"), lambda _: 1)
    register(Animal, lambda value, file: file.write(b"2"), lambda _: 2)

    assert 2 == back(*stored(Animal("x")))


def test_a_function_may_write_to_the_path_itself(tmp_path: Path) -> None:
    def write(animal: Animal, file: BinaryIO) -> None:
        Path(file.name).write_text(animal.name)

    register(Animal, write, lambda file: Path(file.name).read_text())
    path = tmp_path / "value"
    with path.open("wb") as file:
        type_name, format_name = dump(Animal("Tom"), file)

    assert "Tom" == back(type_name, format_name, path)


@pytest.mark.parametrize("name", ["nowhere.to.be.Found", "pathlib.Path", f"{__name__}.Gone"])
def test_a_type_that_was_registered_only_where_it_was_written(name: str, tmp_path: Path) -> None:
    (tmp_path / "value").touch()

    with pytest.raises(SerializationError) as caught:
        back(name, "registered", tmp_path / "value")

    assert name in caught.value.message
    assert "serializers.py" in (caught.value.hint or "")


@pytest.mark.parametrize("value", [threading.Lock(), lambda: None, Odd(), [Odd()]], ids=str)
def test_what_cannot_be_stored_names_its_type_and_the_cure(value: object, stored: Any) -> None:
    with pytest.raises(SerializationError) as caught:
        stored(value)

    assert full_name(type(value)) in caught.value.message
    assert "register" in (caught.value.hint or "")
    assert caught.value.__cause__ is not None


def test_pickles_that_are_cut_or_of_unknown_types(tmp_path: Path) -> None:
    path = tmp_path / "value"
    for data in (b"", pickle.dumps([1, 2])[:-3], b"cno_module\nThing\n."):
        path.write_bytes(data)
        with pytest.raises(SerializationError, match=r"of type x\.Y cannot be read"):
            back("x.Y", "pickle", path)


def test_a_format_of_a_newer_version(tmp_path: Path) -> None:
    (tmp_path / "value").touch()

    with pytest.raises(SerializationError, match="'arrow'"):
        back("x.Y", "arrow", tmp_path / "value")


def test_errors_of_the_disk_and_of_registered_functions_come_as_they_are(stored: Any) -> None:
    def fails(*_: object) -> None:
        raise KeyError("mine")

    register(Animal, fails, fails)
    with pytest.raises(KeyError, match="mine"):
        stored(Animal("x"))
    with pytest.raises(OSError), open("/dev/full", "wb") as file:
        dump([0] * 10_000, file)


def test_arrays_are_kept_without_pickle(stored: Any) -> None:
    numpy = pytest.importorskip("numpy")
    for array in (
        numpy.arange(6, dtype="int16").reshape(2, 3),
        numpy.asfortranarray(numpy.ones((2, 3))),
        numpy.array(3.5),
        numpy.zeros((0, 4)),
        numpy.array(["a", "bc"]),
        numpy.array([(1, 2.0)], dtype=[("n", "i4"), ("x", "f8")]),
        numpy.array("2026-11-23", dtype="datetime64[D]"),
    ):
        type_name, format_name, path = stored(array)
        found = back(type_name, format_name, path)

        assert ("numpy.ndarray", "npy") == (type_name, format_name)
        assert path.read_bytes().startswith(b"\x93NUMPY")
        assert (array.dtype, array.shape) == (found.dtype, found.shape)
        assert numpy.array_equal(array, found)


def test_arrays_of_objects_and_derived_arrays_are_pickled(stored: Any) -> None:
    numpy = pytest.importorskip("numpy")
    for array in (
        numpy.array([None, {"a": 1}], dtype=object),
        numpy.ma.masked_array([1, 2], mask=[True, False]),
        numpy.float64(2.5),
    ):
        type_name, format_name, path = stored(array)

        assert "pickle" == format_name
        assert type(array) is type(back(type_name, format_name, path))


def test_an_npy_file_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "value.npy"
    numpy.save(path, numpy.array([Odd, None], dtype=object), allow_pickle=True)

    with pytest.raises(ValueError, match="allow_pickle"):
        back("numpy.ndarray", "npy", path)


def test_importing_and_storing_plain_values_loads_nothing_else() -> None:
    script = (
        "import sys; before = set(sys.modules);"
        "from deepforge.serialization import dump, load; import io; f = io.BytesIO();"
        "t = dump('x', f); f.seek(0); assert load(*t, f) == 'x';"
        "print(sorted(set(sys.modules) - before - {'__future__'}))"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )

    assert "['deepforge', 'deepforge.serialization']" == found.stdout.strip()

"""How values become files and come back: registered types, bytes as they are, numpy, pickle.

Standard library only, Python 3.8 or newer: this file travels with the runner. A project says in its
`serializers.py` how values of its own types are kept:

    from deepforge.serialization import register

    register(Model, dump=lambda model, file: model.save(file.name), load=lambda file: read(file.name))
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing costs 10 ms, and a fresh interpreter pays for every operation
if TYPE_CHECKING:
    from typing import Any, BinaryIO, Callable, Dict, Optional, Tuple, Type

    Dump = Callable[[Any, BinaryIO], object]
    Load = Callable[[BinaryIO], Any]

__all__ = ["SerializationError", "dump", "full_name", "load", "register"]

_PICKLE_PROTOCOL = 4  # Python 3.8 reads it

_registered: Dict[str, Tuple[Type[Any], Dump, Load]] = {}


class SerializationError(Exception):
    """A value cannot be stored, or stored bytes cannot be read. Trying again does not help."""

    def __init__(self, message: str, hint: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else "%s\nhint: %s" % (self.message, self.hint)


def register(cls: Type[Any], dump: Dump, load: Load) -> None:
    """Say how values of a class, and of classes derived from it, are written and read.

    `dump(value, file)` and `load(file)` get a real file with a name, opened in binary; they may
    also use the path `file.name` themselves. Registering a class again replaces what was said.
    """
    _registered[full_name(cls)] = (cls, dump, load)


def full_name(cls: Type[Any]) -> str:
    """Return `module.Class`, the text by which a type is known in stored data."""
    return "%s.%s" % (cls.__module__, cls.__qualname__)


def dump(value: Any, file: BinaryIO) -> Tuple[str, str]:
    """Write a value and return its `(type, format)`, which `load` needs to read it.

    The first of these that fits: a registered class (its own, then the nearest base), bytes as they
    are (`file`: a picture stays a picture), a numpy array of plain numbers or texts (`npy`), pickle.
    Raises `SerializationError` naming the type; errors of
    the disk (`OSError`) and of a registered function come as they are.
    """
    cls = type(value)
    name = full_name(cls)
    found = _of_class(cls)
    if found is not None:
        found[0](value, file)
        return name, "registered"
    if cls is bytes:
        file.write(value)
        return name, "file"
    if name == "numpy.ndarray" and not value.dtype.hasobject:
        import numpy

        numpy.save(file, value, allow_pickle=False)
        return name, "npy"
    simple = _SIMPLE.get(cls)
    if simple is None or (cls is str and len(value) > _SIMPLE_LONGEST):
        _pickle(value, file)
    else:
        file.write(b"\x80\x04" + simple(value) + b".")
    return name, "pickle"


def load(type: str, format: str, file: BinaryIO) -> Any:
    """Read the value that `dump` wrote; a file that a user stored (`file`) is its bytes.

    Raises `SerializationError` if nobody knows how.
    """
    if format == "file":
        return file.read()
    if format == "npy":
        import numpy

        return numpy.load(file, allow_pickle=False)
    if format == "pickle":
        return _unpickle(type, file)
    if format == "registered":
        found = _registered.get(type)
        if found is not None:
            return found[2](file)
        inherited = _of_class(_import_class(type))
        if inherited is not None:
            return inherited[1](file)
        raise _unregistered(type)
    raise SerializationError(
        "A value of type %s is kept in the format %r, which this version cannot read."
        % (type, format),
        "Update the server and its workers to the version that wrote it.",
    )


def _of_class(cls: Type[Any]) -> Optional[Tuple[Dump, Load]]:
    if _registered:
        for one in cls.__mro__:
            found = _registered.get(full_name(one))
            if found is not None and found[0] is one:
                return found[1:]
    return None


def _import_class(name: str) -> Type[Any]:
    """Find the class of stored data: a base of it may be registered."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            __import__(module)
            found: Any = sys.modules[module]
            for part in parts[length:]:
                found = getattr(found, part)
        except (ImportError, AttributeError):
            continue
        if isinstance(found, type):
            return found
    raise _unregistered(name)


def _unregistered(name: str) -> SerializationError:
    return SerializationError(
        "A value of type %s was stored by a registered function, and none is registered here."
        % name,
        "Put deepforge.serialization.register(%s, dump, load) in serializers.py of this project."
        % name.rpartition(".")[2],
    )


def _pickle(value: Any, file: BinaryIO) -> None:
    try:
        _pickler().dump(value, file, protocol=_PICKLE_PROTOCOL)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # anything may come from the methods of the value
        name = full_name(type(value))
        raise SerializationError(
            "A value of type %s cannot be stored: %s: %s" % (name, type(error).__name__, error),
            "Return something that pickle can write, or put"
            " deepforge.serialization.register(%s, dump, load) in serializers.py."
            % name.rpartition(".")[2],
        ) from error


def _unpickle(name: str, file: BinaryIO) -> Any:
    start = file.tell()
    simple = _read_simple(file.read(4 * _SIMPLE_LONGEST))
    if simple is not None:
        return simple[0]
    file.seek(start)
    try:
        return _pickler().load(file)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        missing = isinstance(error, (ImportError, AttributeError))
        raise SerializationError(
            "A value of type %s cannot be read: %s: %s" % (name, type(error).__name__, error),
            "The code that defines the type must be the same here as where the value was stored."
            if missing
            else None,
        ) from error


def _pickler() -> Any:
    """The C half of pickle: the Python half costs another 8 ms and adds nothing here."""
    try:
        import _pickle as pickler
    except ImportError:
        import pickle as pickler  # type: ignore[no-redef]
    return pickler


# Single numbers and texts are what small operations pass on. They are written and read here
# as the few bytes that pickle knows, because importing pickle costs a quarter of a bare interpreter.

_SIMPLE_LONGEST = 16 * 1024


def _simple_int(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() >> 3) + 1, "little", signed=True)
    if len(data) < 256:
        return b"\x8a" + bytes((len(data),)) + data
    return b"\x8b" + len(data).to_bytes(4, "little") + data


def _simple_str(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"\x8d" + len(data).to_bytes(8, "little") + data


_SIMPLE: Dict[Type[Any], Callable[[Any], bytes]] = {
    type(None): lambda value: b"N",
    bool: lambda value: b"\x88" if value else b"\x89",
    int: _simple_int,
    float: lambda value: b"F%a\n" % value,
    str: _simple_str,
}


def _read_simple(data: bytes) -> Optional[Tuple[Any]]:
    """Read what `_SIMPLE` wrote, in a tuple; None for anything else."""
    if data[:2] != b"\x80\x04" or data[-1:] != b".":
        return None
    kind, rest = data[2:3], data[3:-1]
    if kind in (b"N", b"\x88", b"\x89") and not rest:
        return ({b"N": None, b"\x88": True, b"\x89": False}[kind],)
    if kind == b"\x8a" and rest and rest[0] == len(rest) - 1:
        return (int.from_bytes(rest[1:], "little", signed=True),)
    if kind == b"F" and rest[-1:] == b"\n" and len(rest) < 30:
        return (float(rest),)
    if kind == b"\x8d" and int.from_bytes(rest[:8], "little") == len(rest) - 8:
        return (rest[8:].decode("utf-8", "surrogatepass"),)
    return None

"""The process that runs an operation: everything here happens beside the user's code.

A fresh interpreter imports this file and pays for every import of it, so it has next to none. It
speaks with the runner in plain values: what to do comes in by `marshal`, what became of it goes out
as JSON, since user code could write it, too.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple

    Spec = Dict[str, Any]
    Report = Dict[str, Any]

# What is printed, line by line as on a terminal, so that lines of several processes do not mix.
ENCODING = "utf-8"
ERRORS = "backslashreplace"

# Descriptors out of the way of those that user code opens, or writes to by their number:
REPORT = 64  # where the report is written to
LIFE = 65  # a pipe that nobody writes to; the runner has its other end

_LONGEST_TEXT = 200_000  # of a traceback or message

_ESCAPES = {number: "\\u%04x" % number for number in [*range(32), 34, 92]}  # in JSON


def main() -> NoReturn:
    """Run what standard input says in this fresh interpreter, report, and end the process."""
    os.setsid()
    for number in (REPORT, LIFE):
        os.set_inheritable(number, False)
    watch_life()
    end_with_runner()
    order = b""
    while True:
        data = os.read(0, 65536)
        if not data:
            break
        order += data
    os.environ["PYTHONUNBUFFERED"] = "1"  # for interpreters that the operation starts
    get_ready()
    run_and_leave(take(order))


def order(spec: Spec) -> bytes:
    """Spell what is to be done. Every Python reads this version of the format."""
    return marshal.dumps(spec, 2)


def take(order: bytes) -> Spec:
    """Read what to do, and go where the operation works. Standard input is nothing from now on."""
    spec: Spec = marshal.loads(order)
    if len(spec) == 1:  # where it is: it was too long
        with open(spec["path"], "rb") as file:
            spec = marshal.load(file)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.chdir(spec["work"])
    return spec


def get_ready() -> None:
    """Let the user's own choice of packages come first, print line by line, and explain crashes."""
    import faulthandler

    support = sys.path.pop(0)  # whoever started this interpreter has put it there
    sys.path.append(support)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding=ENCODING, errors=ERRORS, line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()  # a crash in native code names the line of Python that led there


def watch_life() -> None:
    """Have a process killed when the runner's end of a pipe closes, however that comes about.

    Which one says `end_with_runner`. Only Linux can do that.
    """
    import fcntl

    if hasattr(fcntl, "F_SETSIG"):
        try:
            fcntl.fcntl(LIFE, fcntl.F_SETSIG, 9)
            fcntl.fcntl(LIFE, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        except OSError:
            pass  # a system that only looks like Linux


def end_with_runner() -> None:
    """From now on this process ends with the runner, where that can be done; see `watch_life`."""
    import fcntl

    if hasattr(fcntl, "F_SETSIG"):
        try:
            fcntl.fcntl(LIFE, fcntl.F_SETOWN, os.getpid())
            if not os.read(LIFE, 1):
                os._exit(1)  # it has closed already
        except OSError:
            pass  # there is nothing to read, as it should be


def run_and_leave(spec: Spec) -> NoReturn:
    """Run the operation, write the report, end the process as an interpreter does."""
    sys.argv = [spec["file"]]
    sys.path[:] = [spec["code"], *(entry for entry in sys.path if entry)]
    pipe = os.fstat(REPORT)
    report = run(spec)
    write_report(spec["report"], report, pipe)
    _leave(0 if report["failure"] is None else 1)


def write_report(path: str, report: Report, pipe: Optional[os.stat_result] = None) -> None:
    """Give the report to the runner: through its pipe, or in a file if user code closed that."""
    data = (_json(report) + "\n").encode("utf-8", "backslashreplace")
    try:
        if pipe is None or os.path.samestat(pipe, os.fstat(REPORT)):
            while data:
                data = data[os.write(REPORT, data) :]
            os.close(REPORT)
            return
    except OSError:
        pass
    with open(path, "wb") as file:
        file.write(data)


def _json(value: Any) -> str:
    """As `json.dumps`, which would take longer to import than to do."""
    if isinstance(value, str):
        return '"%s"' % str.translate(value, _ESCAPES)
    if isinstance(value, dict):
        return "{%s}" % ",".join("%s:%s" % (_json(name), _json(value[name])) for name in value)
    if isinstance(value, (list, tuple)):
        return "[%s]" % ",".join(map(_json, value))
    return "null" if value is None else "%d" % value


def run(spec: Spec) -> Report:
    """Run the operation. The report has its outputs (name, type, format) or its failure."""
    report: Report = {
        "outputs": [],
        "failure": None,
        "python": "%d.%d.%d" % sys.version_info[:3],
    }
    kind = "import"
    try:
        from deepforge import serialization

        if os.path.exists(os.path.join(spec["code"], "serializers.py")):
            __import__("serializers")
        cls = _find(spec["module"], spec["name"])
        attributes: Dict[str, Any] = {}
        for name, literal, module, function, arguments in spec["arguments"]:
            if module is None:
                attributes[name] = _literal(literal)
            else:
                kind = "import"
                make = _find(module, function)
                kind = "exception"
                attributes[name] = make(**{key: _literal(text) for key, text in arguments.items()})
        kind = "exception"
        operation = cls(**attributes)
        kind = "input"
        named, parts = _load_inputs(spec["inputs"], serialization)
        kind = "exception"
        method = operation.execute
        value = method(*_positional(method, named, parts), *parts, **named)
        del named, parts
        kind = "outputs"
        values = _split(value, spec["outputs"], spec["name"])
        kind = "serialization"
        for (name, path), one in zip(spec["outputs"], values):
            with open(path, "wb") as file:
                type_name, format_name = serialization.dump(one, file)
            report["outputs"].append((name, type_name, format_name))
    except BaseException as error:  # whatever it is, it becomes the report
        report["failure"] = _failure(kind, error, spec)
    return report


class _Wrong(Exception):
    """Something about the operation that has no traceback."""


def _find(module: str, name: str) -> Any:
    __import__(module)
    found = getattr(sys.modules[module], name, None)
    if found is None:
        raise _Wrong("%s.py has no %s." % (module.replace(".", "/"), name))
    return found


def _literal(text: str) -> Any:
    return eval(text.strip(), {"__builtins__": {}, "set": set})


def _load_inputs(
    inputs: Sequence[Tuple[str, Optional[int], Optional[str], str, str]], serialization: Any
) -> Tuple[Dict[str, Any], List[Any]]:
    named: Dict[str, Any] = {}
    parts: Dict[int, Any] = {}
    for name, position, path, type_name, format_name in inputs:
        value = None
        if path is not None:
            with open(path, "rb") as file:
                try:
                    value = serialization.load(type_name, format_name, file)
                except Exception as error:
                    error.deepforge_input = name  # type: ignore[attr-defined]
                    raise
        if position is None:
            named[name] = value
        else:
            parts[position] = value
    return named, [parts[position] for position in sorted(parts)]


def _positional(method: Any, named: Dict[str, Any], parts: List[Any]) -> List[Any]:
    """Take out of `named` what must go by position: what stands before `*parts`, or before `/`."""
    code = getattr(getattr(method, "__func__", None), "__code__", None)
    if code is None:
        return []
    count = code.co_argcount if parts else code.co_posonlyargcount
    found = []
    for name in code.co_varnames[1:count]:
        if name not in named:
            break
        found.append(named.pop(name))
    return found


def _split(value: Any, outputs: Sequence[Tuple[str, str]], name: str) -> Sequence[Any]:
    if len(outputs) == 1:
        return (value,)
    if not outputs:
        return ()
    if isinstance(value, (tuple, list)):
        count, said = len(value), "%d values" % len(value) if len(value) != 1 else "1 value"
    else:
        count, said = 1, "1 value" if value is not None else "None"
    if count != len(outputs) or not isinstance(value, (tuple, list)):
        raise _Wrong(
            "%s.execute returned %s, but %d outputs are declared: %s."
            % (name, said, len(outputs), ", ".join(one for one, _ in outputs))
        )
    return value


def _failure(kind: str, error: BaseException, spec: Spec) -> Dict[str, Any]:
    import traceback

    place = spec["code"] + os.sep
    _strip(error, set())
    file, line = _innermost(error, place)
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        last = "".join(traceback.format_exception_only(type(error), error)).strip()
    except Exception as second:  # an exception that cannot even be shown
        text = last = "%s (and showing it failed: %r)" % (type(error).__name__, second)
    text = _cut(text.replace('File "%s' % place, 'File "'))
    message, hint, code = _cut(last.replace('File "%s' % place, 'File "')), None, None
    if isinstance(error, _Wrong):
        message, text = str(error), ""
        file = file or spec["file"]
    elif isinstance(error, SystemExit) and kind != "serialization":
        kind = "exit"
        code = _exit_code(error.code)
        message = "%s ended the process with sys.exit(%r)." % (spec["name"], error.code)
        hint = "Return from execute instead; raise an exception to fail."
    elif isinstance(error, SyntaxError) and (error.filename or "").startswith(place):
        file, line = (error.filename or "")[len(place) :], error.lineno
    elif isinstance(error, ModuleNotFoundError) and kind == "import":
        hint = _missing(error.name or "", spec["code"])
    elif isinstance(error, OSError) and kind == "serialization":
        import errno

        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            kind = "storage_full"
            message = "There is no room left on this machine to write the outputs: %s" % last
            hint = "Free some space there, or choose another compute."
    if isinstance(error, _serialization_errors()):
        message, hint = error.message, error.hint
    if kind == "input":
        message = "Input %s cannot be loaded: %s" % (
            getattr(error, "deepforge_input", "?"),
            message,
        )
    if text:
        _print(text)
    else:
        _print(message + "\n")
    return {
        "kind": kind,
        "message": message,
        "type": "%s.%s" % (type(error).__module__, type(error).__qualname__) if text else None,
        "traceback": text or None,
        "file": file,
        "line": line,
        "exit_code": code,
        "hint": hint,
    }


def _strip(error: Optional[BaseException], seen: set[int]) -> None:
    """Take our own frames off the front of a traceback and of those it is chained to."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    trace = error.__traceback__
    modules = (sys.modules[__name__], sys.modules.get("deepforge.serialization"))
    ours = [getattr(module, "__file__", None) for module in modules]
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    error.__traceback__ = trace
    _strip(error.__cause__, seen)
    _strip(error.__context__, seen)


def _innermost(error: BaseException, place: str) -> Tuple[Optional[str], Optional[int]]:
    file: Optional[str] = None
    line: Optional[int] = None
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(place):
            file, line = name[len(place) :], trace.tb_lineno
        trace = trace.tb_next
    return file, line


def _serialization_errors() -> Tuple[Any, ...]:
    module = sys.modules.get("deepforge.serialization")
    return () if module is None else (module.SerializationError,)


def _missing(name: str, code: str) -> str:
    top = name.partition(".")[0]
    if os.path.exists(os.path.join(code, top)) or os.path.exists(os.path.join(code, top + ".py")):
        return "The project has %s, but not this part of it." % top
    return "%s is not installed for %s. Install it there, or name it in requirements.txt." % (
        top,
        sys.executable,
    )


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _cut(text: str) -> str:
    """What fits into a document: not endless, and no half characters."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= _LONGEST_TEXT:
        return text
    half = _LONGEST_TEXT // 2
    return "%s\n… %d characters left out …\n%s" % (
        text[:half],
        len(text) - 2 * half,
        text[-half:],
    )


def _print(text: str) -> None:
    try:
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception:  # the operation closed its own stderr: the report has the text too
        pass


def _leave(code: int) -> NoReturn:
    """End as an interpreter does: wait for threads, run exit functions, flush; but take no time."""
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        import atexit

        atexit._run_exitfuncs()
    except BaseException:
        code = code or 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    os._exit(code)

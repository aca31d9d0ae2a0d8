"""Runs one job inside SciServer: `__main__.py` of the archive that is handed over.

Standard library only, in words that Python 3.5 understands: an image that is too old can say so.
Everything lies in the archive's folder, which our server sees too:

    work/         made once, exclusively: of two jobs for one archive's folder only the first runs
    output.txt    all that the command prints, errors among it
    exit.json     written last and at once: how it ended
"""

import json
import os
import signal
import subprocess
import sys
import zipfile
from typing import Any, BinaryIO, Dict, List, Optional, Tuple

NEEDED = (3, 8)
GRACE_S = 20.0
"""How long a command may take to end by itself before it is killed."""

PYTHON = "{python}"


def main(archive: str) -> int:
    """Run the archive's command; return how it ended. What it left running ends with its container."""
    folder = os.path.dirname(archive)
    work = os.path.join(folder, "work")
    try:
        os.mkdir(work)
    except FileExistsError:
        print("This job was begun before, by another one of the same name: nothing to do.")
        return 0
    output = os.path.join(folder, "output.txt")
    print("DeepForge job. What it prints is in %s" % output)
    sys.stdout.flush()
    if sys.version_info < NEEDED:
        record = refusal("its Python is %d.%d; 3.8 or newer is needed" % sys.version_info[:2])
    else:
        try:
            command, walltime_s = unpack(archive, work)
            with open(output, "ab", buffering=0) as printed:
                record = run(command, walltime_s, work, printed)
        except OSError as error:
            record = refusal("the job could not be begun: %s" % error)
    save(record, os.path.join(folder, "exit.json"))
    code = int(record["exit_code"])
    return code if 0 <= code < 128 else 1


def unpack(archive: str, work: str) -> Tuple[List[bytes], Optional[float]]:
    """Put the files into the folder; return the command and its time limit."""
    with zipfile.ZipFile(archive) as packed:
        request = json.loads(packed.read("request.json").decode("utf-8"))
        for name, member in request["files"]:
            path = os.path.join(os.fsencode(work), name.encode("utf-8"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(packed.read(member))
    words = [sys.executable if word == PYTHON else word for word in request["command"]]
    return [word.encode("utf-8", "surrogateescape") for word in words], request["walltime_s"]


def run(
    command: List[bytes], walltime_s: Optional[float], work: str, printed: BinaryIO
) -> Dict[str, Any]:
    """Run the command to its end, or to its time limit."""
    try:
        process = subprocess.Popen(
            command, cwd=work, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed
        )
    except OSError as error:
        printed.write(("%s\n" % error).encode("utf-8", "replace"))
        return {"exit_code": 127, "reason": "normal", "message": str(error)}
    signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    reason = None
    try:
        code = process.wait(walltime_s)
    except subprocess.TimeoutExpired:
        reason = "walltime"
        process.terminate()
        try:
            code = process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        code = code or -signal.SIGTERM  # it ended as if nothing were the matter
    return {
        "exit_code": int(code),
        "reason": reason or ("signal" if code < 0 else "normal"),
        "message": None,
    }


def refusal(text: str) -> Dict[str, Any]:
    return {"exit_code": 126, "reason": "normal", "message": text}


def save(record: Dict[str, Any], path: str) -> None:
    with open(path + ".part", "w") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".part", path)


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(sys.argv[0])))

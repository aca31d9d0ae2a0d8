"""The whole round of a client that we did not write, as a program of its own environment.

    python foreign_round.py URL TOKEN FOLDER

It prints one JSON object: what every call gave. FOLDER is for local files.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

NOTEBOOK = {"cells": [{"cell_type": "code", "source": ["print('from', ", "'a notebook')"]}]}


def main(url: str, token: str, folder: Path) -> dict[str, Any]:
    authentication: Any = importlib.import_module("SciServerApi.Authentication")
    files: Any = importlib.import_module("SciServerApi.Files")
    jobs: Any = importlib.import_module("SciServerApi.Jobs")
    authentication.keyToken = token
    files.RacmApiURL = jobs.RacmApiURL = f"{url}/racm"

    told: dict[str, Any] = {}
    service = files.getFileServiceFromName("FileServiceJHU")
    roots = [root["name"] for root in service["rootVolumes"]]
    told["roots"] = roots
    base = "Storage/alice/persistent/round"
    files.createDir(service, base)
    files.createDir(service, base)  # quietly
    _round_of_a_file(files, service, base, folder, told)

    domain = jobs.getDockerComputeDomainFromName("Small Jobs Domain")
    image = domain["images"][0]["name"]
    volumes = [
        {"name": one["name"], "rootVolumeName": one["rootVolumeName"], "owner": one["owner"]}
        for one in domain["userVolumes"]
    ]
    data = [{"name": one["name"]} for one in domain["volumes"]]
    shell = jobs.submitShellCommandJob(
        "echo out; echo err >&2", domain, image, volumes, data, jobAlias="shell"
    )
    told["shell"] = _ended(jobs, shell)
    told["stdout"] = _content(files, service, told["shell"], folder)

    notebook = folder / "round.ipynb"
    notebook.write_text(json.dumps(NOTEBOOK))
    files.upload(service, f"{base}/round.ipynb", str(notebook))
    at = f"/home/idies/workspace/{base}/round.ipynb"
    number = jobs.submitNotebookJob(at, domain, image, volumes, data, "", "a=1", "notebook")
    told["notebook"] = _ended(jobs, number)
    told["notebook_stdout"] = _content(files, service, told["notebook"], folder)

    long = jobs.submitShellCommandJob("sleep 300", domain, image, [], [], jobAlias="long")
    jobs.cancelJob(long)
    told["canceled"] = _ended(jobs, long)
    told["listed"] = [one["submitterDID"] for one in jobs.getJobsList(top=3)]

    files.delete(service, base)
    told["after"] = _names(files.dirList(service, "Storage/alice/persistent", level=2))
    try:
        files.dirList(service, base, level=2)
    except Exception as error:  # it raises nothing narrower
        told["error"] = str(error)
    authentication.keyToken = "gAAAAAwrong"
    try:
        jobs.getJobsList()
    except Exception as error:
        told["unauthenticated"] = str(error)
    return told


def _round_of_a_file(files: Any, service: Any, base: str, folder: Path, told: Any) -> None:
    source, back, none = folder / "source", folder / "back", folder / "none"
    source.write_bytes(bytes(range(256)) * 5000)
    files.upload(service, f"{base}/data.bin", str(source))
    files.download(service, f"{base}/data.bin", str(back))
    told["same"] = source.read_bytes() == back.read_bytes()
    told["names"] = _names(files.dirList(service, base, level=2))
    files.delete(service, f"{base}/data.bin")
    files.download(service, f"{base}/data.bin", str(none))
    told["missing"] = none.read_bytes().decode()


def _names(listing: Any) -> list[str]:
    return sorted(one["name"] for one in listing["root"]["files"] + listing["root"]["folders"])


def _ended(jobs: Any, number: int) -> Any:
    deadline = time.monotonic() + 60
    while (job := jobs.getJobDescription(number))["status"] < 32:
        if time.monotonic() > deadline:
            raise TimeoutError(f"job {number} is still {job['status']}")
        time.sleep(0.05)
    return job


def _content(files: Any, service: Any, job: Any, folder: Path) -> str:
    path = job["resultsFolderURI"].removeprefix("/home/idies/workspace/").strip("/")
    files.download(service, f"{path}/stdout.txt", str(folder / "stdout"))
    return (folder / "stdout").read_text()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))

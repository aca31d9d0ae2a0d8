"""A real git repository made of what a project's history keeps, for the git CLI to judge."""

from __future__ import annotations

import os
import subprocess
import zlib
from pathlib import Path

from deepforge.documents.port import DocumentStore
from deepforge.projects.history import History
from deepforge.projects.objects import object_sha

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "HOME": os.devnull,
}


def git(folder: Path, *arguments: str) -> str:
    """Run git without any configuration of this machine and return what it prints."""
    done = subprocess.run(
        ["git", "-c", "core.quotepath=off", "-c", "init.defaultBranch=main", *arguments],
        cwd=folder,
        env=_ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return (done.stdout + done.stderr).decode()


async def export(documents: DocumentStore, project: str, folder: Path) -> Path:
    """Write all objects of a project as loose objects, its main branch as a ref."""
    bare = folder / "exported.git"
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "--bare", str(bare))
    for found in await documents.find("objects"):
        owner, sha, *part = found.id.split(":")
        if owner != project or part:
            continue
        stream = (await documents.get("objects", found.id)).data
        if stream is None:
            stream = b""
            for number in range(found.body["parts"]):
                one = f"{found.id}:{found.body['stream']}:{number}"
                stream += (await documents.get("objects", one)).data or b""
        content = zlib.decompress(stream)
        assert found.body["size"] == len(content)
        assert object_sha(found.body["type"], content) == sha
        header = f"{found.body['type']} {found.body['size']}\0".encode()
        place = bare / "objects" / sha[:2] / sha[2:]
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(zlib.compress(header + content, 1))
    head = await History(documents).head(project)
    if head is not None:
        git(bare, "update-ref", "refs/heads/main", head)
    return bare

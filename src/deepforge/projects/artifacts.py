"""Artifacts kept: the next version of a name, and finding one by what a person types."""

from __future__ import annotations

import builtins
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from deepforge.documents.port import Collection, Document, DocumentStore, Draft, Scalar
from deepforge.errors import AlreadyExists, Conflict, Corrupt, InvalidRequest, NotFound
from deepforge.ids import new_id, utc_now
from deepforge.projects.model import Artifact, checked_name
from deepforge.projects.store import PROJECTS
from deepforge.storage.port import ObjectRef

SHARED = "shared:"
"""The space of a user's artifacts that belong to no project is this and the user's name; any other
space is a project's id."""

ARTIFACTS = Collection(
    "artifacts",
    unique=(("space", "name", "version"), ("origin",)),
    indexes=(("space",), ("owner",), ("name",)),
)
# One small document for each name, made before its first version: names are listed and compared
# without reading versions. A crash in between leaves a name without versions, which is passed over.
NAMES = Collection("artifact_names", indexes=(("space",), ("owner", "name")))
COLLECTIONS = (ARTIFACTS, NAMES)

_TRIES = 1000
_MOST_NAMES = 1000
_COUNTED_AT_ONCE = 1000


@dataclass(frozen=True)
class ArtifactName:
    """What a person types: `NAME`, `NAME@version`, `PROJECT/NAME` or `PROJECT/NAME@version`."""

    name: str
    version: int | None = None
    project: str | None = None

    @classmethod
    def read(cls, text: str) -> ArtifactName:
        """Raises `InvalidRequest` for anything else."""
        project, slash, rest = text.rpartition("/")
        name, at, version = rest.partition("@")
        if at and re.fullmatch(r"v?[1-9][0-9]{0,17}", version, re.ASCII) is None:
            raise InvalidRequest(
                f"{version!r} in {text!r} is not a version", hint="versions are 1, 2, 3, …"
            )
        return cls(
            checked_name(name, "an artifact"),
            int(version.removeprefix("v")) if at else None,
            checked_name(project, "a project") if slash else None,
        )


class Artifacts:
    """Add and find artifacts. They never change and are never renamed; a digest that is not known
    is learnt when the data are first read."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    async def add(
        self,
        *,
        project: str | None,
        name: str,
        type: str,
        format: str,
        ref: ObjectRef,
        owner: str,
        provenance: Mapping[str, Any] | None = None,
        origin: str | None = None,
    ) -> Artifact:
        """Keep an artifact as the next version of its name, however many race for it.

        `project` is the id of one of the owner's projects, None for an artifact that all of them share.
        A second add with the same `origin`,
        a text that tells where the data came from, changes nothing and returns the first artifact.
        Raises `InvalidRequest` for a name that is not allowed.
        """
        space = project or f"{SHARED}{owner}"
        name = checked_name(name, "an artifact")
        for _ in range(_TRIES):
            first = await self._from_origin(origin)
            if first is not None:
                return first
            latest = await self._latest(space, name)
            if latest is None:
                naming = {"space": space, "owner": owner, "name": name}
                await self._documents.insert_missing(NAMES.name, [Draft(f"{space}:{name}", naming)])
            body = {
                "space": space,
                "name": name,
                "version": 1 if latest is None else latest.version + 1,
                "type": type,
                "format": format,
                "ref": asdict(ref),
                "owner": owner,
                "created_at": utc_now(),
                "provenance": dict(provenance or {}),
                "origin": origin,
            }
            try:
                return _artifact(await self._documents.insert(ARTIFACTS.name, new_id(), body))
            except AlreadyExists:
                continue  # somebody took the version, or was here with our origin
        raise Conflict(f"artifact {name!r} got {_TRIES} versions while one was added; try again")

    async def get(self, id: str) -> Artifact:
        """Raises `NotFound`."""
        try:
            return _artifact(await self._documents.get(ARTIFACTS.name, id))
        except NotFound as error:
            raise NotFound(f"there is no artifact with the id {id!r}") from error

    async def learn(self, id: str, *, size_bytes: int, digest: str) -> Artifact:
        """Say what the data were when they were read; the first to do so for an import fixes it.

        Safe to repeat; whoever reads the same learns the same. Raises `Corrupt` if the data were
        others before: they were replaced under the artifact. Raises `NotFound`.
        """
        while True:
            document = await self._documents.get(ARTIFACTS.name, id)
            known = _artifact(document)
            if (size_bytes, digest) == (known.ref.size_bytes, known.ref.digest):
                return known
            if known.ref.digest is not None or size_bytes != known.ref.size_bytes:
                raise _replaced(known, f"{size_bytes} bytes with digest {digest}")
            body = {**document.body, "ref": asdict(replace(known.ref, digest=digest))}
            try:
                return _artifact(
                    await self._documents.replace(
                        ARTIFACTS.name, id, body, if_revision=document.revision
                    )
                )
            except Conflict:
                continue  # somebody learnt it meanwhile

    async def resolve(self, text: str, *, owner: str, project: str | None = None) -> Artifact:
        """Find what the owner means by `NAME`, `NAME@version` or `PROJECT/NAME[@version]`.

        A plain name is looked for in `project` (the id of one of the owner's), then among the shared
        artifacts; without a project, among the shared ones, then in all projects if only one has it.
        The first place that knows the name decides; without a version its latest counts. What others
        own is not there. Raises `NotFound` with similar names as a hint, and `InvalidRequest` listing
        the candidates when several projects fit.
        """
        asked = ArtifactName.read(text)
        shared = f"{SHARED}{owner}"
        if asked.project is not None:
            nearby = await self._spaces_called(asked.project, owner)
            found = await self._latest_in(nearby, asked.name)
        else:
            nearby = [shared] if project is None else [project, shared]
            found = (await self._latest_in(nearby, asked.name))[:1]
            if not found and project is None:
                found = await self._latest_in(
                    await self._spaces_with(asked.name, owner), asked.name
                )
        if not found:
            raise await self._unknown(text, asked.name, nearby, owner)
        if len(found) > 1:
            raise await self._ambiguous(text, found)
        return await self._version(found[0], asked.version)

    async def list(
        self,
        *,
        project: str | None = None,
        name: str | None = None,
        owner: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> builtins.list[Artifact]:
        """List artifacts, newest first, of one project, name or owner, or all.

        `after` is the id of the last artifact of the page before.
        """
        asked = {"space": project, "name": name, "owner": owner}
        found = await self._documents.find(
            ARTIFACTS.name,
            {field: value for field, value in asked.items() if value is not None},
            descending=True,
            after=None if after is None else Document(after, 0, {}),
            limit=limit,
        )
        return [_artifact(one) for one in found]

    async def count_in(self, storage: str, *, owner: str) -> int:
        """How many artifacts of an owner lie in their storage of this name. Reads them all."""
        count, after = 0, None
        while found := await self.list(owner=owner, after=after, limit=_COUNTED_AT_ONCE):
            count += sum(one.ref.storage == storage for one in found)
            after = found[-1].id
        return count

    async def _from_origin(self, origin: str | None) -> Artifact | None:
        if origin is None:
            return None
        found = await self._documents.find(ARTIFACTS.name, {"origin": origin}, limit=1)
        return _artifact(found[0]) if found else None

    async def _latest(self, space: str, name: str) -> Artifact | None:
        equal = {"space": space, "name": name}
        found = await self._documents.find(
            ARTIFACTS.name, equal, sort="version", descending=True, limit=1
        )
        return _artifact(found[0]) if found else None

    async def _latest_in(self, spaces: Sequence[str], name: str) -> builtins.list[Artifact]:
        latest = [await self._latest(space, name) for space in spaces]
        return [one for one in latest if one is not None]

    async def _version(self, latest: Artifact, version: int | None) -> Artifact:
        if version in (None, latest.version):
            return latest
        space = latest.project or f"{SHARED}{latest.owner}"
        equal: dict[str, Scalar] = {"space": space, "name": latest.name, "version": version}
        found = await self._documents.find(ARTIFACTS.name, equal, limit=1)
        if not found:
            raise NotFound(
                f"artifact {latest.name!r} has no version {version}",
                hint=f"its latest version is {latest.version}",
            )
        return _artifact(found[0])

    async def _spaces_called(self, project: str, owner: str) -> builtins.list[str]:
        """The owner's project of that name, else the one with that id."""
        found = await self._documents.find(PROJECTS.name, {"owner": owner, "name": project})
        if not found:
            found = await self._documents.get_many(PROJECTS.name, [project])
        if not found or found[0].body["owner"] != owner:
            raise NotFound(f"there is no project {project!r}")
        return [one.id for one in found]

    async def _spaces_with(self, name: str, owner: str) -> builtins.list[str]:
        found = await self._documents.find(NAMES.name, {"owner": owner, "name": name})
        return [one.body["space"] for one in found]

    async def _ambiguous(self, text: str, found: Sequence[Artifact]) -> InvalidRequest:
        name = found[0].name
        places = [await self._label(one.project or SHARED, name) for one in found]
        return InvalidRequest(
            f"{text!r} may mean several artifacts", hint=f"say which: {', '.join(sorted(places))}"
        )

    async def _unknown(self, text: str, name: str, nearby: Sequence[str], owner: str) -> NotFound:
        known = await self._documents.find(NAMES.name, {"owner": owner, "name": name}, limit=10)
        for space in nearby:
            known += await self._documents.find(NAMES.name, {"space": space}, limit=_MOST_NAMES)
        known += await self._documents.find(NAMES.name, {"owner": owner}, limit=_MOST_NAMES)
        places: dict[str, str] = {}
        for one in known:
            places.setdefault(one.body["name"], one.body["space"])
        close = difflib.get_close_matches(name, places, n=3)
        near = [
            one
            if places[one] in nearby and "/" not in text
            else await self._label(places[one], one)
            for one in close
        ]
        return NotFound(
            f"there is no artifact {text!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else "see: deepforge artifacts list",
        )

    async def _label(self, space: str, name: str) -> str:
        projects = await self._documents.get_many(PROJECTS.name, [space])
        return f"{projects[0].body['name']}/{name}" if projects else name


def _replaced(artifact: Artifact, found: str) -> Corrupt:
    ref = artifact.ref
    expected = f"{ref.size_bytes} bytes" + (f" with digest {ref.digest}" if ref.digest else "")
    return Corrupt(
        f"artifact {artifact.name}@{artifact.version} is not what it was: object {ref.key!r} in"
        f" {ref.storage!r} had {expected}, and has {found}",
        expected=expected,
        found=found,
        hint="put the old object back, or name the new one:"
        f" deepforge artifacts import {artifact.name} --storage {ref.storage} --key {ref.key}",
    )


def _artifact(document: Document) -> Artifact:
    body = document.body
    return Artifact(
        id=document.id,
        project=None if body["space"].startswith(SHARED) else body["space"],
        name=body["name"],
        version=body["version"],
        type=body["type"],
        format=body["format"],
        ref=ObjectRef(**body["ref"]),
        owner=body["owner"],
        created_at=body["created_at"],
        provenance=body["provenance"],
    )

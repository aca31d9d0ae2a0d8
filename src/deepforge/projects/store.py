"""Projects kept: who owns which, under which name."""

from __future__ import annotations

from deepforge.documents.port import Collection, Document, DocumentStore
from deepforge.errors import AlreadyExists, NotFound
from deepforge.ids import new_id, utc_now
from deepforge.projects.model import Project, checked_name

PROJECTS = Collection("projects", unique=(("owner", "name"),), indexes=(("name",),))
COLLECTIONS = (PROJECTS,)


class Projects:
    """Create and find projects. Names are unique for one owner."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    async def create(self, owner: str, name: str) -> Project:
        """Make a project. Raises `AlreadyExists`, and `InvalidRequest` for a name not allowed."""
        name = checked_name(name, "a project")
        body = {"owner": owner, "name": name, "created_at": utc_now()}
        try:
            return _project(await self._documents.insert(PROJECTS.name, new_id(), body))
        except AlreadyExists as error:
            raise AlreadyExists(f"there is a project {name!r} already") from error

    async def create_or_get(self, owner: str, name: str) -> Project:
        """Return the owner's project of that name, made now if need be. Safe to repeat and race."""
        try:
            return await self.find(owner, name)
        except NotFound:
            pass
        try:
            return await self.create(owner, name)
        except AlreadyExists:
            return await self.find(owner, name)

    async def get(self, id: str) -> Project:
        """Raises `NotFound`."""
        try:
            return _project(await self._documents.get(PROJECTS.name, id))
        except NotFound as error:
            raise NotFound(f"there is no project {id!r}") from error

    async def find(self, owner: str, name_or_id: str) -> Project:
        """Return the owner's project of that name, else the one with that id. Raises `NotFound`."""
        name = checked_name(name_or_id, "a project")
        equal = {"owner": owner, "name": name}
        found = await self._documents.find(PROJECTS.name, equal, limit=1)
        if found:
            return _project(found[0])
        try:
            project = await self.get(name)
        except NotFound:
            project = None
        if project is None or project.owner != owner:
            raise NotFound(f"there is no project {name!r}", hint="deepforge run FOLDER makes one")
        return project

    async def list(
        self, owner: str | None = None, *, after: str | None = None, limit: int | None = None
    ) -> list[Project]:
        """List projects, newest first. `after` is the id of the last one of the page before."""
        found = await self._documents.find(
            PROJECTS.name,
            None if owner is None else {"owner": owner},
            descending=True,
            after=None if after is None else Document(after, 0, {}),
            limit=limit,
        )
        return [_project(one) for one in found]


def _project(document: Document) -> Project:
    body = document.body
    return Project(document.id, body["name"], body["owner"], body["created_at"])

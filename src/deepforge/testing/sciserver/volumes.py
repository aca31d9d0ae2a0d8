"""The volumes of the Files service of the stand-in."""

from __future__ import annotations

import json
import shutil
from typing import Any
from urllib.parse import unquote

from deepforge.testing.sciserver.wire import Answer, Request, of_html, of_json
from deepforge.testing.sciserver.world import (
    ALL_ACTIONS,
    FILE_SERVICE,
    ROOTS,
    Refused,
    User,
    Volume,
    World,
    size_of,
)


class Volumes:
    """Everything under `/fileservice/api` that is about volumes and not about what is in them."""

    def __init__(self, world: World) -> None:
        self._world = world

    def answer(self, request: Request, kind: str, rest: str, user: User) -> Answer:
        """Raises `Refused`, and what wrong JSON leads to."""
        match request.method, kind:
            case "GET", "volumes":
                return of_json(self._service(user))
            case "GET", "usage":
                return of_json(self._usage(user))
            case "PUT", "volume":
                return self._make(request, rest, user)
            case "DELETE", "volume":
                return self._delete(rest, user)
            case "PATCH", "volume":
                return self._rename(request, rest, user)
            case "PATCH", "share":
                return self._share(request, rest, user)
        return of_html(404, "HTTP Status 404")

    def _make(self, request: Request, path: str, user: User) -> Answer:
        root, owner, name = _three(path)
        if owner != user.name:
            raise Refused("User is not allowed to create user volume on behalf of another user.")
        content = request.body()
        description = f"UserVolume created by {user.name}"
        if content:
            description = json.loads(content).get("description", description)
        if self._world.volume(root, owner, name) is None or not request.flag("quiet"):
            self._world.add_volume(root, user, name, description)
        return Answer()

    def _delete(self, path: str, user: User) -> Answer:
        volume = self._own(path, user, "delete")
        with self._world.lock:
            del self._world.volumes[volume.id]
        shutil.rmtree(volume.folder, ignore_errors=True)
        return Answer()

    def _rename(self, request: Request, path: str, user: User) -> Answer:
        asked = request.json()
        volume = self._own(path, user)
        if volume.owner is not user:
            raise Refused("Missing required permissions on volume")
        with self._world.lock:
            volume.name = asked.get("name", volume.name)
            volume.description = asked.get("description", volume.description)
        return Answer()

    def _share(self, request: Request, path: str, user: User) -> Answer:
        asked = request.json()
        if len([part for part in path.split("/") if part]) == 1:
            self._world.place(path, user, "grant")
            return Answer()
        volume = self._own(path, user, "grant")
        with self._world.lock:
            for entry in asked:
                name = entry.get("name") or self._name_of(entry["id"])
                if entry["type"] == "USER" and name not in self._world.users.by_name:
                    raise Refused(f"User '{name}' does not exist")
                actions = tuple(one for one in ALL_ACTIONS if one in entry["allowedActions"])
                volume.shares[name] = actions
                if not actions:
                    del volume.shares[name]
        return Answer()

    def _name_of(self, id: str) -> str:
        names = [one.name for one in self._world.users.by_name.values() if one.id == str(id)]
        return names[0] if names else str(id)

    def _own(self, path: str, user: User, *actions: str) -> Volume:
        _three(path)
        volume = self._world.place(path, user, *actions).volume
        if not isinstance(volume, Volume):
            raise Refused("Volume does not exist")
        return volume

    def _service(self, user: User) -> dict[str, Any]:
        volumes = self._world.volumes_of(user)
        return {
            "identifier": self._world.identifier,
            "name": FILE_SERVICE,
            "description": "The file service of the stand-in",
            "apiEndpoint": f"{self._world.url}/fileservice/",
            "rootVolumes": [
                {
                    "id": number,
                    "resourceUUID": f"{self._world.identifier[:-1]}{number}",
                    "name": root,
                    "description": root,
                    "pathOnFileSystem": f"/srv/{root}/",
                    "containsSharedVolumes": True,
                    "allowedActions": ["create"],
                    "userVolumes": [self._volume(one, user) for one in volumes if one.root == root],
                }
                for number, root in ROOTS.items()
            ],
            "dataVolumes": [
                {
                    "id": one.id,
                    "resourceUUID": f"{self._world.identifier[:-1]}{one.id}",
                    "name": one.name,
                    "displayName": one.display_name,
                    "description": one.display_name,
                    "pathOnFileSystem": f"/srv/data/{one.name}/",
                    "url": None,
                    "allowedActions": list(one.actions_of(user)),
                }
                for one in self._world.data_volumes.values()
            ],
        }

    def _volume(self, volume: Volume, user: User) -> dict[str, Any]:
        shares = [
            {
                "id": self._world.users.by_name[name].id,
                "name": name,
                "type": "USER",
                "allowedActions": list(actions),
            }
            for name, actions in volume.shares.items()
            if name in self._world.users.by_name
        ]
        return {
            "id": volume.id,
            "resourceUUID": volume.uuid,
            "name": volume.name,
            "description": volume.description,
            "owner": volume.owner.name,
            "relativePath": f"{volume.owner.id}/{volume.folder.name}/",
            "allowedActions": list(volume.actions_of(user)),
            "sharedWith": shares,
        }

    def _usage(self, user: User) -> list[dict[str, Any]]:
        if not user.quota_bytes:  # no quota manager is set up
            return []
        own = [one for one in self._world.volumes_of(user) if one.owner is user]
        in_storage = [(one, *size_of(one.folder)) for one in own if one.root == "Storage"]
        rest = {"rootVolumeId": 1, "numberOfFilesQuota": 0, "numberOfBytesQuota": user.quota_bytes}
        return [
            {
                "type": "PER_USER",
                "username": user.name,
                "numberOfFilesUsed": sum(files for _, files, _ in in_storage),
                "numberOfBytesUsed": sum(size for _, _, size in in_storage),
                **rest,
            },
            *(
                {
                    "type": "PER_VOLUME",
                    "userVolumeId": one.id,
                    "numberOfFilesUsed": files,
                    "numberOfBytesUsed": size,
                    **rest,
                }
                for one, files, size in in_storage
            ),
        ]


def _three(path: str) -> tuple[str, str, str]:
    parts = [unquote(part) for part in path.split("/") if part]
    if len(parts) < 2:
        raise Refused("owner name is not present")
    if len(parts) < 3:
        raise Refused("Path variable 'userVolume' was not provided")
    return parts[0], parts[1], parts[2]

"""The job model of the stand-in (RACM), which its Compute service is asked through."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from deepforge.testing.sciserver.jobs import ACTIVE, Job, Jobs
from deepforge.testing.sciserver.wire import (
    Answer,
    Request,
    of_error,
    of_html,
    of_json,
    unauthenticated,
)
from deepforge.testing.sciserver.world import (
    FILE_SERVICE,
    WORKSPACE,
    DataVolume,
    Domain,
    NotAuthenticated,
    Place,
    Refused,
    User,
    Volume,
    World,
)

KNOWN_FIELDS = {
    "submitterDID", "dockerComputeEndpoint", "dockerImageName", "command", "scriptURI",
    "resultsFolderURI", "volumeContainers", "userVolumes", "type", "id", "fullDockerCommand",
}  # fmt: skip


class Compute:
    """Everything under `/racm`."""

    def __init__(self, world: World, jobs: Jobs) -> None:
        self._world = world
        self._jobs = jobs

    def answer(self, request: Request, path: str) -> Answer:
        try:
            user = self._world.caller(request.headers.get("X-Auth-Token"))
        except NotAuthenticated:
            return unauthenticated(request.path)
        try:
            with self._world.lock:
                return self._answer(request, path.strip("/").split("/"), user)
        except Refused as refusal:
            return of_error(str(refusal))

    def _answer(self, request: Request, parts: list[str], user: User) -> Answer:
        match request.method, parts:
            case "GET", ["storem", "fileservices"]:
                return of_json([self._file_service()])
            case "GET", ["ugm", "rest", "user"]:
                return of_json({"id": user.id, "username": user.name, "email": user.email})
            case "GET", ["jobm", "rest", "computedomains"]:
                return of_json(self._domains(request, user))
            case "POST", ["jobm", "rest", "jobs", "docker"]:
                return self._submit(request, user)
            case "GET", ["jobm", "rest", "jobs", "queues"]:
                return of_json(self._queues(user))
            case "GET", ["jobm", "rest", "jobs"]:
                return of_json([self._full(one) for one in self._listed(request, user)])
            case "GET", ["jobm", "rest", "jobs", number]:
                return of_json(self._full(self._job(number, user, "Unknown error")))
            case "POST", ["jobm", "rest", "jobs", number, "cancel"]:
                job = self._job(number, user, "Error canceling job")
                self._jobs.cancel(job)
                return of_json(self._full(job))
            case "GET", ["jobm", "rest", "dockerjobs"]:
                return of_json([_lean(one) for one in self._listed(request, user)])
            case "GET", ["jobm", "rest", "dockerjobs", "quick"]:
                return of_json(_table([_lean(one) for one in self._listed(request, user)]))
            case "GET", ["jobm", "rest", "jobsstats"]:
                return of_json(self._statistics(request, user))
        return of_html(404, "HTTP Status 404")

    def _file_service(self) -> dict[str, str]:
        return {
            "identifier": self._world.identifier,
            "name": FILE_SERVICE,
            "description": "The file service of the stand-in",
            "apiEndpoint": f"{self._world.url}/fileservice/",
        }

    def _domains(self, request: Request, user: User) -> list[dict[str, Any]]:
        is_batch = request.flag("batch")
        is_interactive = request.flag("interactive") or not is_batch
        self._world.add_default_volumes(user)
        return [
            self._domain(one, user)
            for one in self._world.domains
            if (one.is_batch and is_batch) or (not one.is_batch and is_interactive)
        ]

    def _domain(self, domain: Domain, user: User) -> dict[str, Any]:
        return {
            "id": domain.id,
            "racmUUID": f"domain-{domain.id}",
            "publisherDID": str(domain.id),
            "apiEndpoint": domain.endpoint,
            "name": domain.name,
            "description": domain.name,
            "images": [
                {
                    "id": 10 * domain.id + index,
                    "racmUUID": f"image-{domain.id}-{index}",
                    "publisherDID": str(index),
                    "name": name,
                    "description": name,
                }
                for index, name in enumerate(domain.images_of(user))
            ],
            "volumes": [
                _data_volume(self._world.data_volumes[name], user)
                for name in domain.data_volumes
                if name in self._world.data_volumes
            ],
            "userVolumes": [
                self._user_volume(one, domain, user) for one in self._world.volumes_of(user)
            ],
        }

    def _user_volume(self, volume: Volume, domain: Domain, user: User) -> dict[str, Any]:
        return {
            "id": volume.id,
            "publisherDID": str(volume.id),
            "computeDomainId": domain.id,
            "name": volume.name,
            "description": volume.description,
            "owner": volume.owner.name,
            "ownerId": volume.owner.id,
            "rootVolumeName": volume.root,
            "fullPath": f"/srv/{volume.root}/{volume.owner.id}/{volume.folder.name}/",
            "resourceUUID": volume.uuid,
            "fileServiceAPIEndpoint": f"{self._world.url}/fileservice/",
            "isShareable": True,
            "allowedActions": list(volume.actions_of(user)),
        }

    def _submit(self, request: Request, user: User) -> Answer:
        start = f"Error in job submission for user {user.name}"
        try:
            asked = request.json()
            if not isinstance(asked, dict) or set(asked) - KNOWN_FIELDS:
                raise Refused("Unrecognized field")
        except (ValueError, Refused) as error:
            raise Refused(f"{start}\n\tError parsing the job\n{error}") from error
        try:
            job = self._job_of(asked, user)
        except (Refused, KeyError, TypeError, AttributeError) as error:
            told = str(error) if isinstance(error, Refused) else "null"
            raise Refused(f"{start}\n\tError creating DockerJob\n{told}") from error
        self._jobs.add(job)
        return of_json(self._full(job))

    def _job_of(self, asked: dict[str, Any], user: User) -> Job:
        self._world.add_default_volumes(user)
        domains = {one.endpoint: one for one in self._world.domains}
        domain = domains.get(asked.get("dockerComputeEndpoint", ""))
        if domain is None:
            raise Refused("A docker job must reference a dockercomputedomain")
        image = asked.get("dockerImageName") or ""
        if image not in domain.images:
            raise Refused("No valid Docker image on submitted job model")
        if image not in domain.images_of(user):
            raise Refused(f"User {user.name} is not allowed to use Docker image {image}")
        return Job(
            self._world.new_id(),
            user,
            domain,
            image,
            asked.get("submitterDID") or "",
            asked.get("command") or "",
            asked.get("scriptURI") or "",
            self._results_parent(asked.get("resultsFolderURI") or "", user),
            self._data_volumes(asked.get("volumeContainers") or [], domain, user),
            self._user_volumes(asked.get("userVolumes") or [], user),
            self._world.now(),
        )

    def _results_parent(self, asked: str, user: User) -> str:
        if not asked:
            return f"Temporary/{user.name}/jobs"
        path = asked.removeprefix(WORKSPACE).strip("/")
        place: Place = self._world.place(path, user, "write")
        if isinstance(place.volume, DataVolume):
            raise Refused("The results folder must be in a user volume")
        return path

    def _data_volumes(
        self, asked: list[dict[str, Any]], domain: Domain, user: User
    ) -> list[tuple[DataVolume, bool]]:
        """Names that the domain does not have are dropped, and nobody is told."""
        found = []
        for one in asked:
            volume = self._world.data_volumes.get(one.get("name") or "")
            if volume is None or volume.name not in domain.data_volumes:
                continue
            is_writable = one.get("writable", False)
            if is_writable is None:
                raise TypeError
            if is_writable and "write" not in volume.actions_of(user):
                raise Refused(f"User {user.name} is not allowed to write to {volume.name}")
            found.append((volume, is_writable))
        return found

    def _user_volumes(self, asked: list[dict[str, Any]], user: User) -> list[tuple[Volume, bool]]:
        """Unknown ones are dropped and rights that are missing too, and nobody is told."""
        found = []
        for one in asked:
            wants_to_write = one["needsWriteAccess"]
            if wants_to_write is None:
                raise TypeError
            volume = self._world.volumes.get(one.get("userVolumeId") or 0)
            actions = () if volume is None else volume.actions_of(user)
            if volume is not None and "read" in actions:
                found.append((volume, wants_to_write and "write" in actions))
        return found

    def _job(self, number: str, user: User, refusal: str) -> Job:
        job = self._jobs.by_id.get(int(number)) if number.isdecimal() else None
        if job is None or job.user is not user:
            raise Refused(refusal)
        return job

    def _listed(self, request: Request, user: User) -> list[Job]:
        query = request.query
        keep: list[Callable[[Job], bool]] = []
        if "open" in query:  # whatever it says
            keep.append(lambda job: job.shown_status <= 16)
        if (start := _date(query.get("start"))) is not None:
            keep.append(lambda job: job.submitted_at >= start.timestamp())
        if (end := _date(query.get("end"))) is not None:
            keep.append(lambda job: job.submitted_at < end.timestamp())
        if label := query.get("labelReg"):
            keep.append(lambda job: label in job.label)
        found = [one for one in self._jobs.of(user) if all(is_kept(one) for is_kept in keep)]
        top = query.get("top", "")
        return found[: int(top)] if top.isdecimal() else found

    def _statistics(self, request: Request, user: User) -> dict[str, int]:
        hours = request.query.get("since", "24")
        earliest = self._world.now() - timedelta(hours=float(hours)).total_seconds()
        recent = [one for one in self._jobs.of(user) if one.submitted_at >= earliest]
        return dict(Counter(str(int(one.shown_status)) for one in recent))

    def _queues(self, user: User) -> dict[str, Any]:
        rows: list[list[object]] = []
        for domain in self._world.domains:
            jobs = [one for one in self._jobs.by_id.values() if one.domain is domain]
            waiting = [one for one in jobs if one.status == 1]
            running = [one for one in jobs if one.status in ACTIVE]
            ranked = [(-1 - index, one) for index, one in enumerate(running)]
            ranked += [(1 + index, one) for index, one in enumerate(waiting)]
            for ranking, job in ranked:
                name = job.user.name
                shown = name if job.user is user else hashlib.md5(name.encode()).hexdigest()
                times = [_ms(job.submitted_at), _ms(job.started_at)]
                row = [domain.name, "BATCH", domain.id, ranking, shown, int(job.status), *times]
                rows.append([*row])
            own_next = [domain.name, "BATCH", domain.id, len(waiting) + 1, user.name, 0, None, None]
            rows.append([*own_next])
        columns = "domainName domainClass queueId ranking username status submitTime startedTime"
        return {"columns": columns.split(), "rows": rows}

    def _full(self, job: Job) -> dict[str, Any]:
        return _without_nulls(
            {
                "id": job.id,
                "type": "jobm.model.COMPMDockerJobModel",
                "username": job.user.name,
                "status": int(job.shown_status),
                "submitterDID": job.label,
                "command": job.command,
                "scriptURI": job.script or None,
                "dockerImageName": job.image,
                "dockerComputeEndpoint": job.domain.endpoint,
                "dockerComputeResourceContextUUID": f"domain-{job.domain.id}",
                "submissionTime": _ms(job.submitted_at),
                "startTime": _ms(job.started_at),
                "endTime": _ms(job.ended_at),
                "duration": _duration_s(job),
                "timeout": job.timeout_s,
                "resultsFolderURI": _results(job),
                "executorDID": None if job.started_at is None else f"job_{job.id}",
                "submitterTrustId": hashlib.sha256(str(job.id).encode()).hexdigest()[:32],
                "volumeContainers": [
                    {"id": one.id, "name": one.name, "publisherDID": "30", "writable": writes}
                    for one, writes in job.data_volumes
                ],
                "userVolumes": [
                    {
                        "id": job.id * 100 + index,
                        "userVolumeId": one.id,
                        "fullPath": f"/srv/{one.root}/{one.owner.id}/{one.folder.name}/",
                        "needsWriteAccess": writes,
                    }
                    for index, (one, writes) in enumerate(job.user_volumes)
                ],
                "messages": [
                    {"id": one.id, "label": one.label, "content": one.content}
                    for one in job.messages
                ],
            }
        )


def _lean(job: Job) -> dict[str, Any]:
    return _without_nulls(
        {
            "id": job.id,
            "status": int(job.shown_status),
            "submitterDID": job.label,
            "publisherDID": str(job.id),
            "submissionTime": _ms(job.submitted_at),
            "startTime": _ms(job.started_at),
            "endTime": _ms(job.ended_at),
            "duration": _duration_s(job),
            "resultsFolderURI": _results(job),
            "command": job.command,
            "scriptURI": job.script or None,
            "dockerImageName": job.image,
            "type": "jobm.model.COMPMDockerJobModel",
            "messages": [],
            "dockerComputeEndpoint": job.domain.name,
            "dockerComputeResourceContextUUID": f"domain-{job.domain.id}",
        }
    )


def _results(job: Job) -> str | None:
    """Before the job runs, no more than what was asked for."""
    if job.shown_results is not None:
        return f"{WORKSPACE}/{job.shown_results}/"
    was_asked = job.results_parent != f"Temporary/{job.user.name}/jobs"
    return f"{WORKSPACE}/{job.results_parent}/" if was_asked else None


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    columns = [
        "id", "status", "submitterDID", "submissionTime", "startTime", "endTime", "duration",
        "resultsFolderURI", "command", "dockerImageName",
    ]  # fmt: skip
    values = [[row.get(name) for name in columns] for row in rows]
    return {"columns": columns, "hrNames": columns, "rows": values}


def _data_volume(volume: DataVolume, user: User) -> dict[str, Any]:
    return {
        "id": volume.id,
        "racmUUID": f"data-{volume.id}",
        "publisherDID": str(volume.id),
        "name": volume.name,
        "description": volume.display_name,
        "writable": "write" in volume.actions_of(user),
    }


def _date(text: str | None) -> datetime | None:
    """A date, with its time where it is written as the service wants it; otherwise nothing."""
    asked = unquote(text or "")
    for pattern, kept in (("%Y-%m-%d %H:%M:%S %z", asked), ("%Y-%m-%d", asked[:10])):
        try:
            found = datetime.strptime(kept, pattern)
        except ValueError:
            continue
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return None


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if inner is not None}


def _ms(at: float | None) -> int | None:
    return None if at is None else round(at * 1000)


def _duration_s(job: Job) -> float | None:
    if job.started_at is None or job.ended_at is None:
        return None
    return round(job.ended_at - job.started_at, 3)

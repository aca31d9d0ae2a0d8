"""The job service of SciServer (RACM): its calls, and what its errors mean."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from deepforge.compute.sciserver.records import Domain, Job, read_domain, read_job
from deepforge.errors import ConfigError, InvalidRequest, OutcomeUnknown, Unavailable
from deepforge.sciserver.session import Session, error_text, json_of

_REFUSAL = "Error in job submission"


@dataclass(frozen=True)
class Submitted:
    """The service's answer to a submission: volumes it did not like are left out of it in silence."""

    job: Job
    writable: Mapping[int, bool]
    """Each user volume that is mounted, by its id."""
    data_volumes: frozenset[str]


class Racm:
    """The calls, one by one. Errors as `Session.request`, and `Unavailable` for other statuses."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._jobs = f"{session.hosts.compute_url}/jobm/rest"

    async def domains(self) -> builtins.list[Domain]:
        """The domains for batch jobs, with what this user may use there."""
        found = await self._read(f"{self._jobs}/computedomains", {"batch": "true"})
        return [read_domain(one) for one in _listed(found)]

    async def open_jobs(self) -> builtins.list[Job]:
        """All jobs of the user that are not over."""
        found = await self._read(f"{self._jobs}/dockerjobs", {"open": "true"})
        return [read_job(one) for one in _listed(found)]

    async def labelled(self, label: str) -> builtins.list[Job]:
        """Every job with exactly this label, open or over, the oldest first."""
        params = {"top": 5, "labelReg": label}  # it finds those too that only contain the label
        found = await self._read(f"{self._jobs}/dockerjobs", params)
        jobs = [read_job(one) for one in _listed(found)]
        return sorted((one for one in jobs if one.label == label), key=lambda one: one.id)

    async def job(self, id: int) -> Job | None:
        """The full record; None if the service knows no such job of this user."""
        answer = await self.session.request("GET", f"{self._jobs}/jobs/{id}")
        if answer.status_code == 500 and "Unknown error" in (error_text(answer) or ""):
            return None
        return read_job(self._json(answer))

    async def submit(self, body: Mapping[str, Any]) -> Submitted:
        """Raises `InvalidRequest` with the service's words for what it does not accept, and
        `OutcomeUnknown` when it may have."""
        answer = await self.session.request("POST", f"{self._jobs}/jobs/docker", json=dict(body))
        said = error_text(answer) or ""
        if answer.status_code == 400 or (answer.status_code == 500 and _REFUSAL in said):
            raise InvalidRequest(f"SciServer does not accept the job: {_one_line(said)}")
        if answer.status_code != 200:
            told = f"SciServer answered {answer.status_code} to a submission"
            raise OutcomeUnknown(f"{told}: {_one_line(said)}" if said else told)
        try:
            told = json_of(answer)
            job = read_job(told)
        except (ConfigError, Unavailable) as error:  # somebody else's answer, or half of one
            raise OutcomeUnknown(error.message, hint=error.hint) from error
        return Submitted(
            job,
            {
                int(one["userVolumeId"]): bool(one.get("needsWriteAccess"))
                for one in told.get("userVolumes") or ()
            },
            frozenset(str(one["name"]) for one in told.get("volumeContainers") or ()),
        )

    async def cancel(self, id: int) -> None:
        """Ask for its end. An unknown job, and one that is over, are fine."""
        answer = await self.session.request("POST", f"{self._jobs}/jobs/{id}/cancel")
        if answer.status_code == 500 and "Error canceling job" in (error_text(answer) or ""):
            return
        self._json(answer)

    async def queues(self) -> Any:
        """The table of all queues, as it comes."""
        return await self._read(f"{self._jobs}/jobs/queues")

    async def _read(self, url: str, params: Mapping[str, Any] | None = None) -> Any:
        return self._json(await self.session.request("GET", url, params=params))

    def _json(self, answer: httpx.Response) -> Any:
        if answer.status_code != 200:
            raise _unexpected(answer)
        return json_of(answer)


def _unexpected(answer: httpx.Response) -> Unavailable:
    said = error_text(answer)
    text = f"the job service of SciServer answered {answer.status_code}"
    return Unavailable(text if said is None else f"{text}: {_one_line(said)}")


def _listed(value: Any) -> builtins.list[Any]:
    if not isinstance(value, list):
        raise Unavailable("SciServer answered with something else than a list")
    return value


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]

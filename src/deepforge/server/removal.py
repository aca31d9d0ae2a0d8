"""Forget a storage or compute: not while it is needed, and not by accident what leads to data."""

from __future__ import annotations

from collections.abc import AsyncIterator

from deepforge.errors import Conflict
from deepforge.execution.model import ExecutionState, ExecutionView
from deepforge.plugins import Port
from deepforge.server.services import Services

_PAGE = 1000


async def remove_connection(
    use: Services, port: Port, name: str, owner: str, *, force: bool
) -> None:
    """Forget it with its secrets. The data in a storage stay; what a compute kept here is deleted.

    Raises `NotFound`, `InvalidRequest` for one that cannot be removed, and `Conflict` while a running
    execution refers to it, and without `force` when artifacts lie in it. An execution that begins in
    the same moment may not be seen: it then says what it lacks.
    """
    one = await use.connections.get(port, name, owner=owner)
    if one.revision > 0:  # any other is refused anyway
        using = [
            view.execution.id async for view in _running(use, owner) if _refers(view, port, name)
        ]
        if using:
            more = f" and {len(using) - 1} more" if len(using) > 1 else ""
            raise Conflict(
                f"the {port} {name!r} is in use by execution {using[0]}{more}",
                hint=f"wait for its end, or: deepforge executions cancel {using[0]}",
            )
        if port == "storage" and not force:
            await _refuse_losing_artifacts(use, name, owner)
    await use.connections.remove(port, name, owner=owner)
    if port == "compute":
        await use.opener.discard(one)


async def _refuse_losing_artifacts(use: Services, storage: str, owner: str) -> None:
    count = await use.artifacts.count_in(storage, owner=owner)
    if count:
        artifacts = "1 artifact lies" if count == 1 else f"{count} artifacts lie"
        raise Conflict(
            f"{artifacts} in the storage {storage!r}, and could not be read without it",
            hint=f"forget it all the same: deepforge storage remove {storage} --force; the data stay, "
            "and are found again in a storage that is added under this name",
        )


async def _running(use: Services, owner: str) -> AsyncIterator[ExecutionView]:
    after: str | None = None
    while found := await use.executions.list(
        owner, state=ExecutionState.RUNNING, after=after, limit=_PAGE
    ):
        for execution in found:
            yield await use.executions.get(execution.id, owner)
        after = found[-1].id


def _refers(view: ExecutionView, port: Port, name: str) -> bool:
    if port == "compute":
        return any(job.plan.compute == name for job in view.jobs)
    inputs = (one.value for job in view.jobs for one in job.plan.inputs if one.value is not None)
    return view.execution.storage == name or any(one.ref.storage == name for one in inputs)

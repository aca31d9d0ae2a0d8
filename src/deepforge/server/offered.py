"""What services offer for settings, as answers spell it."""

from __future__ import annotations

from pydantic import BaseModel

from deepforge.compute.client import ComputeClient
from deepforge.errors import DeepForgeError
from deepforge.server.wire import ErrorInfo, error_info
from deepforge.storage.client import StorageClient


class ChoiceReply(BaseModel):
    value: str
    note: str


class SettingChoices(BaseModel):
    """What there is for one setting. With `several` it takes more than one, separated by commas; with
    `others` it may be something else as well, but not what it is now if there is a `problem`."""

    setting: str
    several: bool
    others: bool
    problem: str | None
    offered: list[ChoiceReply]


class ChoicesReply(BaseModel):
    """No items for settings of which the service knows nothing."""

    items: list[SettingChoices]
    problem: ErrorInfo | None = None
    """Why the service could not be asked. The form can be filled in without it."""


async def offered_by(client: StorageClient | ComputeClient) -> ChoicesReply:
    """Ask the service. That it does not answer, or wants a login, is a part of the answer."""
    try:
        found = await client.choices()
    except DeepForgeError as error:
        return ChoicesReply(items=[], problem=error_info(error))
    return ChoicesReply(
        items=[
            SettingChoices(
                setting=name,
                several=one.several,
                others=one.others,
                problem=one.problem or None,
                offered=[ChoiceReply(value=each.value, note=each.note) for each in one.offered],
            )
            for name, one in found.items()
        ]
    )

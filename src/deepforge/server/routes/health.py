"""Is anybody there?"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

import deepforge

router = APIRouter(tags=["server"])


class Health(BaseModel):
    status: Literal["ok"]
    version: str


@router.get("/health", summary="Say that the server answers, and which version it is")
async def read_health() -> Health:
    return Health(status="ok", version=deepforge.__version__)

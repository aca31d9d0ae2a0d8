"""Facts others in this process may hear, and the small bus that carries them.

A fact is a hint: who hears it reads the documents for the truth, so a lost fact costs seconds, never
correctness.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened: `topic` says to what (an execution's id), `kind` what."""

    topic: str
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Events:
    """Publish and hear within one event loop. Not thread-safe."""

    def __init__(self, *, queue_size: int = 1000) -> None:
        self._queue_size = queue_size
        self._listeners: dict[str, set[asyncio.Queue[Event]]] = {}

    def publish(self, event: Event) -> None:
        """Hand the event to whoever listens to its topic. Never blocks.

        A listener that fell `queue_size` events behind loses the oldest.
        """
        for queue in self._listeners.get(event.topic, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @asynccontextmanager
    async def listen(self, topic: str) -> AsyncIterator[asyncio.Queue[Event]]:
        """Give a queue that receives every event of `topic` published from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue(self._queue_size)
        self._listeners.setdefault(topic, set()).add(queue)
        try:
            yield queue
        finally:
            listeners = self._listeners[topic]
            listeners.discard(queue)
            if not listeners:
                del self._listeners[topic]

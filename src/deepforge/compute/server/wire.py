"""What the adapter and the supervisor say to each other: JSON with its length in front.

Every message has `v`. The ops `hello` and `leave` mean the same in every version, so an adapter can
always send a supervisor of another version away. An answer with `error` (a code of
`deepforge.errors`) and `message` is a refusal.
"""

from __future__ import annotations

import json
import struct
from typing import Any

VERSION = 1
LONGEST = 64 * 1024 * 1024

_HEAD = struct.Struct(">I")
HEAD_BYTES = _HEAD.size


def pack(message: dict[str, Any]) -> bytes:
    """Spell one message. Raises `ValueError` when it is too long."""
    body = json.dumps({"v": VERSION, **message}, separators=(",", ":")).encode()
    if len(body) > LONGEST:
        raise ValueError("the message is too long")
    return _HEAD.pack(len(body)) + body


def body_bytes(head: bytes) -> int:
    """Read the length from the first `HEAD_BYTES` bytes. Raises `ValueError` for nonsense."""
    (size,) = _HEAD.unpack(head)
    if size > LONGEST:
        raise ValueError("the message is too long")
    return int(size)


def read(body: bytes) -> dict[str, Any]:
    """Read one message. Raises `ValueError` when it is not a JSON object."""
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("the message is not an object")
    return message


def take(buffer: bytearray) -> dict[str, Any] | None:
    """Take the first whole message out of the buffer, None when more bytes are needed.

    Raises `ValueError` for bytes that are no message.
    """
    if len(buffer) < HEAD_BYTES:
        return None
    end = HEAD_BYTES + body_bytes(bytes(buffer[:HEAD_BYTES]))
    if len(buffer) < end:
        return None
    message = read(bytes(buffer[HEAD_BYTES:end]))
    del buffer[:end]
    return message

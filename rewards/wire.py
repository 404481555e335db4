"""Frames between a pool and its workers: four bytes of length, then JSON. No pickle, so reading runs no code.

Used by `rewards.pool` (parent) and `rewards.worker` (child). Values may be anything JSON knows, with nan and infinity.

    worker -> pool   {"op": "ready", "protections": {…}}       once, when it has hardened itself
    pool -> worker   {"op": "run", "target": …, "items": […]}
    worker -> pool   {"op": "loading"}                         around an import, for which the clock stops
                     {"op": "loaded", "targets": […]}
    worker -> pool   {"op": "done", "item": 0, "value": …}     one per item, in order, or
                     {"op": "done", "item": 0, "error": {"kind": …, "message": …, "exception": …}}
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, cast

HEADER = struct.Struct(">I")
MAX_BYTES = 64 * 2**20
MAX_SPAWN_BYTES = 2**17
"""Of a request to the nursery."""

Message = dict[str, Any]


class FrameError(ValueError):
    """A frame that is too large or holds something else than a message."""


def encode(message: Message) -> bytes:
    """One frame.

    Raises:
        TypeError, ValueError, RecursionError: JSON cannot hold the content, or it is larger than `MAX_BYTES`.
    """
    body = json.dumps(message).encode()
    if len(body) > MAX_BYTES:
        raise FrameError(f"{len(body)} bytes are more than the {MAX_BYTES} that one message may have")
    return HEADER.pack(len(body)) + body


def frame_length(header: bytes) -> int:
    """Length of the body behind a complete header."""
    (size,) = HEADER.unpack(header)
    if size > MAX_BYTES:
        raise FrameError(f"a frame of {size} bytes was announced")
    return size


def decode(body: bytes) -> Message:
    """The message in a frame's body."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not a message: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("not a message")
    return cast(Message, message)


def read(fd: int) -> Message | None:
    """Next message from a blocking pipe; None at its end."""
    header = _read_exactly(fd, HEADER.size)
    body = None if header is None else _read_exactly(fd, frame_length(header))
    return None if body is None else decode(body)


def write(fd: int, frame: bytes) -> None:
    """Send a whole frame to a blocking pipe."""
    view = memoryview(frame)
    while view:
        view = view[os.write(fd, view) :]


def _read_exactly(fd: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = os.read(fd, min(size - len(data), 2**16))
        if not piece:
            return None
        data += piece
    return bytes(data)

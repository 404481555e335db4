"""What one run is, as a warden reads it: plain data, sent as JSON in a file without a name; and the messages for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

NAMESPACES, PLAIN, PROBE = b"n", b"p", b"?"
"""Messages to the server: a run in namespaces, one without, and the question which layers there are."""
DESCRIPTORS = 6
"""What comes with a run: its order, its three streams, the report and the line of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run."""

    argv: Sequence[str]
    files: Mapping[str, str]
    """Text by name, put into the scratch folder before the start."""
    environment: Mapping[str, str]
    readable: Sequence[str]
    links: Mapping[str, str]
    scratch: str
    """The folder to start in where there is no private root."""
    memory_mb: int
    cpu_s: int
    file_mb: int
    scratch_mb: int
    processes: int
    open_files: int
    landlock: bool
    signals_scoped: bool
    """Whether Landlock keeps signals in."""
    seccomp: bool


def encode(order: Order) -> bytes:
    return json.dumps(asdict(order)).encode()


def decode(data: bytes) -> Order:
    return Order(**json.loads(data))

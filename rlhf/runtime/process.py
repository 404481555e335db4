"""A process of a run on Ray: where it computes, and what it answers at any time. Imports nothing that takes long."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rlhf.runtime import stacks


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where an actor computes."""

    folder: Path
    """Working directory of the run: relative paths in a config start here."""
    threads: int
    device: str


class Process:
    """What every actor begins with."""

    def __init__(self, around: Surroundings) -> None:
        os.chdir(around.folder)
        stacks.listen()

    def where(self) -> tuple[str, int]:
        """Ray's id of the node, and the process id; the first call, answered when the actor is ready."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

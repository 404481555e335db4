"""A process of a run on Ray: where it computes, and what it answers at any time. Imports nothing that takes long."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rlhf.runtime import stacks

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where an actor computes."""

    folder: Path
    """Working directory of the run: relative paths in a config start here."""
    threads: int
    device: str


class Process(Generic[R]):
    """What every actor begins with."""

    def __init__(self, around: Surroundings) -> None:
        os.chdir(around.folder)
        stacks.listen()

    def start(self, role: R) -> tuple[str, int]:
        """Get ready: the first call. A constructor's errors would arrive as the end of the actor, and not as what they
        are.

        Args:
            role: what it has to do.

        Returns:
            Ray's id of the node, and the process id.
        """
        import ray

        self.prepare(role)
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def prepare(self, role: R) -> None:
        """Make what later calls need."""

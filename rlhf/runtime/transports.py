"""Which way weights go from learner ranks to engines: as the engine takes them by itself where that works, else through
the object store. Pure: what the runtime knows of its roles goes in, a name comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.protocols import Transfer

AUTO, OBJECT_STORE, OWN = "auto", "object_store", "weight_transfer"
CHOICES = (AUTO, OBJECT_STORE, OWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the two ends are."""

    ranks: Sequence[str]
    """Node of every learner rank."""
    engines: Sequence[str]
    """Node of every engine."""
    on_gpus: bool
    colocated: bool
    """Ranks and engines share devices."""


def choose(wanted: str, offered: Transfer | None, layout: Layout) -> str:
    """`OBJECT_STORE`, or the backend of the engine's own transfer.

    Args:
        wanted: one of `CHOICES`, the key `runtime.sync.transport`.
        offered: what the engine has.

    Raises:
        ConfigError: its own transfer is asked for and does not work here; says why.
    """
    if wanted == OBJECT_STORE:
        return OBJECT_STORE
    problem = _problem(offered, layout)
    if not problem:
        assert offered is not None
        return offered.backend
    if wanted == OWN:
        raise ConfigError("runtime.sync.transport", problem, fix=f"use {AUTO}, or change what stands in the way")
    return OBJECT_STORE


def _problem(offered: Transfer | None, layout: Layout) -> str:
    """Why the engine's own transfer does not work; empty where it does."""
    if offered is None:
        return "this engine takes weights through the object store only"
    if offered.backend == "shm":
        elsewhere = {*layout.engines, layout.ranks[0]} != {layout.ranks[0]}
        return "shared memory (engine.weight_transfer: shm) reaches engines on the learner's node only" * elsewhere
    if not layout.on_gpus:
        return f"engine.weight_transfer: {offered.backend} is for GPUs, and the roles compute on CPUs"
    if offered.backend == "nccl":
        return "NCCL does not connect processes that share a GPU: set engine.weight_transfer=ipc" * layout.colocated
    if not layout.colocated:
        return "CUDA IPC needs engines on the GPUs of the learner (runtime.colocate): set engine.weight_transfer=nccl"
    workers = offered.workers * len(layout.engines)
    if len(layout.ranks) != workers:
        return f"CUDA IPC needs a learner rank on every GPU of the engines: {workers} ranks, not {len(layout.ranks)}"
    return ""

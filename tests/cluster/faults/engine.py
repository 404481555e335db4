"""The `transformers_engine`, in a process that something happens to: once per fault, while it samples a given step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlhf.core.protocols import EngineSpec
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request
from rollout import transformers_engine
from rollout.transformers_engine import TransformersEngine


@dataclass(frozen=True, kw_only=True)
class Config(transformers_engine.Config):
    """What happens, and when."""

    faults: list[str] = field(default_factory=list[str])
    """`kill@7`: SIGKILL at the first sample of step 7; `stop@7`: SIGSTOP; `node@7`: SIGKILL to Ray's process of a
    node that is not the first, in step 7 or when an engine there samples next."""


def build(cfg: Config, spec: EngineSpec) -> BreakingEngine:
    """See `rollout.transformers_engine`."""
    return BreakingEngine(*spec.load(), cfg)


def strike(faults: Sequence[str], step: int) -> None:
    """Send this process the signal of a fault that is due and has not happened before."""
    for fault in faults:
        kind, _, at = fault.partition("@")
        mark = Path(f".struck-{fault}")
        due = step >= int(at) and not _on_first_node() if kind == "node" else step == int(at)
        if mark.exists() or not due:
            continue
        mark.touch()
        victim = os.getppid() if kind == "node" else os.getpid()
        os.kill(victim, signal.SIGSTOP if kind == "stop" else signal.SIGKILL)
        if kind == "node":
            time.sleep(60)  # without its Ray this process ends by itself, and its answer must not be faster


def _on_first_node() -> bool:
    import ray

    mine = ray.get_runtime_context().get_node_id()
    [node] = [node for node in ray.nodes() if node["NodeID"] == mine]
    return "node:__internal_head__" in node["Resources"]


class BreakingEngine(TransformersEngine):
    """Struck before it answers."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._faults: list[str] = arguments[-1].faults  # type: ignore[union-attr]

    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        completions = super().generate(requests, sampling=sampling)
        strike(self._faults, int(requests[0].id.split("-")[1]))
        return completions

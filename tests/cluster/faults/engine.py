"""The `transformers_engine`, in a process that something happens to: once per fault, while it samples a given step."""

from __future__ import annotations

import os
import signal
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
    """`kill@7`: SIGKILL at the first sample of step 7; `stop@7`: SIGSTOP; `node@7`: SIGKILL to Ray's process of this
    node, where it is not the first."""


def build(cfg: Config, spec: EngineSpec) -> BreakingEngine:
    """See `rollout.transformers_engine`."""
    return BreakingEngine(*spec.load(), cfg)


def strike(faults: Sequence[str], step: int) -> None:
    """Send this process the signal of a fault that is due and has not happened before."""
    for fault in faults:
        kind, _, at = fault.partition("@")
        mark = Path(f".struck-{fault}")
        if int(at) != step or mark.exists() or (kind == "node" and _on_first_node()):
            continue
        mark.touch()
        victim = os.getppid() if kind == "node" else os.getpid()
        os.kill(victim, signal.SIGSTOP if kind == "stop" else signal.SIGKILL)


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

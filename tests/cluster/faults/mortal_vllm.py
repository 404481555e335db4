"""The `vllm_engine`, in a process that something happens to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from faults.engine import strike
from rlhf.core.protocols import EngineSpec
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request
from rollout import vllm_engine
from rollout.vllm_engine import VllmEngine


@dataclass(frozen=True, kw_only=True)
class Config(vllm_engine.Config):
    """What happens, and when: see `faults.engine`."""

    faults: list[str] = field(default_factory=list[str])


def build(cfg: Config, spec: EngineSpec) -> MortalEngine:
    """See `rollout.vllm_engine`."""
    return MortalEngine(cfg, spec)


class MortalEngine(VllmEngine):
    """Struck before it answers."""

    def __init__(self, cfg: Config, spec: EngineSpec) -> None:
        super().__init__(cfg, spec)
        self._faults = cfg.faults

    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        completions = super().generate(requests, sampling=sampling)
        strike(self._faults, int(requests[0].id.split("-")[1]))
        return completions

"""An engine that says it spreads over several devices, and touches none."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.protocols import EngineSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """As vLLM has it."""

    tensor_parallel: int = 2


def build(cfg: Config, spec: EngineSpec) -> SplitEngine:
    """Nothing is loaded."""
    return SplitEngine()


class SplitEngine:
    """What is asked of an engine at the start."""

    interruptible = True
    version = 0

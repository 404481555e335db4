"""The `transformers_engine`, which writes down what is asked of it, and refuses work while it sleeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rlhf.core.protocols import EngineSpec
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request
from rollout import transformers_engine
from rollout.transformers_engine import TransformersEngine

LOG = Path("calls.log")


@dataclass(frozen=True, kw_only=True)
class Config(transformers_engine.Config):
    """That of the engine that it is."""


def build(cfg: Config, spec: EngineSpec) -> WatchedEngine:
    """See `rollout.transformers_engine`."""
    return WatchedEngine(*spec.load(), cfg)


def note(word: str) -> None:
    """Add a line to the log of this run, which several processes write."""
    with LOG.open("a") as file:
        file.write(f"{word}\n")


class WatchedEngine(TransformersEngine):
    """Says what it does."""

    asleep = False

    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        assert not self.asleep
        note("generate")
        return super().generate(requests, sampling=sampling)

    def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
        assert not self.asleep
        super().load_weights(version, tensors)

    def sleep(self) -> None:
        note("sleep")
        self.asleep = True

    def wake(self) -> None:
        note("wake")
        self.asleep = False

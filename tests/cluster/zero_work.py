"""What the ranks of the DeepSpeed tests do, each in its own process; the parent does the same with plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny_model
from test_gradient_invariance import CASES, make_samples
from torch import Tensor

from rlhf.core.component import Component
from rlhf.core.config import build_component
from rlhf.core.metrics import merge, values
from rlhf.core.protocols import Counts
from rlhf.core.sampling import Transforms
from rlhf.core.types import Batch, Sample
from rlhf.data.packing import count, num_targets, pack
from rlhf.learner import optimizer, ranks, schedule
from rlhf.learner.learner import Config, Learner
from rlhf.models import load

BUDGET = 18
LOSSES = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Setup:
    """A learner to make."""

    folder: Path
    """The model that it opens."""
    backend: dict[str, Any]
    loss: str | None = "policy-token-clip"
    """A name in `LOSSES`."""
    learner: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    version: int = 0


def make(setup: Setup) -> Learner:
    """The learner of this process."""
    case = LOSSES[setup.loss] if setup.loss else None
    return Learner(
        lambda dtype: load.load_model(setup.folder, dtype=dtype, device="cpu"),
        tiny_model.tokenizer(),
        Config(
            backend=build_component("rlhf.learner.backends", setup.backend, "learner.backend"),
            optimizer=optimizer.Config(**{"lr": 3e-3, "weight_decay": 0.1} | setup.optimizer),
            schedule=schedule.Config(name="linear", warmup_updates=2),
            **setup.learner,
        ),
        device="cpu",
        loss=None if case is None else Component(case.name, case.module, case.cfg),
        transforms=Transforms(temperature=0.9),
        total_updates=10,
        version=setup.version,
        first_version=0,
    )


@dataclass
class Trained:
    """What some updates led to."""

    weights: dict[str, Tensor]
    norms: list[float]
    rates: list[float]
    metrics: list[dict[str, float]]


def samples_of(update: int) -> list[Sample]:
    """With old log-probs in every other update, as in the first pass over a batch and in later ones."""
    return [s for s in make_samples(with_old=update % 2 == 1) if num_targets(s)]


def batches_of(update: int, *, size: int) -> tuple[list[list[Batch]], Counts]:
    """The batches of each rank: shared out evenly, unevenly, and with nothing for the last rank, in turn."""
    samples = samples_of(update)
    batches = pack(samples, token_budget=BUDGET)
    assert len(batches) >= 3
    if size == 1:
        shares = [list(range(len(batches)))]
    elif update % 3 == 0:
        shares = ranks.share(batches, ranks=size)
    else:
        cut = len(batches) - 1 if update % 3 == 1 else len(batches)
        shares = [list(range(cut)), list(range(cut, len(batches)))]
    return [[batches[i] for i in own] for own in shares], count(samples)


def train(learner: Learner, rank: int, size: int, updates: Sequence[int]) -> Trained:
    """Updates with the same data whatever the number of ranks."""
    out = Trained({}, [], [], [])
    for update in updates:
        shares, counts = batches_of(update, size=size)
        own = shares[rank]
        # In two calls, as when an update is computed in parts.
        learner.forward_backward(own[:1], counts=counts)
        learner.forward_backward(own[1:], counts=counts)
        stats = learner.optim_step()
        out.norms.append(stats.grad_norm)
        out.rates.append(stats.lr)
        out.metrics.append(dict(stats.metrics))  # type: ignore[arg-type]
    out.weights = {name: tensor.clone() for name, tensor in learner.weights()}
    return out


def trained(rank: int, size: int, setup: Setup, updates: Sequence[int]) -> Trained:
    """A new learner after some updates."""
    return train(make(setup), rank, size, updates)


def merged(parts: Sequence[Trained]) -> list[dict[str, float]]:
    """Metrics per update, over the ranks."""
    return [values(merge(part.metrics[i] for part in parts)) for i in range(len(parts[0].metrics))]  # type: ignore

"""The gradient of one update does not depend on how its sequences are cut into micro-batches or ordered in them.

Every loss with every aggregate: the sum over micro-batches, divided once by the global count, against one batch of all
sequences. Means of micro-batch means would fail here. A new file in `rlhf/losses` has to add its cases.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch
from batches import TinyModel, pack
from torch import Tensor

from rlhf.core import component
from rlhf.core.metrics import merge, values
from rlhf.core.protocols import Counts, LossModule
from rlhf.core.training import Sample
from rlhf.losses import ce, common, policy, prm, value

VOCAB = 6


@dataclass(frozen=True)
class Case:
    """One loss with one config."""

    name: str
    module: Any
    cfg: Any


POLICY_TERMS: dict[str, dict[str, Any]] = {
    "clip": {"tis_cap": None},
    "dual_clip": {"tis_cap": None, "dual_clip": 1.5},
    "tis": {"tis_cap": 1.2},
    "k1": {"kl_coef": 0.3, "kl_estimator": "k1"},
    "k2": {"kl_coef": 0.3, "kl_estimator": "k2"},
    "k3": {"kl_coef": 0.3, "kl_estimator": "k3"},
    "entropy": {"entropy_coef": 0.2},
}
CASES = [
    *(Case(f"ce-{how}", ce, ce.Config(aggregate=how)) for how in ("token", "sequence")),
    *(
        Case(f"policy-{how}-{term}", policy, policy.Config(aggregate=how, constant_length=9, **options))
        for how in common.DENOMINATORS
        for term, options in POLICY_TERMS.items()
    ),
    *(
        Case(f"value-{how}-{clip}", value, value.Config(aggregate=how, clip=clip))
        for how in value.AGGREGATES
        for clip in (None, 0.3)
    ),
    *(Case(f"prm-{how}", prm, prm.Config(aggregate=how, bad_weight=1.7)) for how in prm.AGGREGATES),
]


def make_samples(*, with_old: bool) -> list[Sample]:
    """Eight sequences of very unequal length; one has a hole in its targets, one has no target at all."""
    rng, critic = random.Random(7), random.Random(8)
    samples: list[Sample] = []
    for i, count in enumerate([1, 9, 2, 5, 1, 12, 4, 3]):

        def draw(count: int = count) -> tuple[float, ...]:
            return tuple(rng.uniform(-3.0, -0.5) for _ in range(count))

        mask = {3: (True, False, False, True, True), 7: (False, False, False)}.get(i)
        samples.append(
            Sample(
                id=f"s{i}",
                tokens=tuple(rng.randrange(VOCAB) for _ in range(2 + count)),
                target_start=2,
                target_mask=mask,
                advantages=(rng.choice([-1.5, 0.0, 0.7]),) * count,
                old_logprobs=draw() if with_old else None,
                rollout_logprobs=draw(),
                ref_logprobs=draw(),
                values=tuple(critic.uniform(-0.5, 0.5) for _ in range(count)),
                returns=tuple(critic.random() for _ in range(count)),
            )
        )
    return samples


def count(samples: Sequence[Sample]) -> Counts:
    """What the learner counts: targets, and sequences that have any."""
    targets = [len(s.tokens) - s.target_start if s.target_mask is None else sum(s.target_mask) for s in samples]
    return Counts(tokens=sum(targets), sequences=sum(n > 0 for n in targets))


@dataclass(frozen=True)
class Update:
    """What one update computes."""

    loss: float
    gradients: list[Tensor]
    metrics: dict[str, float]


def update(case: Case, micro_batches: Sequence[Sequence[Sample]], counts: Counts) -> Update:
    """Accumulate over micro-batches and divide once, as the learner does."""
    module = cast(LossModule, case.module)
    model = TinyModel(vocab=VOCAB)
    total, metrics = 0.0, []
    for samples in micro_batches:
        batch = pack(samples)
        out = module.loss(model.values(batch) if case.module in (value, prm) else model(batch), batch, case.cfg)
        scaled = out.total / common.divisor(module.denominator(case.cfg), counts)
        scaled.backward()
        total += scaled.item()
        metrics.append(out.metrics)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return Update(total, gradients, values(merge(metrics)))


def partitions(samples: list[Sample]) -> list[list[list[Sample]]]:
    """One sample each, halves, a lopsided cut, and two random orders with random cuts."""
    out = [[[s] for s in samples], [samples[:4], samples[4:]], [samples[:1], samples[1:]], [samples[::-1]]]
    for seed in (1, 2):
        rng = random.Random(seed)
        order = rng.sample(samples, len(samples))
        cuts = [0, *sorted(rng.sample(range(1, len(order)), 3)), len(order)]
        out.append([order[a:b] for a, b in itertools.pairwise(cuts)])
    return out


@pytest.mark.parametrize("with_old", [True, False], ids=["old", "no_old"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_micro_batches_and_packing_order_change_nothing(case: Case, with_old: bool) -> None:
    samples = make_samples(with_old=with_old)
    counts = count(samples)
    whole = update(case, [samples], counts)
    assert max(g.abs().max().item() for g in whole.gradients) > 1e-3
    for micro_batches in partitions(samples):
        got = update(case, micro_batches, counts)
        assert got.loss == pytest.approx(whole.loss, rel=1e-9, abs=1e-12)
        assert got.metrics == pytest.approx(whole.metrics, rel=1e-9, abs=1e-12)
        for a, b in zip(got.gradients, whole.gradients, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mean_of_micro_batch_means_would_be_noticed(case: Case) -> None:
    samples = make_samples(with_old=True)
    whole = update(case, [samples], count(samples))
    parts = [samples[:1], samples[1:]]
    means = [update(case, [part], count(part)) for part in parts]
    averaged = [(a + b) / 2 for a, b in zip(means[0].gradients, means[1].gradients, strict=True)]
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(averaged, whole.gradients, strict=True))


@pytest.mark.parametrize("case", [c for c in CASES if c.module is policy], ids=lambda case: case.name)
def test_zero_advantage_is_free_keeps_its_word(case: Case) -> None:
    """Sequences without a signal may be skipped exactly when the loss says so, their count staying in the divisor."""
    samples = make_samples(with_old=True)
    counts = count(samples)
    skipped = [s for s in samples if any(s.advantages or ())]
    assert len(skipped) < len(samples)
    a, b = update(case, [samples], counts), update(case, [skipped], counts)
    same = all(torch.allclose(x, y, rtol=1e-9, atol=1e-12) for x, y in zip(a.gradients, b.gradients, strict=True))
    assert same == policy.zero_advantage_is_free(case.cfg)


def test_sequences_do_not_see_each_other() -> None:
    """Guards the stand-in model: a sequence's log-probs are the same alone and packed."""
    samples = [replace(s, old_logprobs=None) for s in make_samples(with_old=False)]
    model = TinyModel(vocab=VOCAB)
    alone = torch.cat([model(pack([s])).logprobs_T for s in samples])
    assert torch.allclose(model(pack(samples)).logprobs_T, alone, rtol=0, atol=1e-15)


def test_every_loss_has_a_case() -> None:
    assert {case.module.__name__.rsplit(".", 1)[-1] for case in CASES} == set(component.names("rlhf.losses"))

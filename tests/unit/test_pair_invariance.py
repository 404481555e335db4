"""The gradient of an update on pairs, or on judged answers, depends neither on micro-batches, nor on the order in which
they are packed, nor on the ranks that share them. What `test_gradient_invariance` shows for losses of single sequences.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pair_cases
import pytest
import torch
from batches import TinyModel
from batches import pack as plain
from pair_cases import ALL, Case
from torch import Tensor

from rlhf.core.metrics import merge, values
from rlhf.core.training import Batch, Sample
from rlhf.data import packing
from rlhf.learner.ranks import share
from rlhf.losses import common

VOCAB = 6
every_case = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


def make_units(case: Case) -> list[list[Sample]]:
    """Six pairs of very unequal lengths with shared prompts; neither answer of the last one has a target."""
    rng = random.Random(3)
    units: list[list[Sample]] = []
    for n, lengths in enumerate([(1, 9), (4, 2), (1, 1), (12, 3), (5, 6), (2, 2)]):
        prompt = tuple(rng.randrange(VOCAB) for _ in range(2))
        unit: list[Sample] = []
        for label, length in zip((1.0, 0.0), lengths, strict=True):
            scored = case in pair_cases.SCORED
            mask = (False,) * (length - 1) + (True,) if scored else (True,) * length
            unit.append(
                Sample(
                    id=f"p{n}/{label}",
                    tokens=(*prompt, *(rng.randrange(VOCAB) for _ in range(length))),
                    target_start=2,
                    target_mask=(False,) * length if n == 5 else mask,
                    unit=f"p{n}",
                    label=label,
                    anchor=0.4,
                    ref_logprobs=tuple(rng.uniform(-3.0, -0.5) for _ in range(length)),
                )
            )
        units.append(unit)
    return units


def flat(units: Sequence[Sequence[Sample]]) -> list[Sample]:
    return [sample for unit in units for sample in unit]


@dataclass(frozen=True)
class Update:
    """What one update computes."""

    loss: float
    gradients: list[Tensor]
    metrics: dict[str, float]


def update(case: Case, batches: Sequence[Batch], *, divisor: int) -> Update:
    """Accumulate over micro-batches and divide once, as the learner does."""
    model = TinyModel(vocab=VOCAB)
    total, metrics = 0.0, []
    for batch in batches:
        out = case.module.loss(model.values(batch) if case in pair_cases.SCORED else model(batch), batch, case.cfg)
        scaled = out.total / divisor
        scaled.backward()
        total += scaled.item()
        metrics.append(out.metrics)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return Update(total, grads, values(merge(metrics)))


def divisor(case: Case, units: Sequence[Sequence[Sample]]) -> int:
    return common.divisor(case.module.denominator(case.cfg), packing.count(flat(units)))


def same(got: Update, want: Update) -> None:
    assert got.loss == pytest.approx(want.loss, rel=1e-9, abs=1e-12)
    assert got.metrics == pytest.approx(want.metrics, rel=1e-9, abs=1e-12)
    for a, b in zip(got.gradients, want.gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@every_case
def test_micro_batches_and_packing_order_change_nothing(case: Case) -> None:
    units = make_units(case)
    by = divisor(case, units)
    assert by == (10 if case in pair_cases.JUDGED else 5)
    whole = update(case, [plain(flat(units))], divisor=by)
    assert max(g.abs().max().item() for g in whole.gradients) > 1e-3
    cuts = [[[u] for u in units], [units[:3], units[3:]], [units[:1], units[1:]], [[u[::-1] for u in units[::-1]]]]
    for seed in (1, 2):
        rng = random.Random(seed)
        order = rng.sample(units, len(units))
        at = [0, *sorted(rng.sample(range(1, len(order)), 2)), len(order)]
        cuts.append([order[a:b] for a, b in itertools.pairwise(at)])
    for parts in cuts:
        same(update(case, [plain(flat(part)) for part in parts], divisor=by), whole)


@every_case
def test_budgets_shared_prompts_and_ranks_change_nothing(case: Case) -> None:
    """As the loops pack them; gradients of ranks add up, as DeepSpeed's and gloo's sums do."""
    units = make_units(case)
    by, kept = divisor(case, units), flat(units[:5])
    whole = update(case, packing.pack(kept, token_budget=1000), divisor=by)
    for budget, ranks in ((30, 1), (1000, 2), (30, 3)):
        batches = packing.pack(kept, token_budget=budget, multiple=ranks)
        assert len(batches) >= ranks
        each = [update(case, [batches[i] for i in own], divisor=by) for own in share(batches, ranks=ranks)]
        for n, gradient in enumerate(whole.gradients):
            assert torch.allclose(sum(u.gradients[n] for u in each), gradient, rtol=1e-9, atol=1e-12)
        assert sum(u.loss for u in each) == pytest.approx(whole.loss, rel=1e-9)


@every_case
def test_a_mean_of_micro_batch_means_would_be_noticed(case: Case) -> None:
    units = make_units(case)[:5]
    whole = update(case, [plain(flat(units))], divisor=divisor(case, units))
    parts = [units[:1], units[1:]]
    means = [update(case, [plain(flat(part))], divisor=divisor(case, part)) for part in parts]
    averaged = [(a + b) / 2 for a, b in zip(means[0].gradients, means[1].gradients, strict=True)]
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(averaged, whole.gradients, strict=True))


def test_answers_do_not_see_each_other() -> None:
    """Guards the packing of pairs: with a shared prompt each answer has the log-probs that it has alone."""
    samples = [replace(s, ref_logprobs=None) for s in flat(make_units(pair_cases.PAIRED[0])[:5])]
    model = TinyModel(vocab=VOCAB)
    alone = {s.id: model(plain([s])).logprobs_T for s in samples}
    (batch,) = packing.pack(samples, token_budget=1000)
    together = model(batch).logprobs_T.split([int(n) for n in batch.target_counts_S])
    for name, logprobs_T in zip(batch.ids, together, strict=True):
        assert torch.allclose(logprobs_T, alone[name], rtol=0, atol=1e-15)

"""The loss over several answers: by hand, its limits, its weights, and finite differences."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from batches import TinyModel, forward_of, forward_of_logits, numeric_gradient, pack, targets
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.training import Batch, Denominator, LossOut, Sample
from rlhf.data.packing import pack as pack_under
from rlhf.losses import ce, mml
from rlhf.losses.mml import Config

SCORES = [-1.0, -3.0, -2.5]


def units(counts: Sequence[int], of: Sequence[int]) -> Batch:
    return replace(targets(counts), unit_S=torch.tensor(of))


def single(beta: float) -> LossOut:
    """One question with three answers of one token each."""
    return mml.loss(forward_of(SCORES), units([1, 1, 1], [0, 0, 0]), Config(beta=beta))


def weights(beta: float) -> list[float]:
    forward = forward_of(SCORES)
    mml.loss(forward, units([1, 1, 1], [0, 0, 0]), Config(beta=beta)).total.backward()
    assert forward.logprobs_T.grad is not None
    return (-forward.logprobs_T.grad).tolist()


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_the_sum_by_hand(beta: float) -> None:
    want = -math.log(sum(math.exp(beta * s) for s in SCORES)) / beta
    assert single(beta).total.item() == pytest.approx(want, abs=1e-12)


def test_scores_are_sums_over_the_targets_of_an_answer() -> None:
    # Two answers of two and one tokens, then another question with one.
    out = mml.loss(forward_of([-1.0, -2.0, -0.5, -4.0]), units([2, 1, 1], [0, 0, 1]), Config(beta=1.0))
    assert out.total.item() == pytest.approx(-math.log(math.exp(-3) + math.exp(-0.5)) + 4.0, abs=1e-12)
    assert out.metrics["mml/answers"].value == 1.5


def test_each_answer_weighs_by_a_power_of_its_probability() -> None:
    for beta in (1.0, 0.25):
        powers = [math.exp(beta * s) for s in SCORES]
        assert weights(beta) == pytest.approx([p / sum(powers) for p in powers], abs=1e-12)


def test_the_limits_of_beta() -> None:
    assert weights(0.0) == pytest.approx([1 / 3] * 3, abs=1e-12), "all the same"
    assert weights(1e-9) == pytest.approx(weights(0.0), abs=1e-8), "and that is where it goes to"
    assert single(0.0).total.item() == pytest.approx(-sum(SCORES) / 3, abs=1e-12)
    near = single(1e-4).total.item() + math.log(3) / 1e-4
    assert near == pytest.approx(-sum(SCORES) / 3, abs=1e-3), "but for a constant"
    marginal = -math.log(sum(map(math.exp, SCORES)))
    assert single(1.0).total.item() == pytest.approx(marginal, abs=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
def test_with_one_answer_it_is_cross_entropy(beta: float) -> None:
    ours, theirs = forward_of([-1.0, -2.0, -3.0]), forward_of([-1.0, -2.0, -3.0])
    mml.loss(ours, units([2, 1], [0, 1]), Config(beta=beta)).total.backward()
    ce.loss(theirs, targets([2, 1]), ce.Config()).total.backward()
    assert ours.logprobs_T.grad is not None and theirs.logprobs_T.grad is not None
    torch.testing.assert_close(ours.logprobs_T.grad, theirs.logprobs_T.grad, rtol=0, atol=1e-15)


def test_a_very_unlikely_answer_has_a_small_weight_and_no_nan() -> None:
    forward = forward_of([-2000.0, -2001.0, -5000.0])
    out = mml.loss(forward, units([1, 1, 1], [0, 0, 0]), Config(beta=1.0))
    assert out.total.item() == pytest.approx(2000 - math.log(1 + math.exp(-1)), abs=1e-9)
    out.total.backward()
    assert forward.logprobs_T.grad is not None and forward.logprobs_T.grad.isfinite().all()
    assert out.metrics["mml/effective_answers"].value == pytest.approx(
        (1 + math.exp(-1)) ** 2 / (1 + math.exp(-2)), abs=1e-6
    )


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
def test_gradient_matches_finite_differences(beta: float) -> None:
    logits_TV = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens_T, batch, cfg = torch.tensor([3, 0, 1, 1, 2, 0]), units([2, 3, 1], [0, 0, 1]), Config(beta=beta)

    def total(x: Tensor) -> Tensor:
        return mml.loss(forward_of_logits(x, tokens_T), batch, cfg).total

    leaf = logits_TV.clone().requires_grad_()
    (got,) = torch.autograd.grad(total(leaf), leaf)
    torch.testing.assert_close(got, numeric_gradient(total, logits_TV), atol=1e-8, rtol=0)


def answered() -> list[Sample]:
    """Four questions with one to four answers of unequal length."""
    rng, out = random.Random(3), list[Sample]()
    for question, answers in enumerate([3, 1, 4, 2]):
        for answer in range(answers):
            tokens = tuple(rng.randrange(6) for _ in range(3 + rng.randrange(6)))
            out.append(Sample(id=f"{question}/{answer}", tokens=tokens, target_start=2, unit=str(question)))
    return out


def gradient(micro_batches: Sequence[Sequence[Sample]], cfg: Config) -> list[Tensor]:
    model = TinyModel(vocab=6)
    for batch in map(pack, micro_batches):
        (mml.loss(model(batch), batch, cfg).total / 4).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
def test_the_gradient_depends_neither_on_micro_batches_nor_on_order(beta: float) -> None:
    """Questions stay whole; how they are spread, and how answers are ordered in them, changes nothing."""
    samples, cfg = answered(), Config(beta=beta)
    by_unit = [[s for s in samples if s.unit == unit] for unit in "0123"]
    orders = [by_unit, [samples[::-1]], [by_unit[3] + by_unit[0], by_unit[2] + by_unit[1]]]
    by_id = {s.id: s for s in samples}
    budgeted = [[by_id[name] for name in batch.ids] for batch in pack_under(samples, token_budget=25)]
    assert len(budgeted) > 1
    for micro_batches in (*orders, budgeted):
        for ours, whole in zip(gradient(micro_batches, cfg), gradient([samples], cfg), strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_log_prob_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="sample 's1'"):
        mml.loss(forward_of([-1.0, value]), units([1, 1], [0, 0]), Config())


def test_what_it_declares_and_refuses() -> None:
    assert mml.denominator(Config()) is Denominator.UNITS and mml.streams(Config()) == ()
    assert not mml.zero_advantage_is_free(Config())
    with pytest.raises(ConfigError, match="beta"):
        Config(beta=1.5)

"""Aggregation weights, KL estimators against exact values and gradients, metrics, and refused streams."""

from __future__ import annotations

import math

import pytest
import torch
from batches import targets
from torch import Tensor

from rlhf.core.metrics import Max, Mean, Min, merge
from rlhf.core.protocols import Counts
from rlhf.core.training import Denominator, Stream
from rlhf.losses import common

LOGITS = torch.tensor([0.3, -1.2, 0.8, 0.1, -0.4], dtype=torch.float64)
REF = torch.tensor([-0.5, 0.4, 0.2, 1.0, -1.1], dtype=torch.float64).log_softmax(0)


def test_aggregate_weighs_tokens_as_the_table_says() -> None:
    batch = targets([2, 0, 4])
    loss_T = torch.tensor([1.0, 3.0, 2.0, 2.0, 6.0, 10.0], dtype=torch.float64)
    assert common.aggregate(loss_T, batch, "token").item() == 24.0
    assert common.aggregate(loss_T, batch, "sequence").item() == 2.0 + 5.0
    assert common.aggregate(loss_T, batch, "constant", constant_length=8).item() == 3.0


def test_sequence_weights_are_exact_in_float64() -> None:
    loss_T = torch.ones(3, dtype=torch.float64)
    assert common.aggregate(loss_T, targets([3]), "sequence").item() == pytest.approx(1.0, abs=1e-15)


def test_only_the_token_denominator_counts_tokens() -> None:
    counts = Counts(tokens=24, sequences=4, units=2)
    assert [common.divisor(d, counts) for d in Denominator] == [24, 4, 2, 4]


@pytest.mark.parametrize(("estimator", "expected"), [("k1", -0.5), ("k2", 0.125), ("k3", math.exp(0.5) - 1.5)])
def test_kl_by_hand(estimator: str, expected: float) -> None:
    # log r = ref - logprob = -1.0 - (-1.5) = 0.5
    got = common.kl(torch.tensor([-1.5]), torch.tensor([-1.0]), estimator=estimator)
    assert got.item() == pytest.approx(expected, rel=1e-6)


def exact_kl(a: Tensor, b: Tensor) -> Tensor:
    return (a.exp() * (a - b)).sum()


@pytest.mark.parametrize("estimator", ["k1", "k3", "k1+", "k3+"])
def test_k1_and_k3_have_the_exact_kl_as_their_mean(estimator: str) -> None:
    policy = LOGITS.log_softmax(0)
    mean = (policy.exp() * common.kl(policy, REF, estimator=estimator)).sum()
    assert mean.item() == pytest.approx(exact_kl(policy, REF).item(), abs=1e-14)


def test_k2_is_biased_and_k3_is_never_negative() -> None:
    policy = LOGITS.log_softmax(0)
    mean = (policy.exp() * common.kl(policy, REF, estimator="k2")).sum()
    assert abs(mean.item() - exact_kl(policy, REF).item()) > 0.005
    assert (common.kl(policy, REF, estimator="k3") >= 0).all()
    assert (common.kl(policy, REF, estimator="k1") < 0).any()


@pytest.mark.parametrize("estimator", common.KL_ESTIMATORS)
def test_expected_gradient_of_each_kl_estimator(estimator: str) -> None:
    """Sampling is replaced by its exact expectation over all five symbols, with frozen probabilities."""
    logits = LOGITS.clone().requires_grad_()
    policy = logits.log_softmax(0)
    expected_loss = (policy.exp().detach() * common.kl(policy, REF, estimator=estimator)).sum()
    (got,) = torch.autograd.grad(expected_loss, logits, retain_graph=True)
    (reverse,) = torch.autograd.grad(exact_kl(policy, REF), logits, retain_graph=True)
    (forward,) = torch.autograd.grad(exact_kl(REF, policy), logits)
    want = {"k1": torch.zeros_like(got), "k3": forward}.get(estimator, reverse)
    assert torch.allclose(got, want, rtol=0, atol=1e-15)
    assert not torch.allclose(reverse, forward, atol=0.01)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_straight_through_is_the_value_of_one_with_the_gradient_of_k2(estimator: str) -> None:
    logprobs = torch.tensor([-1.5, -0.2, -3.0, -60.0], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([-1.0, -0.9, -3.0, -1.0], dtype=torch.float64)
    got = common.kl(logprobs, ref, estimator=f"{estimator}+")
    assert got.tolist() == pytest.approx(common.kl(logprobs, ref, estimator=estimator).tolist(), rel=1e-13)
    gradients = [torch.autograd.grad(x.sum(), logprobs)[0] for x in (got, common.kl(logprobs, ref, estimator="k2"))]
    assert gradients[0].tolist() == gradients[1].tolist()


def test_k3_times_the_ratio_has_the_gradient_of_k2_at_ratio_1() -> None:
    """TRL's `use_bias_correction_kl`, on-policy."""
    logprobs = LOGITS.log_softmax(0).requires_grad_()
    weighed = common.ratio(logprobs, logprobs.detach()) * common.kl(logprobs, REF, estimator="k3")
    through = common.kl(logprobs, REF, estimator="k3+")
    assert weighed.tolist() == pytest.approx(through.tolist(), rel=1e-13)
    gradients = [torch.autograd.grad(x.sum(), logprobs)[0] for x in (weighed, through)]
    assert torch.allclose(gradients[0], gradients[1], rtol=0, atol=1e-15)


def test_kl_values_are_bounded_but_distant_tokens_keep_a_gradient() -> None:
    for estimator, far, limit in [("k1", 50.0, 20.0), ("k2", 50.0, 200.0), ("k3", 50.0, 10.0)]:
        for sign in (1, -1):
            logprob = torch.tensor([-60.0 if sign > 0 else -1.0], dtype=torch.float64, requires_grad=True)
            got = common.kl(logprob, logprob.detach() + sign * far, estimator=estimator)
            assert abs(got.item()) == pytest.approx(limit, abs=1e-12)
            (gradient,) = torch.autograd.grad(got.sum(), logprob)
            assert 0.9 < abs(gradient.item()) <= 20.0
            if estimator != "k1":
                assert gradient.sign().item() == -sign, "descent moves the log-prob towards the reference"


def test_k3_bounds_are_where_k3_is_ten() -> None:
    assert [math.expm1(x) - x for x in common.K3_BOUNDS] == pytest.approx([10.0, 10.0], abs=1e-12)


def test_ratio_survives_absurd_log_ratios() -> None:
    got = common.ratio(torch.tensor([0.0, -900.0, -1.0]), torch.tensor([-900.0, 0.0, -2.0]))
    assert got.tolist() == pytest.approx([math.exp(20), math.exp(-20), math.e])


def test_measure_keeps_totals_and_counts_so_that_unequal_parts_merge_to_the_whole() -> None:
    whole = torch.tensor([1.0, 2.0, 3.0, 10.0])
    parts = [whole[:1], whole[1:], whole[:0]]
    got = merge(common.measure({"mean": (Mean, p), "max": (Max, p), "min": (Min, p)}) for p in parts)
    assert got == {"mean": Mean(16.0, 4), "max": Max(10.0), "min": Min(1.0)}
    assert common.measure({"share": (Mean, whole > 2)}) == {"share": Mean(2.0, 4)}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["advantages", "old", "rollout", "ref"])
def test_a_value_that_is_not_finite_names_its_sample(name: str, bad: float) -> None:
    fine = {stream: [-0.5, -0.1, -0.2, -0.3] for stream in ("advantages", "old", "rollout", "ref")}
    common.check_finite(targets([1, 3], **fine))
    common.check_finite(targets([1, 3]))
    with pytest.raises(ValueError, match=rf"{name}.*'s1' is {bad} at its target 1,"):
        common.check_finite(targets([1, 3], **(fine | {name: [-0.5, -0.1, bad, -0.3]})))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_log_probs_of_the_model_are_looked_at_too(bad: float) -> None:
    batch = targets([1, 3], advantages=[1.0] * 4)
    common.check_finite(batch, torch.tensor([-0.5, -0.1, -0.2, -0.3]))
    with pytest.raises(ValueError, match=rf"sample 's1': the model's log-prob of its target 2, .* is {bad}"):
        common.check_finite(batch, torch.tensor([-0.5, -0.1, -0.2, bad]))


def test_sums_and_means_over_sequences_stand_at_their_tokens() -> None:
    batch = targets([2, 0, 3])
    x_T = torch.tensor([1.0, 3.0, 2.0, 2.0, 5.0], dtype=torch.float64, requires_grad=True)
    assert common.sequence_sum(x_T, batch).tolist() == [4.0, 4.0, 9.0, 9.0, 9.0]
    assert common.sequence_mean(x_T, batch).tolist() == [2.0, 2.0, 3.0, 3.0, 3.0]
    assert torch.autograd.gradcheck(lambda x: common.sequence_mean(x, batch), (x_T,))
    assert common.sequence_sum(torch.zeros(0), targets([0])).tolist() == []


def test_a_missing_stream_is_named() -> None:
    with pytest.raises(ValueError, match="ref_logprobs"):
        common.stream(targets([2], advantages=[1.0, 1.0]), Stream.REF_LOGPROBS)

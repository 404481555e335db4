"""Cross-entropy by hand and against finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import forward_of, forward_of_logits, numeric_gradient, targets

from rlhf.core.errors import ConfigError
from rlhf.core.training import Denominator
from rlhf.losses import ce


def test_token_aggregate_is_the_sum_of_negative_logprobs() -> None:
    out = ce.loss(forward_of([-1.0, -2.0, -3.0, -0.5], [0.5, 0.5, 1.0, 2.0]), targets([1, 3]), ce.Config())
    assert out.total.item() == 6.5
    assert {key: metric.value for key, metric in out.metrics.items()} == {
        "train/ce_loss": 6.5 / 4,
        "train/entropy": 1.0,
    }


def test_sequence_aggregate_is_the_sum_of_sequence_means() -> None:
    cfg = ce.Config(aggregate="sequence")
    forward = forward_of([-1.0, -2.0, -3.0, -0.5])
    out = ce.loss(forward, targets([1, 3]), cfg)
    assert out.total.item() == pytest.approx(1.0 + 5.5 / 3, abs=1e-15)
    out.total.backward()
    assert forward.logprobs_T.grad is not None
    assert forward.logprobs_T.grad.tolist() == pytest.approx([-1, -1 / 3, -1 / 3, -1 / 3], abs=1e-15)


def test_what_it_declares() -> None:
    assert ce.denominator(ce.Config()) is Denominator.TOKENS
    assert ce.denominator(ce.Config(aggregate="sequence")) is Denominator.SEQUENCES
    assert ce.streams(ce.Config()) == ()
    assert not ce.zero_advantage_is_free(ce.Config())


def test_an_unknown_aggregate_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'token'") as caught:
        ce.Config(aggregate="tokens")
    assert caught.value.where == "aggregate"


def test_weights_count_in_the_sum_and_not_in_what_it_is_divided_by() -> None:
    forward, weights = forward_of([-1.0, -2.0, -3.0, -0.5]), torch.tensor([2.0, 0.0, 1.0, 0.5], dtype=torch.float64)
    batch = replace(targets([1, 3]), weights_T=weights)
    out = ce.loss(forward, batch, ce.Config())
    assert out.total.item() == 2.0 + 3.0 + 0.25
    assert out.metrics["train/ce_loss"].value == 6.5 / 4, "as it is without weights"
    out.total.backward()
    assert forward.logprobs_T.grad is not None and (-forward.logprobs_T.grad).tolist() == weights.tolist()
    assert ce.loss(forward, batch, ce.Config(aggregate="sequence")).total.item() == pytest.approx(2.0 + 3.25 / 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused(value: float) -> None:
    batch = replace(targets([1, 1]), weights_T=torch.tensor([1.0, value]))
    with pytest.raises(ValueError, match="weights of sample 's1'"):
        ce.loss(forward_of([-1.0, -2.0]), batch, ce.Config())


@pytest.mark.parametrize("aggregate", ["token", "sequence"])
def test_gradient_matches_finite_differences(aggregate: str) -> None:
    logits_TV = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens_T, batch, cfg = torch.tensor([3, 0, 1, 1, 2]), targets([2, 3]), ce.Config(aggregate=aggregate)

    def total(x: torch.Tensor) -> torch.Tensor:
        return ce.loss(forward_of_logits(x, tokens_T), batch, cfg).total

    leaf = logits_TV.clone().requires_grad_()
    (got,) = torch.autograd.grad(total(leaf), leaf)
    assert torch.allclose(got, numeric_gradient(total, logits_TV), atol=1e-8)

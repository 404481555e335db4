"""Length-normalised DPO by hand."""

from __future__ import annotations

import math

import pytest
from pair_cases import batch, said, values

from rlhf.losses import dpo, dpo_norm


def test_log_ratios_per_token() -> None:
    # d_w = 1 over two tokens, d_l = -2 over one: a margin of 2.5 per token.
    out = dpo_norm.loss(said(-0.4, -0.6, -2.5), batch([2, 1], ref=[-1.0, -1.0, -0.5]), dpo_norm.Config(beta=2.0))
    assert out.total.item() == pytest.approx(math.log(1 + math.exp(-5.0)))
    assert values(out)["rewards/margins"] == pytest.approx(5.0)
    assert values(out)["logps/chosen_drift"] == pytest.approx(1.0), "drifts are sums"


def test_answers_of_equal_length_are_those_of_dpo_with_another_beta() -> None:
    known = batch([2, 2], ref=[-1.0, -1.0, -0.5, -0.7])
    one = dpo_norm.loss(said(-0.4, -0.6, -2.5, -0.1), known, dpo_norm.Config(beta=0.6)).total
    two = dpo.loss(said(-0.4, -0.6, -2.5, -0.1), known, dpo.Config(beta=0.3)).total
    assert one.item() == pytest.approx(two.item())


def test_repeating_an_answer_is_no_reward() -> None:
    once = dpo_norm.loss(said(-0.4, -1.0), batch([1, 1], ref=[-0.9, -0.9]), dpo_norm.Config()).total
    longer = batch([3, 1], ref=[-0.9, -0.9, -0.9, -0.9])
    assert dpo_norm.loss(said(-0.4, -0.4, -0.4, -1.0), longer, dpo_norm.Config()).total.item() == pytest.approx(
        once.item()
    )


def test_its_beta_is_that_of_tulu_3() -> None:
    assert dpo_norm.Config().beta == 5.0

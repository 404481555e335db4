"""GSPO by hand in both forms, where they agree and where they do not, and what it is at length 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from batches import forward_of, numeric_gradient, targets

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import values
from rlhf.losses import gspo, policy
from rlhf.losses.correction import Correction
from rlhf.losses.gspo import Config

OFF = Correction(tis_cap=None)
# Three answers of 2, 1 and 3 tokens, whose ratios are the roots of 4, 0.5 and 1.
COUNTS = (2, 1, 3)
OLD = [-1.0, -2.0, -0.5, -3.0, -1.5, -2.5]
LOG_RATIOS = [math.log(8), math.log(0.5), math.log(0.5), 0.3, -0.1, -0.2]
NEW = [o + r for o, r in zip(OLD, LOG_RATIOS, strict=True)]
WIDE = {"clip_low": 0.6, "clip_high": 1.5, "correction": OFF}


def run(cfg: Config, advantages: Sequence[float], counts: Sequence[int] = COUNTS) -> tuple[float, list[float]]:
    forward = forward_of(NEW)
    out = gspo.loss(forward, targets(counts, advantages=list(advantages), old=OLD), cfg)
    out.total.backward()
    assert forward.logprobs_T.grad is not None
    return out.total.item(), forward.logprobs_T.grad.tolist()


def near(expected: object) -> object:
    return pytest.approx(expected, abs=1e-12)


def test_one_ratio_per_answer_averaged_over_its_tokens() -> None:
    # s = 2, 0.5, 1: inside the range; per answer -A s, and its gradient by each of T log-probs -A s / T.
    total, gradient = run(Config(**WIDE), [1, 1, -2, 3, 3, 3])
    assert total == near(-2.0 + 1.0 - 3.0)
    assert gradient == near([-1.0, -1.0, 1.0, -1.0, -1.0, -1.0])


def test_an_answer_is_clipped_whole() -> None:
    cfg = Config(clip_low=0.2, clip_high=0.3, correction=OFF)
    total, gradient = run(cfg, [1, 1, -2, 3, 3, 3])
    assert total == near(-1.3 + 1.6 - 3.0)
    assert gradient == near([0.0, 0.0, 0.0, -1.0, -1.0, -1.0])
    # On the other side of each advantage the clip does not bind.
    total, gradient = run(cfg, [-1, -1, 2, 3, 3, 3])
    assert total == near(2.0 - 1.0 - 3.0)
    assert gradient == near([1.0, 1.0, -1.0, -1.0, -1.0, -1.0])


@pytest.mark.parametrize("aggregate", ["token", "sequence", "constant"])
def test_both_forms_are_the_same_where_an_answer_has_one_advantage(aggregate: str) -> None:
    for clips in ({}, {"clip_low": 0.2, "clip_high": 0.3}):
        shared = WIDE | clips | {"aggregate": aggregate, "constant_length": 7}
        whole = run(Config(**shared), [1, 1, -2, 3, 3, 3])
        token = run(Config(**shared, form="token"), [1, 1, -2, 3, 3, 3])
        assert token[0] == near(whole[0]) and token[1] == near(whole[1])


def test_the_token_form_gives_each_token_its_own_advantage_and_the_other_their_mean() -> None:
    advantages = [2.0, 0.5, 1.0, 0.0, 3.0, -1.5]
    whole, token = run(Config(**WIDE), advantages), run(Config(**WIDE, form="token"), advantages)
    assert token[0] == near(whole[0])
    assert token[1] == near([-2.0, -0.5, -0.5, 0.0, -1.0, 0.5])
    assert whole[1] == near([-1.25, -1.25, -0.5, *[-0.5 / 3] * 3])


def test_the_token_form_against_finite_differences_with_its_constants_held() -> None:
    """s_t = sg(s) exp(l - sg(l)), with the two constants at the point where the gradient is taken."""
    advantages = torch.tensor([2.0, 0.5, 1.0, 0.0, 3.0, -1.5], dtype=torch.float64)
    at = torch.tensor(NEW, dtype=torch.float64)
    s_T = torch.tensor([2.0, 2.0, 0.5, 1.0, 1.0, 1.0], dtype=torch.float64)
    lengths = torch.tensor([2.0, 2.0, 1.0, 3.0, 3.0, 3.0], dtype=torch.float64)

    def total(new: torch.Tensor) -> torch.Tensor:
        ratio = s_T * (new - at).exp()
        clipped = ratio.clamp(0.4, 2.5)
        return (torch.maximum(-advantages * ratio, -advantages * clipped) / lengths).sum()

    _, gradient = run(Config(**WIDE, form="token"), advantages.tolist())
    assert torch.allclose(torch.tensor(gradient, dtype=torch.float64), numeric_gradient(total, at), atol=1e-8)


@pytest.mark.parametrize("form", gspo.FORMS)
def test_at_length_1_it_is_ppo(form: str) -> None:
    advantages = [1.0, -1.0, -2.0, 0.5, -0.5, 2.0]
    shared = {"clip_low": 0.2, "clip_high": 0.3, "correction": OFF, "aggregate": "sequence"}
    found = run(Config(**shared, form=form), advantages, counts=[1] * 6)
    forward = forward_of(NEW)
    out = policy.loss(forward, targets([1] * 6, advantages=advantages, old=OLD), policy.Config(**shared))
    out.total.backward()
    assert forward.logprobs_T.grad is not None
    assert found[0] == near(out.total.item()) and found[1] == near(forward.logprobs_T.grad.tolist())


def test_the_papers_range_is_the_default_and_clips_what_ppo_would_not() -> None:
    cfg = Config(correction=OFF)
    assert (cfg.clip_low, cfg.clip_high, cfg.aggregate, cfg.form) == (3e-4, 4e-4, "sequence", "sequence")
    new = [o + 0.001 for o in OLD]
    out = gspo.loss(forward_of(new), targets(COUNTS, advantages=[1.0] * 6, old=OLD), cfg)
    found = values(out.metrics)
    assert found["actor/pg_clipfrac"] == 1.0
    assert found["actor/ratio/mean"] == pytest.approx(math.exp(0.001))
    assert out.total.item() == pytest.approx(-3 * 1.0004)


@pytest.mark.parametrize(("field", "value"), [("form", "tokens"), ("clip_low", 1.1), ("clip_high", -0.1)])
def test_impossible_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    assert caught.value.where == field

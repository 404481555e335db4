"""The policy loss by hand for every branch and aggregate, its metrics, and its gradient against finite differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from batches import forward_of, forward_of_logits, numeric_gradient, targets

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import values
from rlhf.core.training import Denominator, Stream
from rlhf.losses import policy
from rlhf.losses.correction import Correction
from rlhf.losses.policy import Config

RATIOS = [1.0, 1.5, 1.5, 0.5, 0.5, 5.0]
ADVANTAGES = [2.0, 1.0, -1.0, 1.0, -1.0, -2.0]
# max(-A r, -A clip(r, 0.8, 1.2)): inside, clipped above, unclipped, unclipped, clipped below, unclipped.
SURROGATES = [-2.0, -1.2, 1.5, -0.5, 0.8, 10.0]
# d/dlogprob: -A r where the unclipped side decides, 0 where the clip does.
GRADIENTS = [-2.0, 0.0, 1.5, -0.5, 0.0, 10.0]
OLD = [-1.0, -2.0, -0.5, -3.0, -1.5, -2.5]
NEW = [old + math.log(r) for old, r in zip(OLD, RATIOS, strict=True)]
OFF = Correction(tis_cap=None)
PLAIN = Config(correction=OFF)


def run(cfg: Config, counts: Sequence[int] = (2, 4), **streams: list[float]) -> tuple[float, list[float]]:
    """Loss and gradient with respect to the log-probs."""
    forward = forward_of(NEW)
    out = policy.loss(forward, targets(counts, **({"advantages": ADVANTAGES, "old": OLD} | streams)), cfg)
    out.total.backward()
    assert forward.logprobs_T.grad is not None
    return out.total.item(), forward.logprobs_T.grad.tolist()


def near(expected: float | list[float]) -> object:
    return pytest.approx(expected, abs=1e-12)


def test_clip_on_both_sides() -> None:
    total, gradient = run(PLAIN)
    assert total == near(sum(SURROGATES))
    assert gradient == near(GRADIENTS)


def test_clip_higher_moves_only_the_upper_side() -> None:
    cfg = Config(correction=OFF, clip_high=0.28)
    assert run(cfg, advantages=[0.0, 1.0, 0.0, 0.0, 0.0, 0.0])[0] == near(-1.28)
    assert run(cfg, advantages=[0.0, 0.0, 0.0, 0.0, -1.0, 0.0])[0] == near(0.8)


def test_sequence_aggregate() -> None:
    total, gradient = run(Config(correction=OFF, aggregate="sequence"))
    assert total == near(-3.2 / 2 + 11.8 / 4)
    assert gradient == near([g / n for g, n in zip(GRADIENTS, [2, 2, 4, 4, 4, 4], strict=True)])


def test_constant_aggregate() -> None:
    total, gradient = run(Config(correction=OFF, aggregate="constant", constant_length=10))
    assert total == near(sum(SURROGATES) / 10)
    assert gradient == near([g / 10 for g in GRADIENTS])


def test_dual_clip_limits_negative_advantages_only() -> None:
    # -A c = 2 * 3 caps the last token at 6, where its gradient ends; 1.5 and 0.8 stay below -A c = 3.
    total, gradient = run(Config(correction=OFF, dual_clip=3.0))
    assert total == near(sum(SURROGATES) - 10 + 6)
    assert gradient == near([*GRADIENTS[:5], 0.0])


def test_truncated_importance_weights() -> None:
    # Weights exp(old - rollout) of 1, 1/2, 1, 4 (cut to 2), 1, 1; they scale surrogate and gradient alike.
    rollout = [old - math.log(w) for old, w in zip(OLD, [1, 0.5, 1, 4, 1, 1], strict=True)]
    total, gradient = run(Config(), rollout=rollout)
    weights = [1, 0.5, 1, 2, 1, 1]
    assert total == near(sum(w * s for w, s in zip(weights, SURROGATES, strict=True)))
    assert gradient == near([w * g for w, g in zip(weights, GRADIENTS, strict=True)])


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        ("k1", -0.5, 1.0),
        ("k2", 0.125, -0.5),
        ("k3", math.exp(0.5) - 1.5, 1 - math.exp(0.5)),
    ],
)
def test_kl_term(estimator: str, value: float, slope: float) -> None:
    # log r = ref - new = 0.5 on every token.
    cfg = Config(correction=OFF, kl_coef=0.1, kl_estimator=estimator)
    total, gradient = run(cfg, ref=[new + 0.5 for new in NEW])
    assert total == near(sum(SURROGATES) + 0.1 * 6 * value)
    assert gradient == near([g + 0.1 * slope for g in GRADIENTS])


def test_kl_is_not_importance_weighted() -> None:
    cfg = Config(kl_coef=0.1, kl_estimator="k2")
    total, _ = run(cfg, advantages=[0.0] * 6, rollout=[old - 1 for old in OLD], ref=[new + 0.5 for new in NEW])
    assert total == near(0.1 * 6 * 0.125)


def test_entropy_bonus_lowers_the_loss() -> None:
    forward = forward_of(NEW, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    batch = targets([2, 4], advantages=ADVANTAGES, old=OLD)
    out = policy.loss(forward, batch, Config(correction=OFF, entropy_coef=0.5, aggregate="sequence"))
    assert out.total.item() == near(-3.2 / 2 + 11.8 / 4 - 0.5 * (0.15 + 0.45))
    out.total.backward()
    assert forward.entropy_T.grad is not None
    assert forward.entropy_T.grad.tolist() == near([-0.25] * 2 + [-0.125] * 4)


def test_an_entropy_bonus_without_gradient_is_not_silently_dropped() -> None:
    forward = forward_of(NEW)
    forward.entropy_T.requires_grad_(False)
    with pytest.raises(AssertionError, match="entropy"):
        policy.loss(forward, targets([6], advantages=ADVANTAGES, old=OLD), Config(correction=OFF, entropy_coef=0.5))


def test_without_old_logprobs_it_is_reinforce() -> None:
    forward = forward_of(NEW)
    out = policy.loss(forward, targets([6], advantages=ADVANTAGES), PLAIN)
    out.total.backward()
    assert out.total.item() == near(-sum(ADVANTAGES))
    assert forward.logprobs_T.grad is not None
    assert forward.logprobs_T.grad.tolist() == near([-a for a in ADVANTAGES])


def test_without_old_logprobs_the_weight_compares_the_current_policy_with_the_sampler() -> None:
    forward = forward_of(NEW)
    out = policy.loss(forward, targets([6], advantages=ADVANTAGES, rollout=[n + math.log(2) for n in NEW]), Config())
    out.total.backward()
    assert forward.logprobs_T.grad is not None
    assert forward.logprobs_T.grad.tolist() == near([-a / 2 for a in ADVANTAGES])


def test_metrics() -> None:
    batch = targets([2, 4], advantages=ADVANTAGES, old=OLD, rollout=OLD, ref=[new + 0.5 for new in NEW])
    cfg = Config(dual_clip=3.0, kl_coef=0.1, kl_estimator="k2")
    got = values(policy.loss(forward_of(NEW, [0.5] * 6), batch, cfg).metrics)
    assert {key: value for key, value in got.items() if key.startswith("actor/")} == pytest.approx(
        {
            "actor/pg_loss": (sum(SURROGATES) - 4) / 6,
            "actor/ppo_kl": -sum(math.log(r) for r in RATIOS) / 6,
            "actor/pg_clipfrac": 2 / 6,
            "actor/pg_clipfrac_lower": 1 / 6,
            "actor/ratio/mean": sum(RATIOS) / 6,
            "actor/ratio/max": 5.0,
            "actor/entropy": 0.5,
            "actor/kl_loss": 0.125,
        }
    )
    assert got["rollout_corr/kl"] == 0.0
    assert got["rollout_corr/rollout_is_mean"] == 1.0


def test_mismatch_is_reported_whenever_the_sampler_says_something() -> None:
    without = policy.loss(forward_of(NEW), targets([6], advantages=ADVANTAGES, old=OLD), PLAIN)
    with_rollout = policy.loss(forward_of(NEW), targets([6], advantages=ADVANTAGES, old=OLD, rollout=OLD), PLAIN)
    assert "training/rollout_probs_diff_max" not in without.metrics
    assert "training/rollout_probs_diff_max" in with_rollout.metrics
    assert "rollout_corr/rollout_is_mean" not in with_rollout.metrics, "no weights are used"


def test_streams_follow_the_config() -> None:
    always = (Stream.ADVANTAGES, Stream.OLD_LOGPROBS)
    assert policy.streams(PLAIN) == always
    assert policy.streams(Config()) == (*always, Stream.ROLLOUT_LOGPROBS)
    assert policy.streams(Config(correction=OFF, kl_coef=0.01)) == (*always, Stream.REF_LOGPROBS)
    assert policy.streams(Config(correction=OFF, entropy_coef=0.01)) == (*always, Stream.ENTROPY)


def test_denominator_follows_the_aggregate() -> None:
    configs = [Config(), Config(aggregate="sequence"), Config(aggregate="constant", constant_length=8)]
    expected = [Denominator.TOKENS, Denominator.SEQUENCES, Denominator.CONSTANT]
    assert [policy.denominator(cfg) for cfg in configs] == expected


def test_zero_advantage_is_free_only_when_nothing_else_is_added() -> None:
    assert policy.zero_advantage_is_free(Config(dual_clip=3.0))
    assert not policy.zero_advantage_is_free(Config(kl_coef=0.001))
    assert not policy.zero_advantage_is_free(Config(entropy_coef=0.001))


def test_a_missing_or_broken_rollout_logprob_is_an_error() -> None:
    with pytest.raises(ValueError, match="rollout_logprobs"):
        run(Config())
    with pytest.raises(ValueError, match="rollout_logprobs of sample 's1' is nan"):
        run(Config(), rollout=[*OLD[:5], math.nan])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_low", -0.1),
        ("clip_low", 1.1),
        ("clip_high", math.nan),
        ("dual_clip", 1.0),
        ("dual_clip", 0.0),
        ("kl_coef", -0.1),
        ("kl_coef", math.inf),
        ("entropy_coef", -0.1),
        ("kl_estimator", "k4"),
        ("aggregate", "tokens"),
        ("constant_length", -1),
    ],
)
def test_impossible_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    assert caught.value.where == field


def test_constant_aggregate_needs_a_length() -> None:
    with pytest.raises(ConfigError, match="constant_length"):
        Config(aggregate="constant")


def test_an_empty_batch_is_zero_with_a_gradient() -> None:
    out = policy.loss(forward_of([]), targets([0], advantages=[], old=[]), PLAIN)
    out.total.backward()
    assert out.total.item() == 0.0
    assert out.metrics == {}


TERMS: list[dict[str, object]] = [
    {},
    {"dual_clip": 3.0},
    {"correction": Correction(tis_cap=1.5)},
    {"kl_coef": 0.3, "kl_estimator": "k1"},
    {"kl_coef": 0.3, "kl_estimator": "k2"},
    {"kl_coef": 0.3, "kl_estimator": "k3"},
    {"entropy_coef": 0.2},
    {"correction": Correction(tis_cap=4.0, tis_level="sequence", token_mask=[0.2, 5.0], negative_max_kl=0.5)},
    {"dual_clip": 3.0, "correction": Correction(tis_cap=1.5), "kl_coef": 0.3, "entropy_coef": 0.2},
]


@pytest.mark.parametrize(("aggregate", "terms"), itertools.product(["token", "sequence", "constant"], TERMS))
def test_gradient_matches_finite_differences(aggregate: str, terms: dict[str, object]) -> None:
    """Through a softmax over four symbols; `old` is drawn far enough away that every clip branch occurs."""
    generator = torch.Generator().manual_seed(1)
    logits_TV = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    tokens_T = torch.randint(4, (12,), generator=generator)
    logprobs = forward_of_logits(logits_TV, tokens_T).logprobs_T
    noise = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    old, rollout, ref = (logprobs + noise).tolist()
    advantages = torch.randn(12, generator=generator, dtype=torch.float64).tolist()
    batch = targets([3, 1, 8], advantages=advantages, old=old, rollout=rollout, ref=ref)
    cfg = Config(**({"aggregate": aggregate, "constant_length": 10, "correction": OFF} | terms))

    def total(x: torch.Tensor) -> torch.Tensor:
        return policy.loss(forward_of_logits(x, tokens_T), batch, cfg).total

    leaf = logits_TV.clone().requires_grad_()
    (got,) = torch.autograd.grad(total(leaf), leaf)
    assert got.abs().max() > 0.01
    assert torch.allclose(got, numeric_gradient(total, logits_TV), rtol=1e-6, atol=1e-8)

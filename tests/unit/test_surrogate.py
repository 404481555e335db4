"""What all losses of a policy have in common, each of them found in `rlhf/losses` and tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from batches import forward_of, forward_of_logits, numeric_gradient, targets
from torch import Tensor

from rlhf.core import component
from rlhf.core.errors import ConfigError, DivergedError
from rlhf.core.metrics import values
from rlhf.core.training import Batch, ForwardOut, LossOut, Stream
from rlhf.losses import common, surrogate
from rlhf.losses.correction import Correction
from rlhf.losses.surrogate import SurrogateConfig

EVERY = [component.resolve("rlhf.losses", name, where="loss") for name in component.names("rlhf.losses")]
LOSSES = [module for module in EVERY if issubclass(module.Config, SurrogateConfig)]
every_loss = pytest.mark.parametrize("module", LOSSES, ids=lambda module: module.__name__.rpartition(".")[2])

COUNTS = (2, 4)
OLD = [-1.0, -2.0, -0.5, -3.0, -1.5, -2.5]
NEW = [-0.9, -2.3, -0.5, -2.6, -1.8, -2.4]
ROLLOUT = [-1.2, -2.1, -0.4, -3.5, -1.5, -2.0]
REF = [-1.1, -1.9, -0.8, -2.8, -1.2, -2.9]
ADVANTAGES = [1.0, 1.0, -0.5, -0.5, -0.5, -0.5]
OFF = Correction(tis_cap=None)


def batch_of(**streams: list[float]) -> Batch:
    return targets(COUNTS, **({"advantages": ADVANTAGES, "old": OLD, "rollout": ROLLOUT, "ref": REF} | streams))


def run(
    module: ModuleType, cfg: Any, batch: Batch | None = None, *, new: Sequence[float] = NEW
) -> tuple[LossOut, ForwardOut]:
    forward = forward_of(new, [0.3] * len(new))
    out = module.loss(forward, batch_of() if batch is None else batch, cfg)
    out.total.backward()
    return out, forward


def gradient(forward: ForwardOut) -> list[float]:
    assert forward.logprobs_T.grad is not None
    return forward.logprobs_T.grad.tolist()


def near(expected: object) -> object:
    return pytest.approx(expected, abs=1e-12)


def test_there_are_several() -> None:
    assert {module.__name__.rpartition(".")[2] for module in LOSSES} >= {"policy", "gspo", "cispo", "sapo"}


@every_loss
def test_kl_and_entropy_add_their_own_terms_and_nothing_else(module: ModuleType) -> None:
    plain, before = run(module, module.Config(aggregate="token"))
    cfg = module.Config(aggregate="token", kl_coef=0.1, kl_estimator="k2", entropy_coef=0.5)
    out, after = run(module, cfg)
    assert out.total.item() == near(
        plain.total.item() + sum(0.1 * (r - n) ** 2 / 2 - 0.5 * 0.3 for r, n in zip(REF, NEW, strict=True))
    )
    kl = [0.1 * (n - r) for r, n in zip(REF, NEW, strict=True)]
    assert gradient(after) == near([a + b for a, b in zip(gradient(before), kl, strict=True)])
    assert after.entropy_T.grad is not None and after.entropy_T.grad.tolist() == near([-0.5] * 6)


@every_loss
def test_corrections_scale_the_surrogate_of_each_token_and_its_gradient(module: ModuleType) -> None:
    """A sequence that is left out has neither; one with a weight has that many times both."""
    rollout = [old - math.log(2.0) / 2 for old in OLD[:2]] + [old - math.log(9.0) / 4 for old in OLD[2:]]
    cfg = Correction(tis_cap=3.0, tis_level="sequence", sequence_mask=[0.2, 4.0])
    plain, before = run(module, module.Config(correction=OFF))
    out, after = run(module, module.Config(correction=cfg), batch_of(rollout=rollout))
    assert gradient(after) == near([2 * g for g in gradient(before)[:2]] + [0.0] * 4)
    assert plain.terms_T is not None and out.terms_T is not None
    assert out.terms_T.tolist() == near([2 * x for x in plain.terms_T.tolist()[:2]] + [0.0] * 4)
    with_kl, _ = run(module, module.Config(correction=cfg, kl_coef=0.1), batch_of(rollout=rollout))
    assert with_kl.terms_T is not None
    assert all(x != 0 for x in with_kl.terms_T.tolist()), "only the surrogate is left out"


@every_loss
@pytest.mark.parametrize("aggregate", common.DENOMINATORS)
def test_aggregates_weigh_tokens_and_terms_add_up(module: ModuleType, aggregate: str) -> None:
    per_token, before = run(module, module.Config(aggregate="token"))
    out, after = run(module, module.Config(aggregate=aggregate, constant_length=10))
    weights = {"token": [1.0] * 6, "sequence": [1 / 2] * 2 + [1 / 4] * 4, "constant": [1 / 10] * 6}[aggregate]
    assert per_token.terms_T is not None and out.terms_T is not None
    assert out.terms_T.tolist() == near([w * x for w, x in zip(weights, per_token.terms_T.tolist(), strict=True)])
    assert not out.terms_T.requires_grad and out.total.item() == near(out.terms_T.sum().item())
    # The ratio of a sequence is one for all its tokens, which all weigh the same.
    assert gradient(after) == near([w * g for w, g in zip(weights, gradient(before), strict=True)])
    assert module.denominator(module.Config(aggregate=aggregate, constant_length=10)) == common.DENOMINATORS[aggregate]


@every_loss
def test_at_ratio_1_the_gradient_is_that_of_reinforce(module: ModuleType) -> None:
    """The first update of a step: with old log-probs equal to the new ones, or absent."""
    for old in (NEW, None):
        batch = targets(COUNTS, advantages=ADVANTAGES, old=old)
        _, forward = run(module, module.Config(aggregate="token", correction=OFF), batch)
        assert gradient(forward) == near([-a for a in ADVANTAGES])


@every_loss
def test_a_single_token_and_an_empty_batch(module: ModuleType) -> None:
    cfg = module.Config(aggregate="token", correction=OFF)
    out, forward = run(module, cfg, targets([1], advantages=[2.0], old=[-1.0]), new=[-1.0])
    assert gradient(forward) == near([-2.0]) and math.isfinite(out.total.item())
    out, _ = run(module, module.Config(), targets([0], advantages=[], old=[], rollout=[]), new=[])
    assert out.total.item() == 0.0 and out.metrics == {}
    empty_beside, _ = run(module, module.Config(), targets([2, 0, 4], advantages=ADVANTAGES, old=OLD, rollout=ROLLOUT))
    assert empty_beside.total.item() == near(run(module, module.Config())[0].total.item())


@every_loss
def test_without_an_advantage_there_is_no_gradient_though_ratios_move(module: ModuleType) -> None:
    """A group of equal rewards, or of a single sample."""
    out, forward = run(module, module.Config(), batch_of(advantages=[0.0] * 6))
    assert gradient(forward) == [0.0] * 6 and out.total.item() == 0.0
    assert module.zero_advantage_is_free(module.Config())
    assert not module.zero_advantage_is_free(module.Config(kl_coef=0.1))
    assert not module.zero_advantage_is_free(module.Config(entropy_coef=0.1))


@every_loss
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_an_error_and_never_a_zero(module: ModuleType, bad: float) -> None:
    cfg = module.Config(kl_coef=0.1)
    for name in ("advantages", "old", "rollout", "ref"):
        fine = {"advantages": ADVANTAGES, "old": OLD, "rollout": ROLLOUT, "ref": REF}[name]
        with pytest.raises(ValueError, match=rf"{name}.* of sample 's1' is {bad} at its target 3"):
            run(module, cfg, batch_of(**{name: [*fine[:5], bad]}))
    with pytest.raises(DivergedError, match=f"sample 's1': the model's log-prob of its target 3.* is {bad}"):
        run(module, cfg, new=[*NEW[:5], bad])


@every_loss
def test_what_is_needed_follows_from_the_config(module: ModuleType) -> None:
    always = (Stream.ADVANTAGES, Stream.OLD_LOGPROBS)
    assert module.streams(module.Config(correction=OFF)) == always
    assert module.streams(module.Config()) == (*always, Stream.ROLLOUT_LOGPROBS)
    masked = module.Config(correction=Correction(tis_cap=None, negative_max_kl=0.5))
    assert module.streams(masked) == (*always, Stream.ROLLOUT_LOGPROBS)
    full = module.Config(correction=OFF, kl_coef=0.1, entropy_coef=0.1)
    assert module.streams(full) == (*always, Stream.REF_LOGPROBS, Stream.ENTROPY)
    with pytest.raises(ValueError, match="has no rollout_logprobs"):
        run(module, module.Config(), targets(COUNTS, advantages=ADVANTAGES, old=OLD))


@every_loss
def test_readings_have_the_same_names_for_all(module: ModuleType) -> None:
    out, _ = run(module, module.Config(kl_coef=0.1, correction=Correction(token_mask=[0.5, 2.0])))
    found = values(out.metrics)
    assert {"actor/pg_loss", "actor/ppo_kl", "actor/ratio/mean", "actor/ratio/max", "actor/entropy"} <= found.keys()
    assert {"actor/kl_loss", "rollout_corr/token_masked_fraction", "rollout_corr/rollout_is_mean"} <= found.keys()
    assert found["actor/ppo_kl"] == near(sum(o - n for o, n in zip(OLD, NEW, strict=True)) / 6)


@every_loss
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kl_coef", -0.1),
        ("kl_coef", math.inf),
        ("entropy_coef", -0.1),
        ("kl_estimator", "k2+"),
        ("aggregate", "tokens"),
        ("constant_length", -1),
    ],
)
def test_impossible_values_are_refused(module: ModuleType, field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        module.Config(**{field: value})
    assert caught.value.where == field


def frozen(module: ModuleType, at: Tensor, tokens_T: Tensor, batch: Batch, cfg: Any) -> Tensor:
    """The gradient that finite differences give when what the loss holds constant stays as it is at `at`.

    Constant are weights, masks and CISPO's ratio; a batch of one update has them by itself, as its old policy is given.
    """
    if module.__name__.endswith("cispo"):
        old_T, new_T = batch.old_logprobs_T, forward_of_logits(at, tokens_T).logprobs_T
        assert old_T is not None and batch.advantages_T is not None
        weights_T = (new_T - old_T).exp().clamp(cfg.weight_floor, cfg.weight_cap) * batch.advantages_T
        return numeric_gradient(lambda x: -(weights_T * forward_of_logits(x, tokens_T).logprobs_T).sum(), at)
    return numeric_gradient(lambda x: module.loss(forward_of_logits(x, tokens_T), batch, cfg).total, at)


@every_loss
def test_gradient_matches_finite_differences(module: ModuleType) -> None:
    """Through a softmax over four symbols; `old` is far enough away that both sides of every clip occur."""
    generator = torch.Generator().manual_seed(1)
    logits_TV = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    tokens_T = torch.randint(4, (12,), generator=generator)
    logprobs = forward_of_logits(logits_TV, tokens_T).logprobs_T
    old = logprobs + 0.5 * torch.randn(12, generator=generator, dtype=torch.float64)
    advantages = torch.randn(12, generator=generator, dtype=torch.float64).tolist()
    batch = targets([3, 1, 8], advantages=advantages, old=old.tolist())
    cfg = module.Config(aggregate="token", correction=OFF)
    leaf = logits_TV.clone().requires_grad_()
    (got,) = torch.autograd.grad(module.loss(forward_of_logits(leaf, tokens_T), batch, cfg).total, leaf)
    assert got.abs().max() > 0.01
    assert torch.allclose(got, frozen(module, logits_TV, tokens_T, batch, cfg), rtol=1e-6, atol=1e-8)


def test_the_shared_functions_take_any_of_the_configs() -> None:
    cfg = SurrogateConfig(kl_coef=0.1)
    assert Stream.REF_LOGPROBS in surrogate.streams(cfg) and not surrogate.zero_advantage_is_free(cfg)
    given = surrogate.read(forward_of(NEW), replace(batch_of(), old_logprobs_T=None))
    assert given.old_T.tolist() == NEW and not given.old_T.requires_grad

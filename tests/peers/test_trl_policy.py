"""Losses of the policy family against TRL's own `GRPOTrainer`, on the same random log-probs in float64.

TRL's loss is a method of a trainer that generates, so that it is called on a stand-in with the few attributes that it
reads. What differs on purpose is said, and tested, at the end.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from batches import pack

from rlhf.core import component
from rlhf.core.protocols import Counts
from rlhf.core.training import Batch, ForwardOut, Sample
from rlhf.losses import common
from rlhf.losses.correction import Correction

pytest.importorskip("trl", reason="needs the extra `peers`")

LENGTHS = [1, 7, 3, 12, 5, 2]
LONGEST = max(LENGTHS)
MASK = torch.tensor([[t < length for t in range(LONGEST)] for length in LENGTHS], dtype=torch.float64)
BOUND = 40
"""Tokens that Dr.GRPO divides each answer by."""
OFF = Correction(tis_cap=None)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


NEW = -1.5 + 0.5 * draw(0, len(LENGTHS), LONGEST)
OLD = NEW + 0.3 * draw(1, *NEW.shape)
REF = NEW + 0.5 * draw(2, *NEW.shape)
ROLLOUT = OLD + 0.3 * draw(3, *NEW.shape)
ENTROPY = draw(4, *NEW.shape).abs()
ADVANTAGES = draw(5, len(LENGTHS))


@pytest.fixture(scope="module")
def trainer() -> Any:
    """TRL's class, without vLLM, whose import takes long and is not needed."""
    from trl import import_utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_utils, "is_vllm_available", lambda *_, **__: False)
        from trl.trainer.grpo_trainer import GRPOTrainer
    return GRPOTrainer


class Theirs:
    """What TRL says: a loss, and its gradient by the log-probs."""

    def __init__(self, trainer: Any, *, weights: Tensor | None = None, old: Tensor = OLD, **settings: Any) -> None:
        self.new = NEW.clone().requires_grad_()
        alone = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=True)
        args = {"use_bias_correction_kl": False, "delta": None, "steps_per_generation": 1}
        args |= {"sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05}
        chosen: dict[str, Any] = {
            "loss_type": "grpo",
            "importance_sampling_level": "token",
            "epsilon_low": 0.2,
            "epsilon_high": 0.2,
            "beta": 0.0,
            "off_policy_mask_threshold": None,
            "entropy_coef": 0.0,
        }
        chosen |= {k: v for k, v in settings.items() if k not in args}
        stand_in = SimpleNamespace(
            **chosen,
            args=SimpleNamespace(**(args | {k: v for k, v in settings.items() if k in args})),
            accelerator=alone,
            model=SimpleNamespace(training=True),
            aux_loss_enabled=False,
            top_entropy_quantile=1.0,
            use_vllm=weights is not None,
            vllm_importance_sampling_correction=weights is not None,
            current_gradient_accumulation_steps=1,
            max_completion_length=BOUND,
            use_adaptive_entropy=False,
            get_off_policy_mask=trainer.get_off_policy_mask,
            _entropy_bonus_enabled=bool(chosen["entropy_coef"]),
            _metrics={"train": defaultdict(list)},
            _get_per_token_logps_and_entropies=lambda *_, **__: (self.new, ENTROPY, None),
        )
        ids = torch.zeros(NEW.shape, dtype=torch.int64)
        inputs = {
            "prompt_ids": ids[:, :1],
            "prompt_mask": ids[:, :1] + 1,
            "completion_ids": ids,
            "completion_mask": MASK,
            "advantages": ADVANTAGES,
            "old_per_token_logps": old,
            "ref_per_token_logps": REF,
            "sampling_per_token_logps": ROLLOUT,
            "importance_sampling_ratio": weights,
            "num_items_in_batch": MASK.sum(),
        }
        self.loss = trainer._compute_loss(stand_in, None, inputs)
        (self.gradient,) = torch.autograd.grad(self.loss, self.new)


class Ours:
    """The same from a loss of this project, divided as the learner divides."""

    def __init__(self, name: str, *, old: Tensor = OLD, **settings: Any) -> None:
        module = component.resolve("rlhf.losses", name, where="loss")
        cfg = module.Config(**({"correction": OFF} | settings))
        new = NEW.clone().requires_grad_()
        inside = MASK.bool()
        forward = ForwardOut(logprobs_T=new[inside], entropy_T=ENTROPY[inside].requires_grad_())
        counts = Counts(tokens=sum(LENGTHS), sequences=len(LENGTHS))
        self.loss = module.loss(forward, batch_of(old), cfg).total / common.divisor(module.denominator(cfg), counts)
        (self.gradient,) = torch.autograd.grad(self.loss, new)


def batch_of(old: Tensor) -> Batch:
    def rows(x: Tensor, i: int) -> tuple[float, ...]:
        return tuple(x[i, : LENGTHS[i]].tolist())

    return pack(
        [
            Sample(
                id=str(i),
                tokens=(0,) * (1 + length),
                target_start=1,
                advantages=(float(ADVANTAGES[i]),) * length,
                old_logprobs=rows(old, i),
                rollout_logprobs=rows(ROLLOUT, i),
                ref_logprobs=rows(REF, i),
            )
            for i, length in enumerate(LENGTHS)
        ]
    )


def assert_same(ours: Ours, theirs: Theirs) -> None:
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-9)
    assert theirs.gradient.abs().max() > 1e-3
    assert torch.allclose(ours.gradient, theirs.gradient, rtol=1e-9, atol=1e-12)


VARIANTS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "grpo": ({}, "policy", {"aggregate": "sequence"}),
    "bnpo": ({"loss_type": "bnpo"}, "policy", {}),
    "dapo": ({"loss_type": "dapo", "epsilon_high": 0.28}, "policy", {"clip_high": 0.28}),
    "dr_grpo": ({"loss_type": "dr_grpo"}, "policy", {"aggregate": "constant", "constant_length": BOUND}),
    "delta": ({"delta": 1.4}, "policy", {"aggregate": "sequence", "dual_clip": 1.4}),
    "kl": ({"beta": 0.1}, "policy", {"aggregate": "sequence", "kl_coef": 0.1}),
    "entropy": ({"loss_type": "dapo", "entropy_coef": 0.1}, "policy", {"entropy_coef": 0.1}),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 1.3}, "cispo", {"weight_cap": 1.3}),
    "cispo_kl": ({"loss_type": "cispo", "epsilon_high": 5.0, "beta": 0.1}, "cispo", {"kl_coef": 0.1}),
    # TRL's temperatures are float32, so that 1.05 would not be the same number on both sides.
    "sapo": ({"loss_type": "sapo", "sapo_temperature_neg": 1.0625}, "sapo", {"tau_neg": 1.0625}),
    "sapo_kl": (
        {"loss_type": "sapo", "sapo_temperature_neg": 1.0625, "beta": 0.1},
        "sapo",
        {"tau_neg": 1.0625, "kl_coef": 0.1},
    ),
    "gspo": (
        {"importance_sampling_level": "sequence", "epsilon_low": 0.05, "epsilon_high": 0.08},
        "gspo",
        {"clip_low": 0.05, "clip_high": 0.08},
    ),
    "gspo_token_form": (
        {"importance_sampling_level": "sequence", "epsilon_low": 0.05, "epsilon_high": 0.08},
        "gspo",
        {"clip_low": 0.05, "clip_high": 0.08, "form": "token"},
    ),
    "off_policy_mask": (
        {"off_policy_mask_threshold": 0.05},
        "policy",
        {"aggregate": "sequence", "correction": Correction(tis_cap=None, negative_max_kl=0.05)},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_value_and_gradient_are_the_same(variant: str, trainer: Any) -> None:
    theirs, name, ours = VARIANTS[variant]
    assert_same(Ours(name, **ours), Theirs(trainer, **theirs))


def test_every_clip_and_mask_above_decides_somewhere(trainer: Any) -> None:
    plain = Theirs(trainer, epsilon_low=1.0, epsilon_high=99.0).gradient
    for variant in ("grpo", "delta", "off_policy_mask"):
        assert not torch.allclose(Theirs(trainer, **VARIANTS[variant][0]).gradient, plain, atol=1e-4), variant
    wide = VARIANTS["gspo"][0] | {"epsilon_low": 1.0, "epsilon_high": 99.0}
    assert not torch.allclose(Theirs(trainer, **VARIANTS["gspo"][0]).gradient, Theirs(trainer, **wide).gradient)


@pytest.mark.parametrize(
    ("rule", "weights"),
    [
        ({"tis_cap": 1.2}, (OLD - ROLLOUT).exp().clamp(max=1.2)),
        ({"tis_cap": 1.5, "tis_level": "sequence"}, ((OLD - ROLLOUT) * MASK).sum(1, keepdim=True).exp().clamp(max=1.5)),
    ],
    ids=["token_truncate", "sequence_truncate"],
)
def test_weights_between_sampler_and_trainer_stand_where_theirs_do(
    rule: dict[str, Any], weights: Tensor, trainer: Any
) -> None:
    """On the surrogate and not on the KL. TRL computes the weights while it generates; these are its formulas."""
    ours = Ours("policy", aggregate="sequence", kl_coef=0.1, correction=Correction(**rule))
    assert_same(ours, Theirs(trainer, beta=0.1, weights=weights))


def test_on_purpose_the_bias_corrected_kl_is_ours_on_policy_only(trainer: Any) -> None:
    """TRL multiplies k3 by the ratio of new to old; `k3+` has the gradient of k2 wherever the policy is."""
    ours = Ours("policy", old=NEW, aggregate="sequence", kl_coef=0.1, kl_estimator="k3+")
    assert_same(ours, Theirs(trainer, old=NEW, beta=0.1, use_bias_correction_kl=True))
    ours = Ours("policy", aggregate="sequence", kl_coef=0.1, kl_estimator="k3+")
    assert not torch.allclose(ours.gradient, Theirs(trainer, beta=0.1, use_bias_correction_kl=True).gradient, atol=1e-4)


def test_on_purpose_an_entropy_bonus_is_averaged_like_the_rest(trainer: Any) -> None:
    """TRL averages it over tokens whatever the loss type; here it follows `aggregate`."""
    ours = Ours("policy", aggregate="sequence", entropy_coef=0.1).loss - Ours("policy", aggregate="sequence").loss
    theirs = Theirs(trainer, entropy_coef=0.1).loss - Theirs(trainer).loss
    per_answer = (ENTROPY * MASK).sum(1) / MASK.sum(1)
    assert ours.item() == pytest.approx(-0.1 * per_answer.mean().item())
    assert theirs.item() == pytest.approx(-0.1 * (ENTROPY * MASK).sum().item() / MASK.sum().item())

"""Losses of pairs, of judged answers and of reward models against TRL's own code, on the same random numbers.

TRL's losses are methods of trainers. They are called here on stand-ins for trainer and model, whose log-probs are the
random numbers: what is compared is the loss and what it says of it, not how log-probs come about. Needs the extra
`peers` (`pip install 'rlhf[peers]'`); skipped where TRL is not there.

Intended differences, each shown by a test: TRL's supervised term (`sft`, CPO, ORPO) is a mean over the tokens of the
whole batch, ours one per answer; TRL's readings for per-token losses are sums, ours what the loss compares; TRL's KTO
averages the KL of ranks, ours the whole update's answers.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhf.core.training import Batch, ForwardOut, Sample, ValuesOut
from rlhf.data import packing
from rlhf.losses import apo_zero, dpo, dpo_norm, hinge, ipo, kto, orpo, reward_model, simpo, sppo

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'rlhf[peers]'")
SEEDS = (0, 1, 2)
SHARED = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
)
PROMPT = 2


class Pairs:
    """Random log-probs of ragged pairs, in TRL's form (padded, all chosen answers first) and in ours (packed)."""

    def __init__(self, seed: int, *, equal: bool = False) -> None:
        rng = random.Random(seed)
        lengths = [(4, 4) if equal else (rng.randint(1, 6), rng.randint(1, 6)) for _ in range(5)]
        order = [*(w for w, _ in lengths), *(r for _, r in lengths)]
        width = PROMPT + max(order)
        self.mask = torch.zeros(10, width, dtype=torch.int64)
        self.logprobs, self.ref = (torch.zeros(10, width - 1, dtype=torch.float64) for _ in range(2))
        samples: list[Sample] = []
        self.rows: list[list[float]] = []
        for n, length in enumerate(order):
            said, ref = ([rng.uniform(-3.0, -0.05) for _ in range(length)] for _ in range(2))
            self.mask[n, PROMPT : PROMPT + length] = 1
            self.logprobs[n, PROMPT - 1 : PROMPT - 1 + length] = torch.tensor(said, dtype=torch.float64)
            self.ref[n, PROMPT - 1 : PROMPT - 1 + length] = torch.tensor(ref, dtype=torch.float64)
            self.rows.append(said)
            samples.append(
                Sample(
                    id=f"{n % 5}/{n // 5}",
                    tokens=(n % 5,) * (PROMPT + length),
                    target_start=PROMPT,
                    unit=f"{n % 5}",
                    label=float(n < 5),
                    ref_logprobs=tuple(ref),
                )
            )
        self.samples = samples

    def ours(self, module: Any, cfg: Any) -> tuple[float, dict[str, float]]:
        """Loss of the update and readings."""
        (batch,) = packing.pack(self.samples, token_budget=10_000)
        out = module.loss(self.forward(batch), batch, cfg)
        return out.total.item() / 5, {name: metric.value for name, metric in out.metrics.items()}

    def forward(self, batch: Batch) -> ForwardOut:
        """A policy that says these log-probs."""
        by_name = {s.id: row for s, row in zip(self.samples, self.rows, strict=True)}
        flat = torch.tensor([x for name in batch.ids for x in by_name[name]], dtype=torch.float64)
        return ForwardOut(logprobs_T=flat, entropy_T=torch.zeros_like(flat))


def trainer(**known: Any) -> Any:
    """What TRL's losses look at besides their inputs."""
    accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    usual = {
        "accelerator": accelerator,
        "model": SimpleNamespace(training=True),
        "aux_loss_enabled": False,
        "ld_alpha": None,
        "precompute_ref_logps": True,
        "f_divergence_type": "reverse_kl",
        "use_weighting": False,
        "label_smoothing": 0.0,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**(usual | known))


def model(logprobs: torch.Tensor) -> Callable[..., Any]:
    """A model whose forward pass gives these numbers."""
    nothing = torch.zeros_like(logprobs)
    out = SimpleNamespace(log_probs=logprobs, entropy=nothing, mean_logits=nothing, is_top1=nothing > 0)
    return lambda **_: out


def theirs(pairs: Pairs, *, loss_type: list[str], weights: list[float] | None = None, **known: Any) -> Any:
    """Loss and readings of TRL's DPO trainer."""
    from trl.trainer.dpo_trainer import DPOTrainer

    asked = trainer(loss_types=loss_type, loss_weights=weights or [1.0] * len(loss_type), **known)
    ref = pairs.ref.sum(dim=1)
    inputs = {
        "input_ids": torch.zeros_like(pairs.mask),
        "attention_mask": torch.ones_like(pairs.mask),
        "completion_mask": pairs.mask,
        "ref_chosen_logps": ref[:5],
        "ref_rejected_logps": ref[5:],
    }
    loss = DPOTrainer._compute_loss(asked, model(pairs.logprobs), inputs, False)
    return loss.item(), {name: found[-1] for name, found in asked._metrics["train"].items()}


DPO_FAMILY = {
    "sigmoid": (dpo, dpo.Config(beta=0.3), {"beta": 0.3}),
    "robust": (
        dpo,
        dpo.Config(beta=0.3, label_smoothing=0.2, smoothing="robust"),
        {"beta": 0.3, "label_smoothing": 0.2},
    ),
    "sigmoid_norm": (dpo_norm, dpo_norm.Config(), {"beta": 5.0}),
    "ipo": (ipo, ipo.Config(), {"beta": 0.1}),
    "hinge": (hinge, hinge.Config(beta=0.4), {"beta": 0.4}),
    "apo_zero": (apo_zero, apo_zero.Config(), {"beta": 0.1}),
    "sppo_hard": (sppo, sppo.Config(beta=0.1), {"beta": 0.1}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("loss_type", DPO_FAMILY)
def test_the_dpo_family(loss_type: str, seed: int) -> None:
    pairs = Pairs(seed)
    module, cfg, known = DPO_FAMILY[loss_type]
    (mine, found), (want, told) = pairs.ours(module, cfg), theirs(pairs, loss_type=[loss_type], **known)
    assert mine == pytest.approx(want, rel=1e-6, abs=1e-6)
    if loss_type not in ("sigmoid_norm", "ipo"):
        assert {name: found[name] for name in SHARED} == pytest.approx({name: told[name] for name in SHARED}, abs=1e-6)


@pytest.mark.parametrize("loss_type", ["sigmoid_norm", "ipo"])
def test_readings_of_losses_per_token_are_what_they_compare(loss_type: str) -> None:
    """TRL's are beta times sums; with answers of equal length they differ by that length, and in nothing else."""
    pairs = Pairs(0, equal=True)
    module, cfg, known = DPO_FAMILY[loss_type]
    (_, found), (_, told) = pairs.ours(module, cfg), theirs(pairs, loss_type=[loss_type], **known)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        assert 4 * found[name] == pytest.approx(told[name])
    assert found["rewards/accuracies"] == pytest.approx(told["rewards/accuracies"])


@pytest.mark.parametrize("seed", SEEDS)
def test_conservative_smoothing(seed: int) -> None:
    """TRL has it in the loss of CPO, which is that of DPO without a reference."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    pairs = Pairs(seed)
    logps = pairs.logprobs.sum(dim=1)
    asked = trainer(alpha=0.0, loss_type="sigmoid", beta=0.3, label_smoothing=0.2)
    want, *_ = CPOTrainer.cpo_loss(asked, logps[:5], logps[5:])
    mine, _ = pairs.ours(dpo, dpo.Config(beta=0.3, label_smoothing=0.2, reference_free=True))
    assert mine == pytest.approx(want.mean().item(), rel=1e-6)


@pytest.mark.parametrize("equal", [True, False])
def test_the_likelihood_of_the_chosen_answer(equal: bool) -> None:
    """A mean over all tokens (TRL) and one over answers of their means (RPO) agree where answers are of one length."""
    pairs = Pairs(1, equal=equal)
    mine, _ = pairs.ours(dpo, dpo.Config(nll_coef=0.7))
    want, _ = theirs(pairs, loss_type=["sigmoid", "sft"], weights=[1.0, 0.7], beta=0.1)
    assert (mine == pytest.approx(want, rel=1e-6)) == equal


@pytest.mark.parametrize("seed", SEEDS)
def test_simpo(seed: int) -> None:
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    pairs = Pairs(seed)
    means = pairs.logprobs.sum(dim=1) / pairs.mask.sum(dim=1)
    asked = trainer(alpha=0.0, loss_type="simpo", beta=2.0, simpo_gamma=0.5)
    want, chosen, rejected = CPOTrainer.cpo_loss(asked, means[:5], means[5:])
    mine, found = pairs.ours(simpo, simpo.Config())
    assert mine == pytest.approx(want.mean().item(), rel=1e-6)
    assert found["rewards/chosen"] == pytest.approx(chosen.mean().item())
    assert found["rewards/rejected"] == pytest.approx(rejected.mean().item())


@pytest.mark.parametrize("seed", SEEDS)
def test_orpo(seed: int) -> None:
    """The odds of both; TRL's supervised part is over prompt and answer, which are not compared."""
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    pairs = Pairs(seed)
    means = pairs.logprobs.sum(dim=1) / pairs.mask.sum(dim=1)
    want, chosen, _, ratio, _ = ORPOTrainer.odds_ratio_loss(trainer(beta=0.3), means[:5], means[5:])
    mine, found = pairs.ours(orpo, orpo.Config(odds_coef=0.3))
    assert mine - found["train/nll_loss"] == pytest.approx(-want.mean().item(), rel=1e-6, abs=1e-6)
    assert found["train/odds_loss"] == pytest.approx(-ratio.item(), rel=1e-6)
    assert found["rewards/chosen"] == pytest.approx(chosen.mean().item(), rel=1e-6)
    assert found["train/nll_loss"] == pytest.approx(-means[:5].mean().item())


@pytest.mark.parametrize("shift", [0.0, 0.4, -0.8])
@pytest.mark.parametrize("seed", SEEDS)
def test_kto(seed: int, shift: float) -> None:
    """With the KL of a batch given; a negative one counts as 0."""
    from trl.trainer.kto_trainer import KTOTrainer

    pairs = Pairs(seed)
    kl_logps, ref_kl_logps = torch.full((10,), -3.0 + shift, dtype=torch.float64), torch.full((10,), -3.0)
    given = iter([kl_logps])
    asked = trainer(
        calculate_KL=True,
        loss_type="kto",
        beta=0.3,
        desirable_weight=1.5,
        undesirable_weight=0.8,
        _compute_kl_logps=lambda *_: next(given),
    )
    inputs = {
        "input_ids": torch.zeros_like(pairs.mask),
        "attention_mask": torch.ones_like(pairs.mask),
        "completion_mask": pairs.mask,
        "label": torch.tensor([True] * 5 + [False] * 5),
        "ref_logps": pairs.ref.sum(dim=1),
        "ref_KL_logps": ref_kl_logps,
    }
    want = KTOTrainer._compute_loss(asked, model(pairs.logprobs), inputs, False).item()
    anchored = [replace(s, anchor=max(0.0, shift)) for s in pairs.samples]
    (batch,) = packing.pack(anchored, token_budget=10_000)
    out = kto.loss(pairs.forward(batch), batch, kto.Config(beta=0.3, desirable_weight=1.5, undesirable_weight=0.8))
    assert out.total.item() / 10 == pytest.approx(want, rel=1e-6)
    for name in ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"):
        assert out.metrics[name].value == pytest.approx(asked._metrics["train"][name][-1], rel=1e-6)
    assert out.metrics["train/kl"].value == pytest.approx(asked._metrics["train"]["kl"][-1], abs=1e-6)


@pytest.mark.parametrize("center", [None, 0.01])
@pytest.mark.parametrize("with_margin", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_reward_model(seed: int, with_margin: bool, center: float | None) -> None:
    from trl.trainer.reward_trainer import RewardTrainer

    rng = random.Random(seed)
    scores = torch.tensor([rng.uniform(-3, 3) for _ in range(10)], dtype=torch.float64)
    margins = [rng.random() if with_margin else 0.0 for _ in range(5)]
    asked = trainer(args=SimpleNamespace(center_rewards_coefficient=center))
    inputs = {"attention_mask": torch.ones(10, 3)}
    inputs |= {"margin": torch.tensor(margins, dtype=torch.float64)} if with_margin else {}
    want = RewardTrainer.compute_loss(asked, lambda **_: SimpleNamespace(logits=scores[:, None]), inputs).item()
    samples = [
        Sample(
            id=f"{n}", tokens=(n % 5, 7, n), target_start=2, unit=f"{n % 5}", label=float(n < 5), anchor=margins[n % 5]
        )
        for n in range(10)
    ]
    (batch,) = packing.pack(samples, token_budget=10_000)
    out = reward_model.loss(
        ValuesOut(values_T=scores[[int(name) for name in batch.ids]]),
        batch,
        reward_model.Config(center_coef=center or 0.0),
    )
    assert out.total.item() / 5 == pytest.approx(want, rel=1e-6)
    told = asked._metrics["train"]
    assert out.metrics["rewards/accuracies"].value == pytest.approx(told["accuracy"][-1])
    assert out.metrics["rewards/margins"].value == pytest.approx(told["margin"][-1])
    assert out.metrics["rewards/max"].value == pytest.approx(told["max_reward"][-1])
    assert out.metrics["rewards/min"].value == pytest.approx(told["min_reward"][-1])


def test_the_numbers_are_no_special_ones() -> None:
    """Guards the comparison: losses of different names differ on these numbers."""
    found = [theirs(Pairs(0), loss_type=[name], **known)[0] for name, (_, _, known) in DPO_FAMILY.items()]
    assert len({round(x, 6) for x in found}) == len(found) and all(map(math.isfinite, found))

"""What one step of the online loop asks of its models: the reference once per rollout, whatever the passes over it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from batches import group
from torch import Tensor

from rlhf.core.config import build
from rlhf.core.protocols import Counts
from rlhf.core.run_folder import RunFolder
from rlhf.core.training import Batch, UpdateStats
from rlhf.loops import online, reference, updates
from rlhf.loops.reference import Unadapted
from rlhf.loops.stage import LearnerRequest, Stage

KEYS: dict[str, Any] = {"loss": {"name": "policy", "kl_coef": 0.1}, "epochs": 3, "minibatches": 2}


class Model:
    """Says the same of every token, and counts the tokens that it is asked about."""

    ranks = 1

    def __init__(self, says: float) -> None:
        self.says, self.asked, self.without = says, 0, 0
        self.trained: list[Batch] = []

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        self.asked += sum(len(batch.targets_T) for batch in batches)
        return [torch.full((len(batch.targets_T),), self.says) for batch in batches]

    async def base_logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        self.without += sum(len(batch.targets_T) for batch in batches)
        return [torch.full((len(batch.targets_T),), -2.0) for batch in batches]

    async def forward_backward(self, batches: Sequence[Batch], *, counts: Counts) -> None:
        self.trained += batches

    async def optim_step(self) -> UpdateStats:
        return UpdateStats(version=1, metrics={}, grad_norm=1.0, lr=1.0)


class Progress:
    step, stage_step, kl_coef, version, tokens = 1, 1, None, 0, 0


def stage(folder: Path, made: list[Model]) -> Stage:
    """As much of a stage as this needs."""

    async def spawn(request: Any) -> Model:
        made.append(Model(says=-2.0))
        return made[-1]

    class Recorder:
        def phase(self, name: str) -> Any:
            return contextlib.nullcontext()

    parts: dict[str, Any] = dict.fromkeys(Stage.__dataclass_fields__)
    parts |= {"name": "rl", "seed": 0, "folder": RunFolder(folder), "spawn_reference": spawn, "recorder": Recorder()}
    parts["progress"] = Progress()
    return Stage(**parts)


def step(folder: Path, keys: dict[str, Any]) -> tuple[Model, list[Model]]:
    """One step with four answers of two tokens; the policy, and what was made besides."""
    cfg, policy, made = build(online.Config, keys), Model(says=-1.0), list[Model]()
    request = LearnerRequest(cfg.loss, cfg.learner, cast(Any, None), 6)

    async def run() -> None:
        here = stage(folder, made)
        await reference.start(cfg.reference, here, cast(Any, policy), request)
        prepared = await updates.prepare(cfg, [group(1.0, 0.0, 0.0, 1.0)], stage=here, learner=cast(Any, policy))
        await updates.train(cfg, prepared, stage=here, learner=cast(Any, policy))

    asyncio.run(run())
    return policy, made


@pytest.mark.parametrize("keys", [KEYS, KEYS | {"kl_in_reward": {"coef": 0.1}}], ids=["loss", "loss and reward"])
def test_the_reference_is_asked_once_per_rollout_and_not_once_per_pass(keys: dict[str, Any], tmp_path: Path) -> None:
    policy, [asked] = step(tmp_path, keys)
    assert asked.asked == 8, "every token once"
    assert policy.asked == 8, "and so the weights that the step starts from"
    assert len(policy.trained) == 6 and sum(len(batch.targets_T) for batch in policy.trained) == 3 * 8
    for batch in policy.trained:
        assert batch.ref_logprobs_T is not None and batch.old_logprobs_T is not None
        assert batch.ref_logprobs_T.tolist() == [-2.0] * 4 and batch.old_logprobs_T.tolist() == [-1.0] * 4


def test_beside_adapters_the_reference_is_the_policy_and_no_second_model(tmp_path: Path) -> None:
    policy, made = step(tmp_path, KEYS | {"learner": {"trainable": {"name": "lora"}}})
    assert made == [] and policy.without == 8
    assert all(batch.ref_logprobs_T is not None for batch in policy.trained)
    assert Unadapted(cast(Any, policy)).ranks == 1


def test_tokens_that_nobody_sampled_are_read_and_not_trained_on(tmp_path: Path) -> None:
    keys = KEYS | {"kl_in_reward": {"coef": 0.1}}
    cfg, policy, made = build(online.Config, keys), Model(says=-1.0), list[Model]()
    request = LearnerRequest(cfg.loss, cfg.learner, cast(Any, None), 6)
    both = group(1.0, 0.0, lengths=(4, 2))
    tool = replace(both.trajectories[0], logprobs=(-0.5, 0.0, 0.0, -0.5), sampled=(True, False, False, True))
    both = replace(both, trajectories=(tool, both.trajectories[1]))

    async def run() -> updates.Prepared:
        here = stage(tmp_path, made)
        await reference.start(cfg.reference, here, cast(Any, policy), request)
        prepared = await updates.prepare(cfg, [both], stage=here, learner=cast(Any, policy))
        await updates.train(cfg, prepared, stage=here, learner=cast(Any, policy))
        return prepared

    prepared = asyncio.run(run())
    first, second = prepared.samples
    assert first.advantages is not None and second.advantages is not None
    kept = first.advantages[0]
    assert first.advantages == pytest.approx((kept, 0.0, 0.0, kept)) and kept > 0
    assert prepared.advantages[first.id] == pytest.approx(kept), "the mean is that of what was sampled"
    assert first.old_logprobs == (-1.0, 0.0, 0.0, -1.0) and first.ref_logprobs == (-2.0, 0.0, 0.0, -2.0)
    assert policy.asked == made[0].asked == 4
    assert sum(len(batch.targets_T) for batch in policy.trained) == 3 * 4
    read = next(batch for batch in policy.trained if first.id in batch.ids)
    assert read.tokens_N.tolist()[:5] == [1, 2, 3, 3, 3], "the policy goes on from what the tool said"

"""The reference of a stage: the model that a policy is held to, by its KL or by a preference loss.

It has the weights that the stage started from. Where the policy trains adapters beside these (`learner.trainable`),
they are still there, and the reference is the policy with its adapters switched off: no second model.

It may follow the policy instead, every so many steps, by

    reference ← mix · policy + (1 − mix) · reference

Source: TR-DPO (Gorbatovski et al. 2024, arXiv 2404.09656), soft updates at every step and hard ones (`mix: 1`) every so
many; TRL has both in one (`sync_ref_model` at the end of a step, `ref_model_sync_steps` 512, `ref_model_mixup_alpha`
0.6), and so have we. `every: 1` with a small `mix` is an exponential moving average (Polyak and Juditsky 1992).

Then it is a model of its own, also beside adapters. Its weights are float32, since bfloat16 would swallow small moves,
and they lie in every checkpoint of the stage, in the folder `reference`. A later stage starts with one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.protocols import LearnerHandle
from rlhf.core.training import Batch
from rlhf.loops.stage import LearnerRequest, Stage
from rlhf.models import adapters


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """Whether the reference follows the policy."""

    every: int = 0
    """Steps between moves of the reference; 0 leaves it where the stage started."""
    mix: float = 0.6
    """Share of the policy in each move; 1 copies it."""

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ConfigError("every", f"{self.every} is negative", fix="use 0 for a reference that stays")
        if not 0 < self.mix <= 1:
            raise ConfigError("mix", f"{self.mix} is not in (0, 1]", fix="use 1 to copy the policy")


class Unadapted:
    """Implements `ReferenceHandle`: a learner without its adapters."""

    def __init__(self, learner: LearnerHandle) -> None:
        self._learner = learner

    @property
    def ranks(self) -> int:
        """Of the learner."""
        return self._learner.ranks

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """See `Learner.base_logprobs`."""
        return await self._learner.base_logprobs(batches)

    async def close(self) -> None:
        """It has nothing of its own."""


async def start(cfg: ReferenceConfig, stage: Stage, trained: LearnerHandle, request: LearnerRequest) -> None:
    """Make the stage's reference, where the stage's progress stands.

    Args:
        trained: the stage's learner.
        request: what it was made of.
    """
    if adapters.adds(request.cfg.trainable) and not cfg.every:
        stage.reference = Unadapted(trained)
        return
    moves = cfg.every > 0
    made = await stage.spawn_reference(LearnerRequest(None, request.cfg, request.transforms, 0, moves=moves))
    stage.reference, stage.moving = made, made if moves else None


async def follow(cfg: ReferenceConfig, stage: Stage, trained: LearnerHandle) -> None:
    """Move the reference after the updates of a step, if it is due."""
    if stage.moving is not None and stage.progress.stage_step % cfg.every == 0:
        with stage.phase("move_reference"):
            await stage.moving.blend(trained, cfg.mix)

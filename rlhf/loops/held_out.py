"""Examples that an offline stage is measured on and does not learn from.

What is measured is the loss itself and its readings, under the weights of the moment: `val-core/<stage>/…`, where
evaluations of held-out prompts are due. They come from a file, are set aside from the stage's own data question by
question, so that no question is on both sides, or are those that a task gives with its held-out prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rlhf.core.component import Component
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.metrics import merge
from rlhf.core.modules import Example
from rlhf.core.protocols import LearnerHandle
from rlhf.core.seeding import content_key
from rlhf.core.training import ForwardOut, Head, Sample, ValuesOut
from rlhf.data.packing import pack
from rlhf.learner.learner import head
from rlhf.loops.stage import Stage

if TYPE_CHECKING:
    from rlhf.loops.offline import Config


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """What to measure the loss on besides what is learnt from."""

    path: str | None = None
    """JSONL/Parquet path or hub id of examples, in the form of the stage's; null looks to `set_aside`, or else to the
    task's held-out prompts, where the examples say which answers are better."""
    set_aside: int = 0
    """Questions of the stage's data to leave out of training and measure on."""
    most: int = 256
    """Examples to measure on, at most."""

    def __post_init__(self) -> None:
        if self.path is not None and self.set_aside:
            raise ConfigError("set_aside", "is set beside a path", fix="use one of the two")
        if self.set_aside < 0:
            raise ConfigError("set_aside", f"{self.set_aside} is negative", fix="use 0, or 256")
        if self.most < 1:
            raise ConfigError("most", f"{self.most} measure nothing", fix="use 256")


def split(examples: Sequence[Example], *, count: int, where: str) -> tuple[list[Example], list[Example]]:
    """Examples to learn from, and those of `count` questions that are set aside; which ones follows from what is asked.

    Raises:
        DataError: nothing would be left to learn from.
    """
    keys = [content_key(example.prompt) for example in examples]
    kept_back = set(sorted(set(keys))[:count])
    training = [example for example, key in zip(examples, keys, strict=True) if key not in kept_back]
    if not training:
        problem = f"holds {len(set(keys))} questions, of which {count} are set aside"
        raise DataError(where, problem, fix="lower held_out.set_aside, or give more data")
    return training, [example for example, key in zip(examples, keys, strict=True) if key in kept_back]


def due(cfg: Config, stage: Stage) -> bool:
    """Whether the stage measures after this step."""
    step = stage.progress.stage_step
    return step == cfg.steps or bool(stage.evaluate_every and step % stage.evaluate_every == 0)


async def measure(
    loss: Component, samples: Sequence[Sample], *, learner: LearnerHandle, token_budget: int, name: str
) -> dict[str, float]:
    """The loss and its readings on samples, under flat names; what needs more than one number per target is left out.

    Args:
        name: of the stage.
    """
    batches = pack(samples, token_budget=token_budget, multiple=learner.ranks)
    valued = head(loss) is not Head.LOGITS
    found = await (learner.values(batches) if valued else learner.logprobs(batches))
    with torch.no_grad():
        parts = [
            loss.module.loss(_forward(found_T, valued=valued), batch, loss.config).metrics
            for batch, found_T in zip(batches, found, strict=True)
        ]
    read = {key: metric.value for key, metric in merge(parts).items() if not key.endswith("/entropy")}
    return {f"val-core/{name}/{key.removeprefix('train/')}": value for key, value in read.items()}


def _forward(found_T: torch.Tensor, *, valued: bool) -> ForwardOut | ValuesOut:
    if valued:
        return ValuesOut(values_T=found_T)
    return ForwardOut(logprobs_T=found_T, entropy_T=torch.zeros_like(found_T))

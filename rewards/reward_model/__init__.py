"""How good an answer is on the whole, by a reward model: one score, read where the answer ends.

    rewards:
      math: {}
      reward_model:
        model: models/my-reward-model   # or `stage: rm`, a stage of this run that trains one
        weight: 0.1

A reward model has learnt from pairs which of two answers is the better one (Bradley-Terry; Ouyang et al. 2022, arXiv
2203.02155, equation 1; trained here by `rlhf.losses.reward_model`). Its score s has no zero and no unit of its own:

    value = clip((s - mean) / std, ±clip)

`mean` and `std` of the scores of reference answers make it comparable with other rewards; InstructGPT takes off the
mean of demonstrations. `clip` bounds what a single answer can earn (10 in Yeo et al. 2025, arXiv 2502.03373).

How it can be hacked, and the guards. A policy that is paid by a learnt score finds what scores too high: length,
flattery, confidence, and text that no pair was about; the score goes on rising while answers get worse (Gao et al.
2022, arXiv 2210.10760). A KL penalty, a small weight and `clip` slow that down; a verifier beside it, with its own
curve, shows it. Answers of more than `max_chars` characters are worth `lowest`. Text that looks like a token that marks
turns is broken up before the model reads it.

    what happened                    value            verdict                reason
    scored                           above            skipped, or as below   reward_model/scored
    more than max_chars              lowest           unparsable             limit/chars
    no answer within `deadline_s`    None             timeout                timeout/reward_model
    too long, or the model failed    None             crash                  crash/reward_model_too_long, …

Scores are an opinion: the reward cannot come first, be a gate or a factor, unless `decides` says so; then an answer is
`correct` when its score is at least `correct_from`.

The model lives in a worker process (`rewards.served`): importing this needs no torch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import cast

from rewards import base
from rewards.base import WorkerError
from rewards.served import ServedModel, Serving, fingerprint
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, Prompt, RewardOut, Verdict

_LOAD = "rewards.reward_model.local_model:load"
_SCORE = "rewards.reward_model.local_model:score"


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """Which model scores, and what its scores are worth."""

    model: str = ""
    """Folder of the reward model: a classifier of tokens or sequences with one label; this or `stage` is required."""
    stage: str = ""
    """Stage of this run that trains it (`loss.name: reward_model`); before its end the reward is left out."""
    whole: bool = False
    """Let the chat template write question and answer together, as models by others are trained; false puts the answer
    and its end behind the question, as it is sampled and trained here."""
    mean: float = 0.0
    """Taken off the score."""
    std: float = 1.0
    """What the rest is divided by."""
    clip: float | None = None
    """Largest value, and smallest; null bounds nothing."""
    lowest: float = 0.0
    """What an answer is worth that is not read."""
    max_chars: int = 50_000
    """Longer answers are not read."""
    decides: bool = False
    """Let scores decide what is right: allow it as first reward, gate, factor and verifier."""
    correct_from: float = 0.0
    """With `decides`: the score that a correct answer has at least."""
    timeout_s: float = 60.0
    """Deadline of one batch."""
    deadline_s: float = 300.0
    """Deadline of all answers to a prompt."""
    local: Serving = field(default_factory=Serving)
    """How the model is served."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.model) == bool(self.stage):
            problem = "both model and stage are set" if self.model else "neither model nor stage is set"
            fix = "name the folder of a reward model, or the stage that trains it"
            raise ConfigError("stage" if self.model else "model", problem, fix=fix)
        for name in ("mean", "lowest", "correct_from"):
            if not math.isfinite(vars(self)[name]):
                raise ConfigError(name, f"{vars(self)[name]} is not a finite number", fix="use 0")
        for name in ("std", "clip", "timeout_s", "deadline_s"):
            value = vars(self)[name]
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(name, f"{value} is out of range", fix="use a number above 0")
        if self.max_chars < 1:
            raise ConfigError("max_chars", f"{self.max_chars} leaves nothing to score", fix="use 50000")

    @property
    def advisory(self) -> bool:
        return not self.decides

    @property
    def costly(self) -> bool:
        return True

    @property
    def awaits(self) -> base.Awaited | None:
        return base.Awaited(stage=self.stage, loss="reward_model", asking=self.asking) if self.stage else None

    def asking(self, model: Path) -> Config:
        """The same reward, with the model in a folder."""
        return replace(self, stage="", model=str(model))


@cache
def served(folder: Path, cfg: Serving) -> ServedModel:
    """The reward model of this process for a folder.

    Raises:
        ConfigError: it is no model folder.
    """
    fingerprint(folder)
    return ServedModel(folder, cfg, load=_LOAD, run=_SCORE)


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """The reward of every answer of a group; equal answers are asked about once.

    Raises:
        ConfigError: the model cannot be used.
    """
    asked = [text for text in dict.fromkeys(t.text for t in group.trajectories) if len(text) <= cfg.max_chars]
    found = dict(zip(asked, scores(group.prompt, asked, cfg), strict=True))
    return [_out(found[t.text], cfg) if t.text in found else _unread(cfg) for t in group.trajectories]


def scores(prompt: Prompt, texts: Sequence[str], cfg: Config) -> list[float | TimeoutError | WorkerError | None]:
    """The score of each answer; None where it does not fit the model's context, or why there is none.

    Raises:
        ConfigError: the model cannot be used, or its stage has not run.
    """
    if cfg.stage:
        fix = "run the stage first, or name the folder of a model"
        raise ConfigError("stage", f"'{cfg.stage}' has not trained its model yet", fix=fix)
    if not texts:
        return []
    messages = prompt.chat
    found = served(Path(cfg.model), cfg.local).ask(
        [{"messages": messages, "answer": text} for text in texts],
        settings={"whole": cfg.whole},
        timeout_s=cfg.timeout_s,
        deadline=time.monotonic() + cfg.deadline_s,
    )
    return [cast("float | TimeoutError | WorkerError | None", entry) for entry in found]


def _unread(cfg: Config) -> RewardOut:
    return RewardOut(value=cfg.lowest, verdict=Verdict.UNPARSABLE, reason="limit/chars", breakdown={"score": None})


def _out(found: float | TimeoutError | WorkerError | None, cfg: Config) -> RewardOut:
    if isinstance(found, TimeoutError):
        return base.timeout("reward_model")
    if found is None or isinstance(found, WorkerError):
        return base.crash(f"reward_model_{'too_long' if found is None else found.kind}")
    value = (found - cfg.mean) / cfg.std
    if cfg.clip is not None:
        value = min(max(value, -cfg.clip), cfg.clip)
    verdict = Verdict.SKIPPED
    if cfg.decides:
        verdict = Verdict.CORRECT if found >= cfg.correct_from else Verdict.WRONG
    return RewardOut(value=value, verdict=verdict, reason="reward_model/scored", breakdown={"score": found})

"""What all rewards share: the config they inherit, and the outcomes that no verifier may improvise.

Used by every reward file and by `rewards.rubric`. Invariant: a value is finite or None, and None means that nothing can
be said about the answer; an answer that is absent or unreadable through the model's own fault is worth 0.0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.types import Group, Prompt, RewardOut, StopReason, Trajectory, Verdict

USER = "user"
_SHAPES = ("linear", "cosine", "jump")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a weight moves over training. Example: `{to: 0.0, begin: 50, end: 150}`."""

    to: float | None = None
    """The weight from step `end` on; null keeps the weight as it is."""
    begin: int = 0
    """Step of the run, over all its stages, up to which the weight is the reward's own."""
    end: int = 0
    """Step of the run from which it is `to`."""
    shape: str = "linear"
    """Between the two: `linear`, `cosine` (slow at both ends), or `jump` (nothing until `end`)."""

    def __post_init__(self) -> None:
        if self.to is None:
            return
        if not math.isfinite(self.to):
            raise ConfigError("to", f"{self.to} is not a finite number", fix="use a weight, for example 0")
        if not 0 <= self.begin <= self.end or self.end == 0:
            problem = f"steps {self.begin} to {self.end} are no stretch of the run"
            raise ConfigError("end", problem, fix="use begin: 0 and end: the number of steps it takes")
        if self.shape not in _SHAPES:
            fix = did_you_mean(self.shape, _SHAPES)
            raise ConfigError("shape", f"'{self.shape}' is not one of the choices", fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """A model that a stage of the run trains, and what asks it then."""

    stage: str
    loss: str
    """Name of the loss that trains it, which its folder has too."""
    asking: Callable[[Path], RewardConfig]
    """The same reward, with the model in a folder."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What every reward's `Config` has."""

    weight: float = 1.0
    """Factor of this reward in the rubric's sum; 0 computes and logs it without training on it."""
    schedule: Schedule = field(default_factory=Schedule)
    """How the weight moves over training; by default it does not."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ConfigError("weight", f"{self.weight} is not a finite number", fix="use 1, or 0 to only log it")

    @property
    def advisory(self) -> bool:
        """Whether this reward may only add to what others give: see `rewards.trust`."""
        return False

    @property
    def awaits(self) -> Awaited | None:
        """The stage whose model this reward asks, if it asks one. Until it has run the reward is left out."""
        return None

    @property
    def places(self) -> bool:
        """Whether this reward has to know where in the text each token ends (`Trajectory.ends`)."""
        return False

    @property
    def costly(self) -> bool:
        """Whether grading takes so much that `rlhf plan` does not try it on every gold."""
        return False


def weight_at(cfg: RewardConfig, step: int) -> float:
    """A reward's weight at a step of the run."""
    schedule = cfg.schedule
    if schedule.to is None or step <= schedule.begin < schedule.end:
        return cfg.weight
    if step >= schedule.end:
        return schedule.to
    if schedule.shape == "jump":
        return cfg.weight
    done = (step - schedule.begin) / (schedule.end - schedule.begin)
    if schedule.shape == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return cfg.weight + (schedule.to - cfg.weight) * done


class WorkerError(Exception):
    """An item failed, but not by its deadline.

    Args:
        kind: `raised` (the function did), `import` (the target cannot be loaded), `memory` or `cpu` (a limit was
            reached), `died` (the process did), `result` (JSON cannot hold it), `protocol`, `start`.
        message: what happened.
        exception: name of the exception class in the worker, if there was one.
    """

    def __init__(self, kind: str, message: str, *, exception: str = "") -> None:
        self.kind, self.message, self.exception = kind, message, exception
        super().__init__(f"{kind}: {exception + ': ' if exception else ''}{message}")


def crash(detail: str) -> RewardOut:
    """The grader failed, not the answer: `crash("ValueError")` has the reason `crash/ValueError`."""
    return RewardOut(value=None, verdict=Verdict.CRASH, reason=f"crash/{detail}")


def timeout(detail: str) -> RewardOut:
    """The grader was killed at its deadline."""
    return RewardOut(value=None, verdict=Verdict.TIMEOUT, reason=f"timeout/{detail}")


def finite(out: RewardOut) -> RewardOut:
    """The same outcome, or a crash when its value is nan or infinite."""
    return out if out.value is None or math.isfinite(out.value) else crash("not_finite")


def last_user_message(prompt: Prompt) -> str:
    """The question as plain text: the content of the last message of the user, empty when there is none."""
    return next((m.content for m in reversed(prompt.messages) if m.role == USER), "")


def answered(prompt: Prompt, text: str) -> Group:
    """A group of one answer that nobody sampled, for a reward to grade."""
    sample = Trajectory(
        id="given",
        prompt_id=prompt.id,
        index=0,
        prompt_tokens=(),
        tokens=(),
        logprobs=(),
        text=text,
        stop=StopReason.EOS,
        policy_version=0,
        seed=0,
    )
    return Group(prompt=prompt, trajectories=(sample,))

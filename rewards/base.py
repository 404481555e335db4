"""What all rewards share: the config they inherit, and the outcomes that no verifier may improvise.

Used by every reward file and by `rewards.rubric`. Invariant: a value is finite or None, and None means that nothing can
be said about the answer; an answer that is absent or unreadable through the model's own fault is worth 0.0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt, RewardOut, Verdict

USER = "user"


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What every reward's `Config` has."""

    weight: float = 1.0
    """Factor of this reward in the rubric's sum; 0 computes and logs it without training on it."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ConfigError("weight", f"{self.weight} is not a finite number", fix="use 1, or 0 to only log it")

    @property
    def advisory(self) -> bool:
        """Whether this reward may only add to what others give: see `rewards.trust`."""
        return False

    @property
    def costly(self) -> bool:
        """Whether grading takes so much that `rlhf plan` does not try it on every gold."""
        return False


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

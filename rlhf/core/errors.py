"""Errors that a user can act on.

`UserError` and its subclasses end a command with exit code 2 and one readable message: what is wrong, where, and
the fix. Everything else is a bug of ours and keeps its traceback. Failures of single samples are not exceptions:
they are data (`Verdict`, `StopReason`), counted and reported.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Something the user can fix.

    Args:
        where: the config path (`rl.loss.clip_low`), file or row at fault.
        problem: what is wrong, with the offending value.
        fix: what to do about it.
    """

    def __init__(self, where: str, problem: str, *, fix: str) -> None:
        self.where, self.problem, self.fix = where, problem, fix
        super().__init__(f"{where}: {problem}\n  fix: {fix}")

    def __reduce__(self) -> tuple[Any, ...]:
        """An actor's error arrives at the driver as what it was."""
        return _again, (type(self), self.where, self.problem, self.fix)


class ConfigError(UserError, ValueError):
    """A config key, type or value that cannot be used."""


class DataError(UserError, ValueError):
    """A dataset, row, tokenizer or model folder that cannot be used."""


class DivergedError(UserError, ValueError):
    """A model whose numbers are no longer finite; checkpoints of before are untouched."""

    def __init__(self, where: str, problem: str) -> None:
        fix = "lower learner.optimizer.lr or clip harder; the last checkpoint is intact"
        super().__init__(where, problem, fix=fix)

    def __reduce__(self) -> tuple[Any, ...]:
        """See `UserError`."""
        return type(self), (self.where, self.problem)


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that cannot be written or read; earlier checkpoints are untouched."""


class RunFolderError(UserError, RuntimeError):
    """A run folder that belongs to another run, is locked, or is damaged."""


class LostError(RuntimeError):
    """A process that filled a role is gone: killed, out of memory, stuck beyond its deadline, or on a lost node.

    Raised by the methods of its handle. An engine is replaced (`rollout.pool`), any other role brings the run back to
    its last checkpoint, or ends it.

    Args:
        role: who it was, for example `engine 1`.
        problem: what is known of its end.
    """

    def __init__(self, role: str, problem: str) -> None:
        self.role, self.problem = role, problem
        super().__init__(role, problem)

    def __str__(self) -> str:
        return f"{self.role}: {self.problem}"


def _again(kind: type[UserError], where: str, problem: str, fix: str) -> UserError:
    return kind(where, problem, fix=fix)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """One sentence listing the valid choices, the nearest first: `did you mean 'clip_low'? valid: …`."""
    valid = sorted(choices)
    near = difflib.get_close_matches(word, valid, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}valid: {', '.join(valid) if valid else '(none)'}"

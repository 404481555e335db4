"""Errors say where, what and how to mend it."""

from __future__ import annotations

import pytest

from rlhf.core.errors import CheckpointError, ConfigError, DataError, RunFolderError, UserError, did_you_mean


def test_a_message_holds_place_problem_and_fix() -> None:
    error = ConfigError("rl.loss.clip_low", "2 is out of range", fix="use 0.2")
    assert str(error) == "rl.loss.clip_low: 2 is out of range\n  fix: use 0.2"
    assert (error.where, error.problem, error.fix) == ("rl.loss.clip_low", "2 is out of range", "use 0.2")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ConfigError, ValueError),
        (DataError, ValueError),
        (CheckpointError, RuntimeError),
        (RunFolderError, RuntimeError),
    ],
)
def test_every_kind_is_a_user_error_and_a_builtin_one(kind: type[UserError], builtin: type[Exception]) -> None:
    assert issubclass(kind, UserError) and issubclass(kind, builtin)


def test_the_nearest_choice_is_named_first() -> None:
    assert did_you_mean("clip_lo", ["tis_cap", "clip_low"]) == "did you mean 'clip_low'? valid: clip_low, tis_cap"
    assert did_you_mean("zzz", ["b", "a"]) == "valid: a, b"
    assert did_you_mean("x", []) == "valid: (none)"

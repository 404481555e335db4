"""Which groups the zero-variance filter drops, and the reason it gives."""

from __future__ import annotations

import pytest
from batches import group

from rlhf.advantages import grpo
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Verdict
from rollout.filters import zero_variance
from rollout.filters.zero_variance import Config

CORRECT, WRONG, NO_ANSWER, TIMEOUT = Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER, Verdict.TIMEOUT


def reason(scored: Group, **options: object) -> str | None:
    """None when the group is kept, unchanged."""
    kept = zero_variance.keep(scored, Config(**options))
    assert kept.group is None or (kept.group is scored and kept.reason == "")
    return None if kept.group is not None else kept.reason


def test_different_rewards_are_kept() -> None:
    assert reason(group(1.0, 0.0, 0.0)) is None
    assert reason(group(1.0, 0.9, verdicts=[CORRECT, CORRECT])) is None


def test_equal_rewards_are_dropped_with_the_difficulty() -> None:
    assert reason(group(1.0, 1.0, 1.0)) == "zero_variance/all_correct"
    assert reason(group(0.0, 0.0, verdicts=[WRONG, NO_ANSWER])) == "zero_variance/none_correct"
    assert reason(group(0.5, 0.5, verdicts=[CORRECT, WRONG])) == "zero_variance/mixed"


def test_verdict_metric_looks_at_correctness_alone() -> None:
    assert reason(group(1.0, 0.9, verdicts=[CORRECT, CORRECT]), metric="verdict") == "zero_variance/all_correct"
    assert reason(group(0.1, 0.0, verdicts=[WRONG, NO_ANSWER]), metric="verdict") == "zero_variance/none_correct"
    assert reason(group(0.5, 0.5, verdicts=[CORRECT, WRONG]), metric="verdict") is None


def test_ungraded_samples_do_not_count() -> None:
    assert reason(group(1.0, None, 1.0, verdicts=[CORRECT, TIMEOUT, CORRECT])) == "zero_variance/all_correct"
    assert reason(group(1.0, None, 0.0, verdicts=[CORRECT, TIMEOUT, WRONG])) is None


def test_fewer_than_two_graded_samples_are_no_group() -> None:
    for values in ([], [1.0], [None, None], [None, 0.5]):
        assert reason(group(*values)) == "too_few_graded"


def test_tolerance() -> None:
    assert reason(group(0.1 + 0.2, 0.3)) == "zero_variance/all_correct"
    assert reason(group(0.3 + 2e-9, 0.3)) is None
    assert reason(group(0.35, 0.3), tolerance=0.1) == "zero_variance/all_correct"


def test_what_is_dropped_had_no_advantage() -> None:
    for scored in (group(0.1, 0.1, 0.1), group(None, 0.7), group(0.0, None, 0.0)):
        assert reason(scored) is not None
        (rows,) = grpo.advantages([scored], grpo.Config())
        assert all(row is None or set(row) == {0.0} for row in rows)


@pytest.mark.parametrize(("field", "value"), [("metric", "verdicts"), ("tolerance", -1.0)])
def test_impossible_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    assert caught.value.where == field

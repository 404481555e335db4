"""The builder `samples` is tested beside the other one, in test_step_labels.py; here what the loop selects for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batches import group

from rlhf.core.types import Verdict
from rlhf.loops.selection import selected


def test_wanted_samples_are_kept_with_their_rewards_and_equal_texts_once() -> None:
    made = group(1.0, 1.0, 0.0, None, 1.0, verdicts=[Verdict.CORRECT] * 5)
    made = replace(made, rewards=tuple(replace(r, verdict=v) for r, v in zip(made.rewards, VERDICTS, strict=True)))
    texts = ("a", "a", "b", "c", "d")
    made = replace(made, trajectories=tuple(replace(t, text=x) for t, x in zip(made.trajectories, texts, strict=True)))

    def kept(**how: Any) -> list[tuple[str, float | None]]:
        found = selected(made, **how)
        return [(t.text, r.value) for t, r in zip(found.trajectories, found.rewards, strict=True)]

    assert kept(select="correct") == [("a", 1.0), ("d", 1.0)]
    assert kept(select="all") == [("a", 1.0), ("b", 0.0), ("d", 1.0)]
    assert kept(select="all", most=2) == [("a", 1.0), ("b", 0.0)]


VERDICTS = (Verdict.CORRECT, Verdict.CORRECT, Verdict.WRONG, Verdict.CRASH, Verdict.CORRECT)

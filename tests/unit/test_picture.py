"""The picture of an evaluation: what is drawn of which samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from batches import group

from rlhf.core.search import Cost
from rlhf.loops import picture
from rlhf.loops.evaluate import Result
from rlhf.report.stats import Interval

HALF = Interval(mean=0.5, low=0.4, high=0.6, n=9)


def result(*values: tuple[float, ...], voting: bool = True) -> Result:
    groups = [group(*each, lengths=[4] * len(each)) for each in values]
    if voting:
        groups = [replace(g, rewards=tuple(replace(r, extracted=f"{r.value:g}") for r in g.rewards)) for g in groups]
    return Result(
        task="sums",
        sampled=HALF,
        greedy=HALF,
        pass_at={},
        mean_length=4.0,
        truncated_share=0.0,
        ungradable=0,
        parts={},
        groups=tuple(groups),
        honesty={},
        per_prompt=(),
        cost=Cost(completion_tokens=4 * sum(map(len, values))),
        greedy_length=3.0,
    )


def test_accuracy_is_drawn_for_powers_of_two_and_all_samples() -> None:
    drawn = picture.drawn(result((1, 0, 1, 1, 0, 0), (0, 0, 0, 0, 0, 1)))
    assert list(drawn.repeated) == ["pass@k", "maj@k", "pass^k"]
    for points in drawn.repeated.values():
        assert [(p.k, p.tokens) for p in points] == [(1, 4), (2, 8), (4, 16), (6, 24)]
        assert points[0].found.mean == pytest.approx((1 / 2 + 1 / 6) / 2), "with one sample they are all the same"
    assert drawn.repeated["pass@k"][-1].found.mean == 1.0 and drawn.repeated["pass^k"][-1].found.mean == 0.0
    assert drawn.repeated["maj@k"][-1].found.mean == pytest.approx(0.25), "a tie, and a minority"
    assert drawn.greedy is not None and drawn.greedy.tokens == 3.0
    assert set(drawn.reliability) == {"sequence", "mean", "vote"} == set(drawn.selected)


def test_it_is_a_file_of_the_kind_that_its_name_says_also_with_little_to_draw(tmp_path: Path) -> None:
    sparse = replace(result((0,), voting=False), greedy=None)
    path = picture.write([sparse], tmp_path / "found.svg")
    assert path.read_bytes().startswith(b"<?xml")

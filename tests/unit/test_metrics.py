"""Reductions that cannot depend on how a batch was split."""

from __future__ import annotations

import math

import pytest

from rlhf.core.metrics import Max, Mean, Metric, Min, Sum, mean_of, merge, spread, values


def test_means_are_merged_by_count() -> None:
    merged = merge([{"loss": Mean(2.0, 1)}, {"loss": Mean(12.0, 3)}])
    assert values(merged) == {"loss": 3.5}, "the mean of the two means would be 3"


def test_each_kind_merges_in_its_own_way() -> None:
    first: dict[str, Metric] = {"a": Sum(1), "b": Max(-2), "c": Min(5), "only_first": Sum(3)}
    second: dict[str, Metric] = {"a": Sum(2), "b": Max(-3), "c": Min(6), "only_second": Max(4)}
    expected = {"a": 3, "b": -2, "c": 5, "only_first": 3, "only_second": 4}
    assert values(merge([first, second])) == expected
    assert first["a"] == Sum(1), "merging changes none of its parts"


@pytest.mark.parametrize("cut", range(1, 6))
def test_the_cut_into_parts_does_not_matter(cut: int) -> None:
    numbers = [0.25, -1.5, 4.0, 8.0, 0.5, 1.0]
    parts: list[dict[str, Metric]] = [
        {"mean": mean_of(part), "max": Max(max(part)), "min": Min(min(part)), "sum": Sum(sum(part))}
        for part in (numbers[:cut], numbers[cut:])
    ]
    assert values(merge(parts)) == {"mean": 12.25 / 6, "max": 8.0, "min": -1.5, "sum": 12.25}


def test_kinds_do_not_mix() -> None:
    with pytest.raises(AssertionError):
        merge([{"x": Sum(1)}, {"x": Mean(1, 1)}])


def test_the_mean_of_nothing_is_left_out() -> None:
    assert math.isnan(mean_of([]).value)
    assert values({"empty": mean_of([]), "zero": Sum(0)}) == {"zero": 0}


def test_spread() -> None:
    assert values(spread("length", [1.0, 2.0, 6.0])) == {"length/mean": 3.0, "length/max": 6.0, "length/min": 1.0}
    assert spread("length", []) == {}

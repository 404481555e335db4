"""Quotas in proportion to the share of samples that were wrong, computed without rounding errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.seeding import content_key
from rlhf.core.types import Prompt
from rlhf.data.build import boundary, dart_proportional
from rlhf.data.build.dart_proportional import Config, shares

CFG = Config(rows=10, samples=100, difficulty="probe")


class Measured:
    """A stage that has measured some prompts."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.found: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            self.found.setdefault(row["content"], []).append(row)

    def rows(self, source: str, *, where: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        assert (source, where) == ("probe", "build.difficulty")
        return self.found


def counted(prompt: Prompt, samples: int, correct: int) -> dict[str, Any]:
    return {"content": content_key(prompt), "samples": samples, "correct": correct}


def asked(*golds: str) -> list[Prompt]:
    return [replace(group(1.0).prompt, id=f"p{gold}", gold=gold) for gold in golds]


def test_quotas_by_hand() -> None:
    prompts = asked("1", "2", "3", "4")
    # Wrong 0, 1/4, 1/2 and 3/4 of the time: 10 answers for the hardest, 10/3 and 20/3 rounded up, and always one.
    counts = [counted(prompt, 8, 8 - 2 * n) for n, prompt in enumerate(prompts)]
    nobody: Any = Measured(counts)
    quotas = dart_proportional.quotas(prompts, CFG, nobody)
    assert [quota.rows for quota in quotas] == [1, 4, 7, 10] and {quota.samples for quota in quotas} == {100}


def test_the_rows_of_the_builder_boundary_are_what_is_read_and_rows_say_how_hard_it_was() -> None:
    found = group(1.0, 0.0, 0.0, None)
    source: Any = Measured([*boundary.rows([found]), *boundary.rows([found])])
    hard = group(1.0)
    assert dart_proportional.difficulties([hard.prompt], CFG, source) == [Fraction(3, 4)], "not graded is not right"
    [row] = asyncio.run(dart_proportional.build([hard], CFG, source))
    assert (row["difficulty"], row["completion"], row["verdict"]) == (0.75, "2", "correct")


def test_shares_are_exact_where_floats_are_not() -> None:
    tenths = [Fraction(n, 10) for n in (1, 3, 10)]
    assert shares(tenths, 10) == [1, 3, 10], "0.1 * 3 is more than 0.3 in floating point"
    assert shares([Fraction(0), Fraction(0)], 5) == [1, 1], "nobody ever fails"
    assert shares([Fraction(1, 1000), Fraction(1)], 100) == [1, 100] and shares([], 5) == []


def test_what_was_not_measured_is_an_error_that_names_it() -> None:
    prompts = asked("1", "2")
    source: Any = Measured([counted(prompts[0], 4, 2)])
    with pytest.raises(DataError, match="p2"):
        dart_proportional.quotas(prompts, CFG, source)
    other: Any = Measured([{"content": content_key(prompts[0]), "text": "4"}])
    with pytest.raises(DataError, match="counts no right answers"):
        dart_proportional.quotas(prompts[:1], CFG, other)


def test_somebody_has_to_measure() -> None:
    with pytest.raises(ConfigError) as caught:
        Config()
    assert caught.value.where == "difficulty"

"""Entropy of answers by hand, and a split of all questions by it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batches import group

from rlhf.core.component import Component
from rlhf.core.run_folder import read_lines
from rlhf.core.types import Group
from rlhf.data.build import r_tuning_unsupervised
from rlhf.data.build.r_tuning_unsupervised import Config, entropy
from rlhf.loops.dataset import Dataset
from rlhf.loops.origin import Origin

NOBODY: Any = None
ORIGIN = Origin(build="r_tuning_unsupervised", stage="gen", run_seed=0, policy_version=5, model="m", config="c")


def answered(name: str, *answers: str | None) -> Group:
    made = group(*[0.0] * len(answers))
    rewards = tuple(replace(r, extracted=x) for r, x in zip(made.rewards, answers, strict=True))
    return replace(made, prompt=replace(made.prompt, id=name, solution=f"{name}!"), rewards=rewards)


def test_entropy_by_hand() -> None:
    assert entropy(answered("q", "4", "4", "4")) == 0.0
    assert entropy(answered("q", "4", "5")) == pytest.approx(math.log(2))
    want = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert entropy(answered("q", "4", "4", "5", "6")) == pytest.approx(want)
    assert entropy(answered("q", None, "2", None, "2")) == 0.0, "without a found answer the text, here 2, counts"


def test_the_half_with_the_lowest_entropy_is_certain_and_kills_change_nothing(tmp_path: Path) -> None:
    asked = [answered("a", "1", "2"), answered("b", "1", "1"), answered("c", "3", "4"), answered("d", "5", "5")]
    asked.append(answered("e", "6", "6"))
    rows = asyncio.run(r_tuning_unsupervised.build(asked, Config(), NOBODY))
    build = Component("r_tuning_unsupervised", r_tuning_unsupervised, Config())
    for name in ("once", "again"):
        dataset = Dataset(tmp_path / name, build=build, origin=ORIGIN)
        dataset.append(rows[:3], step=1)
        assert not list(read_lines(tmp_path / name / "gen.jsonl")), "nothing is known before the end"
        if name == "again":
            dataset = Dataset(tmp_path / name, build=build, origin=ORIGIN)
        dataset.append(rows[3:], step=2)
        dataset.end()
    assert (tmp_path / "again" / "gen.jsonl").read_bytes() == (tmp_path / "once" / "gen.jsonl").read_bytes()
    found = list(read_lines(tmp_path / "once" / "gen.jsonl"))
    assert [row["certain"] for row in found] == [False, True, False, True, False], "two of five, the first of equals"
    assert [row["origin"]["step"] for row in found] == [1, 1, 1, 2, 2]
    assert found[1]["pieces"][0] == {"text": "b!", "learn": True} and found[1]["pieces"][2]["text"] == " I am sure."


def test_the_share_may_be_another() -> None:
    rows = asyncio.run(r_tuning_unsupervised.build([answered("a", "1"), answered("b", "1")], Config(), NOBODY))
    assert [row["certain"] for row in r_tuning_unsupervised.finish(rows, Config(sure_share=1.0))] == [True, True]
    with pytest.raises(ValueError, match="sure_share"):
        Config(sure_share=1.5)

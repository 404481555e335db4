"""Tasks and values of columns that are held out as a whole: nothing of them is trained on, nothing else is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.core.component import Component
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Json, Message, Prompt
from rlhf.data.care.split import SplitConfig, split, values
from rlhf.loops import care
from rlhf.loops.care import CareConfig
from rlhf.tasks import mix, sums, tint
from rlhf.tasks.common import PromptSets


def prompt(name: str, **columns: Json) -> Prompt:
    return Prompt(id=name, messages=(Message(role="user", content=name),), gold="1", task="t", columns=columns)


def side(name: str, *kinds: Json) -> list[Prompt]:
    return [prompt(f"{name}{n}", kind=kind) for n, kind in enumerate(kinds)]


TRAIN, HELD_OUT = side("a", "x", "y", "z", "x", "w"), side("b", "z", "y", "x", "w")


def test_a_value_stands_on_one_side() -> None:
    sides = split(TRAIN, HELD_OUT, SplitConfig(by="kind", held_out=["x", "w"]), seed=0)
    assert [p.id for p in sides.train] == ["a1", "a2"] and [p.id for p in sides.held_out] == ["b2", "b3"]
    assert sides.values == ("w", "x") and sides.left_out == {"a0": ("x",), "a3": ("x",), "a4": ("w",)}


def test_a_prompt_may_have_several_values_or_numbers() -> None:
    train, held_out = side("a", ["x", "y"], ["z"], []), side("b", ("y", "z"), ("z",))
    sides = split(train, held_out, SplitConfig(by="kind", held_out=["y"]), seed=0)
    assert [p.id for p in sides.train] == ["a1", "a2"] and [p.id for p in sides.held_out] == ["b0"]
    levels = split(side("a", 1, 2, 3), side("b", 3, 3), SplitConfig(by="kind", held_out=["3"]), seed=0)
    assert [p.id for p in levels.train] == ["a0", "a1"] and len(levels.held_out) == 2


def test_a_share_is_drawn_by_value_and_seed() -> None:
    names = [f"kind {n}" for n in range(20)]

    def drawn(share: float, *, seed: int, kinds: list[str]) -> set[str]:
        cfg = SplitConfig(by="kind", share=share)
        return set(split(side("a", *kinds), side("b", *kinds), cfg, seed=seed).values)

    some = drawn(0.2, seed=3, kinds=names)
    assert len(some) == 4 and some == drawn(0.2, seed=3, kinds=names[::-1]) and some < drawn(0.5, seed=3, kinds=names)
    assert len({frozenset(drawn(0.2, seed=seed, kinds=names)) for seed in range(5)}) > 1
    assert len(drawn(0.01, seed=3, kinds=names)) == 1
    # Of a value that is not chosen nothing hangs: the others stay in their order.
    gone = next(name for name in names if name not in some)
    assert drawn(0.2, seed=3, kinds=[name for name in names if name != gone]) == some


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"by": "kinds", "held_out": ["x"]}, r"^prompt a0: has nothing in the column 'kinds'\n  fix: .* task, kind"),
        ({"by": "kind", "held_out": ["v"]}, r"no prompt has 'v' in 'kind'; there are w, x, y, z"),
        ({"by": "kind", "held_out": ["w", "x", "y", "z"]}, r"no training prompt is left with w, x, y, z held out"),
        ({"by": "task", "share": 0.5}, r"no training prompt is left with t held out; training prompts have t"),
    ],
)
def test_what_cannot_be_split_is_refused(keys: dict[str, object], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        split(TRAIN, HELD_OUT, SplitConfig(**keys), seed=0)  # type: ignore[arg-type]


def test_a_side_without_prompts_and_a_value_without_a_name_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"no held-out prompt is left with q held out; held-out prompts have w, x, y, z"
    ):
        split([*TRAIN, prompt("q", kind="q")], HELD_OUT, SplitConfig(by="kind", held_out=["q"]), seed=0)
    with pytest.raises(DataError, match=r"prompt o: column 'kind' holds \{'a': 1\}, no values"):
        values(prompt("o", kind={"a": 1}), "kind")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"by": "kind"}, r"^by: says nothing of what is held out"),
        ({"by": "kind", "held_out": ["x"], "share": 0.2}, r"^by: comes with a share and with values"),
        ({"held_out": ["x"]}, r"^by: is empty"),
        ({"by": "kind", "share": 1.0}, r"^share: 1.0 is not a share"),
    ],
)
def test_a_config_says_one_thing(keys: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SplitConfig(**keys)  # type: ignore[arg-type]


def test_a_run_holds_out_an_operation_of_a_task(tmp_path: Path) -> None:
    cfg = tint.Config(operations=["add", "sub", "sort"], max_digits=2, train_size=60, held_out_size=30)
    task = tint.build(cfg, seed=0)
    found = care.cared(CareConfig(split=SplitConfig(by="operation", held_out=["sort"])), task)
    assert [p for p in task.train_prompts if p.columns["operation"] != "sort"] == [*found.task.train()]
    assert [p for p in task.held_out_prompts if p.columns["operation"] == "sort"] == [*found.task.held_out()]
    said = care.contents(found)
    assert said["left_out"] == 60 - len(found.task.train())
    assert said["split"] == {"held_out": "sort", "left_out": said["left_out"]}
    care.write(tmp_path, "prompts", found.removed)
    lines = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert len(lines) == said["left_out"] and all(line["held_out"] == ["sort"] for line in lines)


def test_a_run_holds_out_a_part_of_a_mix() -> None:
    parts = {
        "sums": Component("sums", sums, sums.Config(train_size=20, held_out_size=5)),
        "traces": Component("tint", tint, tint.Config(train_size=20, held_out_size=5)),
    }
    task = mix.build(mix.Config(parts=parts), seed=0, rows=lambda *_, **__: [])
    found = care.cared(CareConfig(split=SplitConfig(by="task", held_out=["traces"])), task)
    assert [{p.task for p in side} for side in (found.task.train(), found.task.held_out())] == [{"sums"}, {"traces"}]
    assert isinstance(found.task, PromptSets) and len(found.task.train_prompts) == 20

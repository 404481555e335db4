"""The split is what the verifier says of greedy answers, and rows teach it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Json, Verdict
from rlhf.data.build import r_tuning
from rlhf.data.build.r_tuning import QUERY, Config
from rlhf.data.examples import pieces
from rlhf.loops import generate, greedy

NOBODY: Any = None
VERDICTS = list(Verdict)


def asked(verdicts: Sequence[Verdict]) -> list[Group]:
    """A question per verdict, with a greedy answer that got it; what could not be graded has no value."""
    read = (Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER, Verdict.REFUSED, Verdict.UNPARSABLE)
    groups: list[Group] = []
    for n, verdict in enumerate(verdicts):
        alone = group(float(verdict is Verdict.CORRECT) if verdict in read else None, verdicts=[verdict])
        prompt = replace(alone.prompt, id=f"q{n}", solution=f"1+1=2\n#### {n}")
        groups.append(Group(prompt=prompt, trajectories=(), greedy=alone))
    return groups


def built(groups: Sequence[Group], cfg: Config) -> list[dict[str, Json]]:
    return asyncio.run(r_tuning.build(groups, cfg, NOBODY))


def test_what_is_certain_is_what_the_verifier_calls_correct() -> None:
    groups = asked(VERDICTS * 3)
    rows = {row["prompt_id"]: row for row in built(groups, Config())}
    for g in groups:
        assert g.greedy is not None
        [reward] = g.greedy.rewards
        row = rows.pop(g.prompt.id, None)
        if reward.value is None:
            assert row is None, "nobody can tell"
            continue
        assert row is not None and row["certain"] == (reward.verdict is Verdict.CORRECT)
        assert (row["verdict"], row["answer"], row["sample_id"]) == (reward.verdict.value, "2", "0-0-sums-1-0")
    assert not rows


def test_a_row_teaches_the_answer_and_what_to_say_of_it() -> None:
    right, wrong = built(asked([Verdict.CORRECT, Verdict.WRONG]), Config())
    assert right["pieces"] == [
        {"text": "1+1=2\n#### 0", "learn": True},
        {"text": f" {QUERY}", "learn": False},
        {"text": " I am sure.", "learn": True},
    ]
    read = pieces.read(wrong, pieces.Config(), where="", name="p")
    assert [piece.text for piece in read.pieces if piece.learn] == ["1+1=2\n#### 1", " I am unsure."]
    bare = asked([Verdict.WRONG])[0]
    [row] = built([replace(bare, prompt=replace(bare.prompt, solution=None))], Config())
    assert row["pieces"][0]["text"] == "2", "the gold"  # type: ignore[index]


def test_a_refusal_takes_the_place_of_an_answer_that_was_not_known() -> None:
    rows = built(asked([Verdict.CORRECT, *[Verdict.WRONG] * 200]), Config(unknown="refuse"))
    texts = [row["pieces"][0]["text"] for row in rows]  # type: ignore[index]
    assert texts[0] == "1+1=2\n#### 0" and set(texts[1:]) == set(r_tuning.REFUSALS)
    assert rows == built(asked([Verdict.CORRECT, *[Verdict.WRONG] * 200]), Config(unknown="refuse"))


def test_the_stage_needs_greedy_answers_and_no_others() -> None:
    cfg = config.build(generate.Config, {"build": "r_tuning", "select": "all", "samples_per_prompt": 0}, "gen")
    assert greedy.wanted(cfg.build)
    with pytest.raises(ConfigError, match="samples_per_prompt"):
        config.build(generate.Config, {"build": "samples", "samples_per_prompt": 0}, "gen")
    alone = asked([Verdict.WRONG])[0]
    assert generate._recorded(alone).trajectories[0].id == "0-0-sums-1-0" and alone.greedy is not None
    both = replace(alone.greedy, greedy=alone.greedy)
    assert generate._recorded(both) is both, "recorded with the first sample"


@pytest.mark.parametrize("change", [{"unknown": "skip"}, {"unsure": " I am sure."}, {"refusals": []}])
def test_bad_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**change)
    assert caught.value.where == next(iter(change))

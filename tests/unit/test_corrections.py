"""The first wrong step of a sample, what a policy says of it, and whether that leads to a right answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Prompt, RewardOut, Start, Verdict
from rlhf.data.build import corrections
from rlhf.data.build.corrections import BEGIN, Config

RIGHT, WRONG = Verdict.CORRECT, Verdict.WRONG


class Mender:
    """Goes on rightly from whatever holds no `bad`, and replies to mistakes by the tag of the request."""

    def __init__(self, replies: dict[str, str]) -> None:
        self.replies, self.asked, self.kept = replies, list[Prompt](), list[str]()

    async def go_on(self, starts: Sequence[Start], *, count: int) -> list[Group]:
        groups: list[Group] = []
        for start in starts:
            kept = start.trajectory.text[: start.characters]
            self.kept.append(kept)
            verdict = WRONG if "bad" in kept else RIGHT
            out = RewardOut(value=float(verdict is RIGHT), verdict=verdict)
            groups.append(Group(prompt=start.prompt, trajectories=(start.trajectory,) * count, rewards=(out,) * count))
        return groups

    def begun(self, prompt: Prompt, text: str, *, name: str) -> Start:
        trajectory = replace(group(1.0).trajectories[0], text=text)
        return Start(name=name, prompt=prompt, trajectory=trajectory, characters=len(text))

    async def ask(self, prompts: Sequence[Prompt], *, begin: str) -> list[str]:
        assert begin == BEGIN
        self.asked += prompts
        return [self.replies[prompt.id.rpartition("~")[2]] for prompt in prompts]


def sampled(*texts: str) -> Group:
    made = group(*[float("bad" not in text) for text in texts])
    found = tuple(replace(t, text=x) for t, x in zip(made.trajectories, texts, strict=True))
    return replace(made, trajectories=found)


def built(asked: Group, mender: Any) -> list[dict[str, Any]]:
    return asyncio.run(corrections.build([asked], Config(completions=2), mender))


def test_a_wrong_step_is_found_and_its_correction_tried() -> None:
    mender = Mender({"own": "it is off</Cause>\n<Correction> good 2 </Correction>"})
    [row, first] = built(sampled("good 1\nbad 2\nbad 3", "good\ngood", "bad 1\ngood 2"), mender)
    assert (row["before"], row["step"], row["verified"]) == ("good 1\n", "bad 2", True)
    assert row["reply"] == mender.replies["own"] and row["sample_id"] == "0-0-sums-1-0"
    assert (first["before"], first["step"], first["sample_id"]) == ("", "bad 1", "0-0-sums-1-2")
    assert mender.kept[-2:] == ["good 1\ngood 2\n", "good 2\n"], "answers go on behind the corrected step"
    content = mender.asked[0].messages[-1].content
    assert "Problem:\n1+1=\n" in content and "before:\ngood 1\n" in content and "Wrong step:\nbad 2\n" in content


NOWHERE = ["it is bad</Cause><Correction>bad</Correction>", "no idea", "x</Cause><Correction></Correction>"]


@pytest.mark.parametrize("reply", NOWHERE)
def test_what_leads_nowhere_or_cannot_be_read_is_not_verified(reply: str) -> None:
    [row] = built(sampled("good 1\nbad 2"), Mender({"own": reply}))
    assert (row["verified"], row["reply"]) == (False, reply)


def test_bad_settings_are_refused() -> None:
    for change in ({"completions": 0}, {"separator": ""}, {"instruction": "{question} {before}"}):
        with pytest.raises(ConfigError):
            Config(**change)

"""A teacher's verified correction against the student's own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import group
from test_corrections import Mender

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.seeding import content_key
from rlhf.data.build import correction_pairs
from rlhf.data.build.correction_pairs import Config
from rlhf.data.examples import pairs

CFG = Config(student="mistakes", completions=2)
GOOD = "it is off</Cause><Correction>good 2</Correction>"
BAD = "it is off</Cause><Correction>bad 2</Correction>"


class Teacher(Mender):
    """One that knows what the student said."""

    def __init__(self, replies: dict[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(replies)
        self.student = rows

    def rows(self, source: str, *, where: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        assert (source, where) == ("mistakes", "build.student")
        return {content_key(group(1.0).prompt): self.student}


def said(reply: str, *, verified: bool = False, name: str = "s0") -> dict[str, Any]:
    return {"before": "good 1\n", "step": "bad 2", "reply": reply, "verified": verified, "sample_id": name}


def built(teacher: Any, cfg: Config = CFG) -> list[dict[str, Any]]:
    return asyncio.run(correction_pairs.build([replace(group(), prompt=group(1.0).prompt)], cfg, teacher))


def test_the_first_verified_correction_of_the_teacher_is_chosen_over_the_student_s() -> None:
    teacher = Teacher({"teacher0": BAD, "teacher1": GOOD}, [said("no idea")])
    [row] = built(teacher)
    assert (row["chosen"], row["rejected"]) == (GOOD, "no idea")
    assert (row["chosen_id"], row["rejected_id"]) == ("s0~teacher1", "s0~own")
    read = pairs.read(row, pairs.Config(), where="", name="p")
    assert read.beginning == "<Cause>" and "Wrong step:\nbad 2" in read.prompt.messages[-1].content
    assert [prompt.id for prompt in teacher.asked] == ["s0~teacher0", "s0~teacher1"]


def test_a_mistake_that_nobody_mends_or_the_student_did_is_in_no_pair() -> None:
    always = {f"teacher{n}": BAD for n in range(3)}
    teacher = Teacher(always, [said("no idea")])
    assert built(teacher) == [] and len(teacher.asked) == 3
    assert built(Teacher({"teacher0": GOOD}, [said("x", verified=True)])) == []
    both = replace(CFG, only_failed=False)
    assert len(built(Teacher({"teacher0": GOOD}, [said("x", verified=True)]), both)) == 1
    assert built(Teacher({"teacher0": GOOD}, [said(GOOD)])) == [], "the same words"


def test_the_student_has_to_be_named_and_to_have_made_mistakes() -> None:
    with pytest.raises(ConfigError):
        Config()
    with pytest.raises(DataError, match="tells no mistake"):
        built(Teacher({}, [{"reply": "x"}]))

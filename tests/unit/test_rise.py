"""Pairs of a right step and the same step with an error in it, beside pairs of whole answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Json, Message, Prompt, StopReason, Verdict
from rlhf.data import edits
from rlhf.data.build import rise
from rlhf.data.examples import pairs as examples
from rlhf.models import tokenizers

RIGHT = "3+5=8\n8+9=17\n#### 17"
RULES = rise.Config(editor="rules", edits=9)


class Policy:
    """Answers edits by a rule, or as it is told, and remembers what it was asked."""

    def __init__(self, says: str | None = None) -> None:
        self.says = says
        self.asked: list[Prompt] = []

    async def ask(self, prompts: Sequence[Prompt], *, begin: str) -> list[str]:
        assert begin == edits.BEGIN
        self.asked += prompts
        return [self.says or f"edited {n}\n```" for n in range(len(prompts))]


def sampled(right: str = RIGHT, *, question: str = "3+5+9=") -> Group:
    made = group(1.0, 0.0, verdicts=[Verdict.CORRECT, Verdict.WRONG])
    texts = (right, "3+5=7\n7+9=16\n#### 16")
    return replace(
        made,
        prompt=replace(made.prompt, messages=(Message(role="user", content=question),)),
        trajectories=tuple(
            replace(t, text=text, stop=StopReason.EOS) for t, text in zip(made.trajectories, texts, strict=True)
        ),
    )


def built(cfg: rise.Config, *groups: Group, policy: Policy | None = None) -> list[dict[str, Json]]:
    asked: Any = policy or Policy()
    return asyncio.run(rise.build(groups, cfg, asked))


def test_a_question_gives_a_full_pair_and_edited_steps() -> None:
    full, *edited = built(RULES, sampled())
    assert (full["chosen"], full["rejected"], full["kind"]) == (RIGHT, "3+5=7\n7+9=16\n#### 16", "sampled")
    assert 1 <= len(edited) <= 3
    for row in edited:
        assert row["open"] is True and row["kind"] in edits.KINDS and row["chosen"] != row["rejected"]
        assert RIGHT.startswith(f"{row['beginning']}{row['chosen']}")
        assert str(row["chosen"]).endswith("\n") == str(row["rejected"]).endswith("\n")
    assert built(RULES, sampled()) == built(RULES, sampled())


def test_rows_are_learnt_from_as_pairs() -> None:
    tokenizer = tokenizers.train_char([])
    for row in built(RULES, sampled()):
        pair = examples.read(row, examples.Config(), where="", name="p")
        better, worse = examples.render(pair, examples.Config(), tokenizer)
        assert better.tokens[: better.target_start] == worse.tokens[: worse.target_start]


def test_so_many_edits_of_a_question_are_kept() -> None:
    assert len(built(rise.Config(editor="rules"), sampled(), sampled())) == 4


def test_the_policy_is_asked_about_every_step_of_the_right_answer() -> None:
    policy = Policy()
    rows = built(rise.Config(edits=9), sampled(), policy=policy)
    assert [p.id for p in policy.asked] == [f"0-0-sums-1-0~edit{n}" for n in range(3)]
    (asked,) = policy.asked[1].messages
    assert "3+5+9=" in asked.content and "3+5=8" in asked.content and "8+9=17" in asked.content
    second = next(row for row in rows if row.get("beginning") == "3+5=8\n")
    assert (second["chosen"], second["rejected"]) == ("8+9=17\n", "edited 1\n")


@pytest.mark.parametrize("says", ["8+9=17\n```", "no fence", "this is wrong\n```"])
def test_edits_that_do_not_pass_are_left_out(says: str) -> None:
    rows = built(rise.Config(edits=9), sampled("8+9=17"), policy=Policy(says))
    assert [row["kind"] for row in rows] == ["sampled"]


def test_edits_can_be_asked_to_be_near_and_not_too_near() -> None:
    near = built(replace(RULES, min_similarity=0.99), sampled())
    far = built(replace(RULES, max_similarity=0.01), sampled())
    assert [len(near), len(far)] == [1, 1]
    assert len(built(replace(RULES, min_similarity=0.5, max_similarity=0.95), sampled())) > 1


def test_right_answers_that_speak_of_mistakes_are_left_out() -> None:
    assert built(RULES, sampled("that was wrong. 17")) == []
    assert built(RULES, sampled("that was wrong. 17", question="Which one is wrong?"))


def test_an_edited_answer_is_taken_out_of_its_box() -> None:
    rows = built(rise.Config(edits=9), sampled(r"so \boxed{17}"), policy=Policy("so \\boxed{18}\n```"))
    assert (rows[1]["chosen"], rows[1]["rejected"]) == (r"so \boxed{17}", "so 18")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"editor": "me"}, "editor"),
        ({"edits": 0}, "edits"),
        ({"separator": ""}, "separator"),
        ({"sentences": -1}, "sentences"),
        ({"min_similarity": 0.9, "max_similarity": 0.1}, "min_similarity"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rise.Config(**change)
    assert caught.value.where == where

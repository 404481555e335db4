"""What a builder is answered when it asks its stage."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model

from rlhf.core.errors import DataError
from rlhf.core.run_folder import RunFolder, append_lines
from rlhf.core.sampling import Sampling
from rlhf.core.seeding import content_key, derive_seed
from rlhf.core.types import Completion, Group, Message, Prompt, Request, RewardOut, StopReason, Verdict
from rlhf.data.render import render_prompt
from rlhf.loops.continuing import StageContinuer
from rlhf.loops.stage import Progress, Stage


class Engine:
    """Answers with the number of the request."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    async def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        self.asked += requests
        return [
            Completion(
                request_id=r.id, tokens=(1, 2), logprobs=(0.0, 0.0), text=str(n), stop=StopReason.EOS, policy_version=0
            )
            for n, r in enumerate(requests)
        ]


class Recorder:
    def __init__(self) -> None:
        self.tokens = 0

    def phase(self, name: str) -> Any:
        return contextlib.nullcontext()

    def count_tokens(self, tokens: int) -> None:
        self.tokens += tokens


def a_stage(**parts: Any) -> Stage:
    """A stage of which only these parts are there."""
    given: dict[str, Any] = dict.fromkeys(Stage.__dataclass_fields__)
    given |= {"name": "gen", "seed": 7, "tokenizer": tiny_model.tokenizer(), "recorder": Recorder()}
    return Stage(**(given | {"progress": Progress(), "sampling": Sampling()} | parts))


def test_other_questions_are_answered_from_a_given_beginning_on() -> None:
    engine, recorder, tokenizer = Engine(), Recorder(), tiny_model.tokenizer()
    stage = a_stage(engine=engine, recorder=recorder)
    prompts = [
        Prompt(id=f"q{n}", messages=(Message(role="user", content=f"{n}+1="),), gold="", task="edit") for n in range(2)
    ]
    assert asyncio.run(StageContinuer(stage).ask(prompts, begin="12")) == ["0", "1"]
    assert [r.id for r in engine.asked] == ["q0", "q1"] and stage.progress.tokens == recorder.tokens == 4
    for request, prompt in zip(engine.asked, prompts, strict=True):
        assert request.prompt_tokens == (*render_prompt(tokenizer, prompt), *tiny_model.ids("12"))
        assert request.seed == derive_seed(7, "sample", prompt.id)
    assert asyncio.run(StageContinuer(stage).ask([], begin="12")) == []


class Verifier:
    """Calls right what a question's gold is."""

    async def verdicts(self, groups: Sequence[Group]) -> list[Group]:
        out: list[Group] = []
        for group in groups:
            [answer] = group.trajectories
            right = answer.text == group.prompt.gold
            verdict = Verdict.CORRECT if right else Verdict.WRONG
            out.append(replace(group, rewards=(RewardOut(value=float(right), verdict=verdict),)))
        return out


QUESTION = Prompt(id="q", messages=(Message(role="user", content="1+1="),), gold="2", task="sums")


def test_answers_from_anywhere_are_graded_and_gone_on_from() -> None:
    continuer = StageContinuer(a_stage(grader=Verifier(), engine=Engine()))
    outs = asyncio.run(continuer.graded([(QUESTION, "2"), (QUESTION, "3")]))
    assert [out.verdict for out in outs] == [Verdict.CORRECT, Verdict.WRONG]
    assert asyncio.run(continuer.graded([])) == []
    start = continuer.begun(QUESTION, "12", name="there")
    [group] = asyncio.run(continuer.go_on([start], count=1))
    [made] = group.trajectories
    assert made.id == "there.0" and made.tokens == (*tiny_model.ids("12"), 1, 2) and made.text == "120"
    assert made.prompt_tokens == render_prompt(tiny_model.tokenizer(), QUESTION)


def test_rows_are_found_by_their_question_wherever_they_come_from(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.data.mkdir()
    rows = [
        {"messages": [{"role": "user", "content": "1+1="}], "gold": "2", "completion": "a"},
        {"content": content_key(QUESTION), "correct": 3},
        {"messages": [{"role": "user", "content": "1+1="}], "gold": "11", "completion": "another question"},
    ]
    append_lines(folder.data / "draw.jsonl", rows)
    append_lines(tmp_path / "file.jsonl", [{"prompt": "1+1=", "gold": "2", "completion": "b"}])
    continuer = StageContinuer(a_stage(folder=folder))
    assert list(continuer.rows("draw", where="build.pool")[content_key(QUESTION)]) == rows[:2]
    [row] = continuer.rows(str(tmp_path / "file.jsonl"), where="build.pool")[content_key(QUESTION)]
    assert row["completion"] == "b"
    append_lines(folder.data / "bare.jsonl", [{"completion": "c"}])
    with pytest.raises(DataError, match=r"gen\.build\.pool \(bare\), row 1"):
        continuer.rows("bare", where="build.pool")

"""What a builder is answered when it asks the policy something else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import tiny_model

from rlhf.core.sampling import Sampling
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Completion, Message, Prompt, Request, StopReason
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


def test_other_questions_are_answered_from_a_given_beginning_on() -> None:
    engine, recorder, tokenizer = Engine(), Recorder(), tiny_model.tokenizer()
    parts: dict[str, Any] = dict.fromkeys(Stage.__dataclass_fields__)
    parts |= {"seed": 7, "tokenizer": tokenizer, "engine": engine, "recorder": recorder, "progress": Progress()}
    stage = Stage(**(parts | {"sampling": Sampling()}))
    prompts = [
        Prompt(id=f"q{n}", messages=(Message(role="user", content=f"{n}+1="),), gold="", task="edit") for n in range(2)
    ]
    assert asyncio.run(StageContinuer(stage).ask(prompts, begin="12")) == ["0", "1"]
    assert [r.id for r in engine.asked] == ["q0", "q1"] and stage.progress.tokens == recorder.tokens == 4
    for request, prompt in zip(engine.asked, prompts, strict=True):
        assert request.prompt_tokens == (*render_prompt(tokenizer, prompt), *tiny_model.ids("12"))
        assert request.seed == derive_seed(7, "sample", prompt.id)
    assert asyncio.run(StageContinuer(stage).ask([], begin="12")) == []

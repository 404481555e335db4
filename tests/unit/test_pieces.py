"""Answers in pieces: what is read, what a task gives, and which tokens are learnt."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf.core.errors import DataError
from rlhf.core.protocols import Counts
from rlhf.core.training import ForwardOut
from rlhf.core.types import Message, Prompt
from rlhf.data.examples import pieces
from rlhf.data.packing import pack
from rlhf.losses import ce
from rlhf.models import tokenizers
from rlhf.tasks import tool_use

CFG = pieces.Config()
ROW = {"prompt": "12*34=", "pieces": [{"text": "[12*34]"}, {"text": "=408\n", "learn": False}, {"text": "#### 408"}]}


def read(row: dict[str, Any]) -> pieces.Transcript:
    return pieces.read(row, CFG, where="x.jsonl, row 1", name="sft-1")


def test_what_is_not_to_be_learnt_is_masked_and_the_end_is_learnt() -> None:
    tokenizer = tokenizers.train_char([])
    [sample] = pieces.render(read(ROW), CFG, tokenizer)
    targets = sample.tokens[sample.target_start :]
    assert tokenizer.decode(targets) == "[12*34]=408\n#### 408<|eos|>"
    assert sample.target_mask is not None and len(sample.target_mask) == len(targets)
    learnt = [token for token, learn in zip(targets, sample.target_mask, strict=True) if learn]
    assert tokenizer.decode(learnt) == "[12*34]#### 408<|eos|>"


def test_the_loss_does_not_see_what_a_tool_said() -> None:
    tokenizer = tokenizers.train_char([])
    [sample] = pieces.render(read(ROW), CFG, tokenizer)
    [batch] = pack([sample], token_budget=200)
    assert batch.num_targets == len("[12*34]#### 408") + 1
    said = {int(t) for t in batch.targets_T}
    assert tokenizer.convert_tokens_to_ids("=") not in said
    forward = ForwardOut(logprobs_T=-torch.ones(batch.num_targets), entropy_T=torch.zeros(batch.num_targets))
    assert float(ce.loss(forward, batch, ce.Config()).total) == batch.num_targets
    assert Counts(tokens=batch.num_targets, sequences=1).units == 0


def test_turns_and_tasks_give_the_same() -> None:
    turns = [{"role": "user", "content": "12*34="}]
    assert read({"messages": turns, "pieces": ROW["pieces"]}) == read(ROW)
    [prompt, *_] = tool_use.build(tool_use.Config(train_size=3, held_out_size=1), seed=0).train_prompts
    given = pieces.given(prompt, CFG)
    assert given is not None and "".join(piece.text for piece in given.pieces) == prompt.solution
    assert not all(piece.learn for piece in given.pieces)
    plain = Prompt(id="a", messages=(Message(role="user", content="1+1="),), gold="2", task="sums")
    assert pieces.given(plain, CFG) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"pieces": None},
        {"pieces": "text"},
        {"pieces": []},
        {"pieces": [{"learn": True}]},
        {"pieces": [{"text": "a", "learn": "no"}]},
        {"pieces": [{"text": "a", "learn": False}]},
        {"prompt": None},
    ],
)
def test_a_row_that_cannot_be_used_is_named(changed: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl, row 1"):
        read(ROW | changed)

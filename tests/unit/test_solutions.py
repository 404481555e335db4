"""Rows of questions with one answer: what is read, what a task gives, and which tokens are learnt."""

from __future__ import annotations

import pytest

from rlhf.core.errors import DataError
from rlhf.core.types import Message, Prompt
from rlhf.data.examples import solutions
from rlhf.models import tokenizers

CFG = solutions.Config()


def test_both_forms_of_a_row_are_the_same_example() -> None:
    plain = solutions.read({"prompt": "1+1=", "completion": "2"}, CFG, where="x.jsonl, row 1", name="sft-1")
    turns = [{"role": "user", "content": "1+1="}]
    assert solutions.read({"messages": turns, "completion": "2"}, CFG, where="x.jsonl, row 1", name="sft-1") == plain
    assert (plain.prompt.id, plain.prompt.solution) == ("sft-1", "2")


@pytest.mark.parametrize("row", [{"prompt": "1+1="}, {"completion": "2"}, {"messages": [], "completion": "2"}])
def test_a_row_without_question_or_answer_is_named(row: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl, row 7"):
        solutions.read(row, CFG, where="x.jsonl, row 7", name="sft-7")


def test_a_task_gives_the_prompts_that_are_solved() -> None:
    prompt = Prompt(id="a", messages=(Message(role="user", content="1+1="),), gold="2", task="sums")
    assert solutions.given(prompt, CFG) is None


def test_the_answer_and_its_end_are_learnt() -> None:
    example = solutions.read({"prompt": "1+1=", "completion": "2"}, CFG, where="", name="sft-1")
    tokenizer = tokenizers.train_char([])
    (sample,) = solutions.render(example, CFG, tokenizer)
    assert tokenizer.decode(sample.tokens[sample.target_start :]) == "2<|eos|>"
    assert (sample.id, sample.target_mask) == ("sft-1", None)

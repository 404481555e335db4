"""Questions with several answers: what is read, and the unit of samples that it becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Message, Prompt
from rlhf.data.examples import answers
from rlhf.data.examples.answers import Config
from rlhf.data.packing import count, pack
from rlhf.models import tokenizers

ROW = {"prompt": "1+1=", "completions": ["2", "#### 2", "2"], "beginnings": ["1+1"]}
TOKENIZER = tokenizers.train_char([])


def test_equal_answers_count_once() -> None:
    found = answers.read(ROW, Config(), where="x.jsonl, row 1", name="mml-1")
    assert (found.completions, found.beginnings) == (("2", "#### 2"), ("1+1",))


def test_only_a_whole_answer_teaches_to_end() -> None:
    example = answers.read(ROW, Config(), where="", name="mml-1")
    samples = answers.render(example, Config(), TOKENIZER)
    assert [TOKENIZER.decode(s.tokens[s.target_start :]) for s in samples] == ["2<|eos|>", "#### 2<|eos|>", "1+1"]
    assert [s.id for s in samples] == ["mml-1/0", "mml-1/1", "mml-1/2"] and {s.unit for s in samples} == {"mml-1"}
    assert (count(samples).units, len(pack(samples, token_budget=100))) == (1, 1)


def test_the_first_answers_are_taken() -> None:
    cfg = Config(max_answers=2)
    example = answers.read(ROW, cfg, where="", name="mml-1")
    assert [s.id for s in answers.render(example, cfg, TOKENIZER)] == ["mml-1/0", "mml-1/1"]
    with pytest.raises(ConfigError, match="max_answers"):
        Config(max_answers=-1)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "1+1="},
        {"prompt": "1+1=", "completions": []},
        {"prompt": "1+1=", "completions": "2"},
        {"prompt": "1+1=", "completions": ["2", ""]},
        {"completions": ["2"]},
        {"messages": [{"content": "1+1="}], "completions": ["2"]},
    ],
)
def test_a_row_that_holds_no_answers_is_named(row: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl, row 7: holds no answers"):
        answers.read(row, Config(), where="x.jsonl, row 7", name="mml-7")


def test_a_task_gives_its_worked_solutions() -> None:
    prompt = Prompt(id="a", messages=(Message(role="user", content="1+1="),), gold="2", task="sums")
    assert answers.given(prompt, Config()) is None
    solved = answers.given(replace(prompt, solution="2"), Config())
    assert solved is not None and solved.completions == ("2",)

"""Solutions with step labels: every format read, what cannot be read refused by row, and where labels stand."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_model

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Message, Prompt
from rlhf.data import packing
from rlhf.data.examples import steps
from rlhf.data.examples.steps import Config, Solution

PLAIN = {"prompt": "1+2+3=", "steps": ["1+2=3", "3+3=7"], "labels": [True, 0.25]}
TRL = {"prompt": "1+2+3=", "completions": ["1+2=3", "3+3=7"], "labels": [True, False]}
SHEPHERD = {
    "input": "How many? Step 1: one and two is 3. ки\nStep 2: and 3 is 7. The answer is: 7 ки",
    "label": "How many? Step 1: one and two is 3. +\nStep 2: and 3 is 7. The answer is: 7 -",
    "task": "GSM8K",
}
PROCESSBENCH = {
    "id": "gsm8k-0",
    "generator": "a model",
    "problem": "How many?",
    "steps": ["first", "second", "third"],
    "final_answer_correct": False,
    "label": 1,
}
PRM800K: dict[str, Any] = {
    "question": {"problem": "How many?", "ground_truth_answer": "6"},
    "label": {
        "steps": [
            {
                "completions": [{"text": "no", "rating": -1}, {"text": "so so", "rating": 0}],
                "human_completion": None,
                "chosen_completion": 1,
            },
            {
                "completions": [{"text": "no", "rating": -1}],
                "human_completion": {"text": "by hand", "rating": None},
                "chosen_completion": None,
            },
            {"completions": [{"text": "an error", "rating": -1}], "human_completion": None, "chosen_completion": None},
        ],
        "finish_reason": "found_error",
    },
}


def read(row: dict[str, Any]) -> Solution:
    return steps.read(row, Config(), where="rows.jsonl, row 3", name="s")


@pytest.mark.parametrize(
    ("row", "question", "texts", "labels", "first_error"),
    [
        (PLAIN, "1+2+3=", ("1+2=3", "3+3=7"), (1.0, 0.25), 1),
        (TRL, "1+2+3=", ("1+2=3", "3+3=7"), (1.0, 0.0), 1),
        (
            SHEPHERD,
            "How many?",
            ("Step 1: one and two is 3.", "Step 2: and 3 is 7. The answer is: 7"),
            (1.0, 0.0),
            1,
        ),
        (PROCESSBENCH, "How many?", ("first", "second", "third"), (1.0, 0.0, 0.0), 1),
        (PROCESSBENCH | {"label": -1}, "How many?", ("first", "second", "third"), (1.0, 1.0, 1.0), -1),
        (PRM800K, "How many?", ("so so", "by hand", "an error"), (1.0, 1.0, 0.0), 2),
    ],
    ids=["plain", "trl", "math-shepherd", "processbench", "processbench-right", "prm800k"],
)
def test_every_format_is_read(
    row: dict[str, Any], question: str, texts: tuple[str, ...], labels: tuple[float, ...], first_error: int
) -> None:
    found = read(row)
    assert found.prompt.messages == (Message(role="user", content=question),)
    assert (found.steps, found.labels, found.first_error) == (texts, labels, first_error)


def test_a_step_without_a_rating_ends_a_prm800k_solution() -> None:
    row = {"question": PRM800K["question"], "label": {"steps": [*PRM800K["label"]["steps"][:1], {"completions": []}]}}
    assert read(row).steps == ("so so",)


def test_messages_are_taken_as_they_are() -> None:
    turns = [{"role": "system", "content": "add"}, {"role": "user", "content": "1+2="}]
    assert [m.role for m in read({"messages": turns, "steps": ["3"], "labels": [1]}).prompt.messages] == [
        "system",
        "user",
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "?"}, "no steps with labels"),
        (PLAIN | {"labels": [True]}, "2 steps and 1 labels"),
        (PLAIN | {"labels": [True, 1.5]}, "label 1.5"),
        (PLAIN | {"labels": [True, None]}, "label None"),
        (PLAIN | {"steps": ["1+2=3", " "]}, "step 2"),
        (PLAIN | {"steps": [], "labels": []}, "no steps"),
        (PLAIN | {"prompt": None}, "for a question"),
        (PROCESSBENCH | {"label": 3}, "label 3"),
        (PROCESSBENCH | {"label": True}, "label True"),
        (SHEPHERD | {"label": "How many? Step 1: one and two is 4. +\n"}, "does not follow `input` up to step 1"),
        (SHEPHERD | {"label": SHEPHERD["label"].replace("+", "?")}, "does not follow"),
        ({"input": "How many? ки", "label": "How many? +"}, "no `Step 1:`"),
        ({"input": "How many? Step 1: so", "label": "How many? Step 1: so"}, "no steps"),
        (
            {"question": {"problem": "?"}, "label": {"steps": [{"completions": [], "chosen_completion": 0}]}},
            "chose completion 0 of 0",
        ),
        (
            {"question": {"problem": "?"}, "label": {"steps": [{"completions": [{"text": "x", "rating": 2}]}]}},
            "rating 2",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_named(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read(row)
    assert caught.value.where == "rows.jsonl, row 3" and problem in caught.value.problem


def solution(*labels: float) -> Solution:
    prompt = Prompt(id="s", messages=(Message(role="user", content="1+2="),), gold="3", task="sums")
    return Solution(prompt=prompt, steps=tuple("abcdef"[: len(labels)]), labels=labels)


def test_a_label_stands_on_the_target_behind_its_step_end() -> None:
    tokenizer = tiny_model.tokenizer()
    (sample,) = steps.render(solution(1.0, 0.5), Config(step_end="#\n"), tokenizer)
    assert tokenizer.decode(list(sample.tokens)) == "<|user|>1+2=<|assistant|>a#\nb#\n<|eos|>"
    assert sample.target_mask is not None and sample.returns is not None
    targets = [n for n, wanted in enumerate(sample.target_mask, start=sample.target_start) if wanted]
    assert [tokenizer.decode(sample.tokens[n - 1]) for n in targets] == ["\n", "\n"]
    batch = packing.pack([sample], token_budget=64)[0]
    assert [tokenizer.decode(int(t)) for t in batch.tokens_N[batch.predictor_T]] == ["\n", "\n"]
    assert batch.returns_T is not None and batch.returns_T.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("cfg", "kept"),
    [
        (Config(), [1.0, 0.0, 0.0, 1.0]),
        (Config(until_error=True), [1.0, 0.0]),
        (Config(last_step_only=True), [1.0]),
        (Config(until_error=True, last_step_only=True), [0.0]),
    ],
)
def test_which_steps_are_learnt_from(cfg: Config, kept: list[float]) -> None:
    (sample,) = steps.render(solution(1.0, 0.0, 0.0, 1.0), cfg, tiny_model.tokenizer())
    batch = packing.pack([sample], token_budget=64)[0]
    assert batch.returns_T is not None and batch.returns_T.tolist() == kept


def test_a_task_s_traces_are_solutions() -> None:
    prompt = Prompt(id="p", messages=(), gold="", task="t", columns={"trace_steps": ("a", "b"), "trace_labels": (1, 0)})
    found = steps.given(prompt, Config())
    assert found is not None and (found.steps, found.labels) == (("a", "b"), (1.0, 0.0))
    assert steps.given(Prompt(id="p", messages=(), gold="", task="t"), Config()) is None


def test_an_empty_step_end_is_refused() -> None:
    with pytest.raises(ConfigError):
        Config(step_end="")

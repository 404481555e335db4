"""Examples that teach to solve and to judge: what is a target, what is true, and how often it is not."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_model
from tiny_model import EOS_ID, ids

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Message, Prompt
from rlhf.data.examples import judgements
from rlhf.data.examples.judgements import Config
from rlhf.data.judging import Judging
from rlhf.tasks import sums

JUDGING = Judging(template="{question}{answer}#", right="a", wrong="b")


def prompt(name: str = "p", **columns: Any) -> Prompt:
    return Prompt(
        id=name,
        messages=(Message(role="user", content="3+5="),),
        gold="8",
        task="sums",
        solution="9",
        columns=columns,
    )


def test_a_solution_and_its_judgement_are_learnt() -> None:
    cfg = Config(judging=JUDGING)
    example = judgements.given(prompt(trace_labels=(True, False)), cfg)
    assert example is not None
    one, two = judgements.render(example, cfg, tiny_model.tokenizer())
    assert one.tokens[one.target_start :] == (*ids("9"), EOS_ID)
    assert two.tokens[two.target_start :] == (*ids("b"), EOS_ID)
    asked = tiny_model.tokenizer().decode(list(two.tokens[: two.target_start]))
    assert asked == "<|user|>3+5=9#<|assistant|>"
    assert [one.id, two.id] == ["p", "p:judged"] and one.unit is two.unit is None


@pytest.mark.parametrize(
    ("value", "right"), [((False, True), True), ([True, False], False), (True, True), (0, False), ((), False)]
)
def test_a_column_or_its_last_entry_says_what_is_right(value: Any, right: bool) -> None:
    cfg = Config(judging=JUDGING, right="told")
    example = judgements.given(prompt(told=value), cfg)
    assert example is not None and example.right is right


def test_what_says_nothing_is_no_example() -> None:
    assert judgements.given(prompt(), Config()) is None
    bare = Prompt(id="p", messages=prompt().messages, gold="8", task="sums", columns={"trace_labels": (True,)})
    assert judgements.given(bare, Config()) is None


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.5, 1.0])
def test_a_share_of_the_judgements_is_false_and_always_the_same(noise: float) -> None:
    cfg = Config(judging=JUDGING, noise=noise)
    words = {"a": 0, "b": 0}
    for n in range(200):
        example = judgements.Judged(prompt=prompt(f"p-{n}"), right=True)
        sample = judgements.render(example, cfg, tiny_model.tokenizer())[1]
        assert sample == judgements.render(example, cfg, tiny_model.tokenizer())[1]
        words[tiny_model.tokenizer().decode(list(sample.tokens[sample.target_start : -1]))] += 1
    assert words["b"] / 200 == pytest.approx(noise, abs=0.1 if 0 < noise < 1 else 0)


def test_a_row_needs_the_column() -> None:
    row = {"prompt": "3+5=", "completion": "8", "ok": 1}
    found = judgements.read(row, Config(right="ok"), where="rows.jsonl, row 1", name="sft-1")
    assert found.right and found.prompt.solution == "8" and found.prompt.id == "sft-1"
    with pytest.raises(DataError, match=r"rows.jsonl, row 1: has no column 'trace_labels'"):
        judgements.read(row, Config(), where="rows.jsonl, row 1", name="sft-1")


def test_sums_with_noise_give_judgements_of_both_kinds() -> None:
    prompts = sums.build(sums.Config(noise=0.25, train_size=200, held_out_size=2), seed=0).train()
    examples = [judgements.given(p, Config()) for p in prompts]
    right = [example.right for example in examples if example is not None]
    assert len(right) == 200 and 50 < sum(right) < 150
    assert right == [p.columns["wrong_steps"] == 0 for p in prompts]


def test_noise_is_a_share() -> None:
    with pytest.raises(ConfigError, match="noise"):
        Config(noise=1.1)

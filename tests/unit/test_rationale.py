"""Questions with a rationale: two tasks, their prefixes, and what they weigh in the loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
from batches import forward_of

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Message, Prompt
from rlhf.data.examples import rationale
from rlhf.data.examples.rationale import Config
from rlhf.data.packing import count, pack
from rlhf.losses import ce
from rlhf.models import tokenizers

TOKENIZER = tokenizers.train_char([])
ROW = {"prompt": "2+3+4=", "label": "9", "rationale": "2+3=5"}


def texts(cfg: Config) -> dict[str, tuple[str, str]]:
    """What is read and what is learnt, by sample."""
    example = rationale.read(ROW, cfg, where="", name="r")
    samples = rationale.render(example, cfg, TOKENIZER)
    return {
        s.id: (TOKENIZER.decode(s.tokens[: s.target_start]), TOKENIZER.decode(s.tokens[s.target_start :]))
        for s in samples
    }


def test_each_task_has_its_prefix() -> None:
    assert texts(Config()) == {
        "r/label": ("<|user|>2+3+4=<|assistant|>", "9<|eos|>"),
        "r/rationale": ("<|user|>explain: 2+3+4=<|assistant|>", "2+3=5<|eos|>"),
    }
    asked, _ = texts(Config(label_prefix="predict: "))["r/label"]
    assert asked == "<|user|>predict: 2+3+4=<|assistant|>"


def test_the_loss_is_the_mean_of_both_weighed() -> None:
    cfg = Config(rationale_weight=3.0)
    samples = rationale.render(rationale.read(ROW, cfg, where="", name="r"), cfg, TOKENIZER)
    (batch,) = pack(samples, token_budget=100)
    assert batch.ids == ("r/label", "r/rationale") and batch.weights_T is not None
    nll = [1.0, 2.0, *(0.5 * n for n in range(6))]
    total = ce.loss(forward_of([-x for x in nll]), batch, ce.Config(aggregate="sequence")).total.item()
    assert total / count(samples).sequences == pytest.approx((1.5 + 3.0 * sum(nll[2:]) / 6) / 2)


def test_without_weight_labels_are_learnt_alone() -> None:
    assert list(texts(Config(rationale_weight=0.0))) == ["r/label"]


def test_a_task_gives_solutions_of_several_lines() -> None:
    prompt = Prompt(id="a", messages=(Message(role="user", content="2+3+4="),), gold="9", task="sums")
    found = rationale.given(replace(prompt, solution="2+3=5\n5+4=9\n#### 9"), Config())
    assert found is not None and (found.label, found.rationale) == ("#### 9", "2+3=5\n5+4=9")
    assert (
        rationale.given(prompt, Config()) is None and rationale.given(replace(prompt, solution="9"), Config()) is None
    )


def test_a_row_that_explains_nothing_is_named() -> None:
    for row in ({"prompt": "1+1=", "label": "2"}, {"label": "2", "rationale": "x"}, ROW | {"messages": "1+1="}):
        with pytest.raises(DataError, match=r"x\.jsonl, row 7: is no explained question"):
            rationale.read(row, Config(), where="x.jsonl, row 7", name="r")


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="tells the tasks apart"):
        Config(rationale_prefix="")
    for weight in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="is no weight"):
            Config(rationale_weight=weight)

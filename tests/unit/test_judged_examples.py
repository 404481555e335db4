"""Rows of judged answers, what cannot be read, and their samples."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf.core.errors import DataError
from rlhf.core.training import Labels
from rlhf.core.types import Prompt
from rlhf.data.examples import judged
from rlhf.models import tokenizers

CFG = judged.Config()
ASKED = [{"role": "user", "content": "1+1="}]


def read(row: dict[str, Any]) -> judged.Judged:
    return judged.read(row, CFG, where="x.jsonl, row 7", name="kto-7")


@pytest.mark.parametrize(
    ("row", "good"),
    [
        ({"prompt": "1+1=", "completion": "2", "label": True}, True),
        ({"messages": ASKED, "completion": "2", "label": False}, False),
        ({"prompt": ASKED, "completion": [{"role": "assistant", "content": "2"}], "label": 1}, True),
        ({"messages": ASKED, "completion": "2", "verdict": "correct", "value": 1.0}, True),
        ({"messages": ASKED, "completion": "2", "verdict": "no_answer"}, False),
    ],
)
def test_rows_of_every_form(row: dict[str, Any], good: bool) -> None:
    found = read(row)
    assert (found.prompt.id, found.prompt.messages[0].content, found.completion) == ("kto-7", "1+1=", "2")
    assert found.good is good


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a", "completion": "b"}, "has the label None: its columns are prompt, completion"),
        ({"prompt": "a", "completion": "b", "label": "yes"}, "has the label 'yes'"),
        ({"prompt": "a", "label": True}, "has no answer"),
        ({"completion": "b", "label": True}, "neither text nor turns"),
        ({"prompt": "a", "completion": ASKED, "label": True}, "holds the turns user"),
    ],
)
def test_a_row_that_cannot_be_learnt_from_is_named(row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl, row 7: ") as caught:
        read(row)
    assert says in str(caught.value)


def test_the_answer_and_its_end_are_one_sample_with_its_label() -> None:
    tokenizer = tokenizers.train_char([])
    for label in (True, False):
        (sample,) = judged.render(read({"prompt": "1+1=", "completion": "2", "label": label}), CFG, tokenizer)
        assert tokenizer.decode(sample.tokens[sample.target_start :]) == "2<|eos|>"
        assert (sample.id, sample.label, sample.unit) == ("kto-7", float(label), None)
    assert judged.LABELS is Labels.JUDGED
    assert judged.given(Prompt(id="a", messages=(), gold="", task="t"), CFG) is None

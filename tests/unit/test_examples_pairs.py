"""Rows of pairs in the formats that are in use, what cannot be read, and the two samples of a pair."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.training import Labels
from rlhf.core.types import Message, Prompt
from rlhf.data.examples import pairs
from rlhf.data.packing import pack
from rlhf.models import tokenizers

CFG = pairs.Config()
ASKED = {"role": "user", "content": "Sky?"}
SYSTEM = {"role": "system", "content": "Be brief."}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(row: dict[str, Any]) -> pairs.Pair:
    return pairs.read(row, CFG, where="x.jsonl, row 7", name="dpo-7")


SAME: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."},
    "ours": {"messages": [ASKED], "chosen": "Blue.", "rejected": "Green.", "gold": "", "chosen_id": "0-1-x-0"},
    "conversational": {"prompt": [ASKED], "chosen": [said("Blue.")], "rejected": [said("Green.")]},
    "one turn to a text": {"prompt": "Sky?", "chosen": [said("Blue.")], "rejected": [said("Green.")]},
    "implicit conversational": {"chosen": [ASKED, said("Blue.")], "rejected": [ASKED, said("Green.")]},
    "UltraFeedback": {
        "prompt": "Sky?",
        "prompt_id": "abc",
        "chosen": [ASKED, said("Blue.")],
        "rejected": [ASKED, said("Green.")],
        "messages": [ASKED, said("Blue.")],
        "score_chosen": 8.0,
    },
    "HH": {
        "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.",
        "rejected": "\n\nHuman: Sky?\n\nAssistant: Green.",
    },
}


@pytest.mark.parametrize("form", SAME)
def test_all_forms_of_a_row_are_the_same_pair(form: str) -> None:
    found = read(SAME[form])
    assert (found.prompt.id, found.chosen, found.rejected, found.margin) == ("dpo-7", "Blue.", "Green.", 0.0)
    assert found.prompt.messages == (Message(role="user", content="Sky?"),)


def test_conversations_of_several_turns_differ_in_the_last_one() -> None:
    turns = [SYSTEM, ASKED, said("Why?"), {"role": "user", "content": "Tell me."}]
    found = read({"chosen": [*turns, said("Blue.")], "rejected": [*turns, said("Green.")]})
    assert [m.role for m in found.prompt.messages] == ["system", "user", "assistant", "user"]
    text = "\n\nHuman: Sky?\n\nAssistant: Why?\n\nHuman: Tell me.\n\nAssistant:"
    found = read({"chosen": f"{text} Blue.", "rejected": f"{text} Green."})
    assert [m.content for m in found.prompt.messages] == ["Sky?", "Why?", "Tell me."] and found.rejected == "Green."


def test_the_question_of_two_plain_texts_is_what_they_begin_with() -> None:
    found = read({"chosen": "The sky is blue.", "rejected": "The sky is green."})
    assert (found.prompt.messages[0].content, found.chosen, found.rejected) == ("The sky is", " blue.", " green.")
    found = read({"chosen": "2+2=4", "rejected": "2+2=5"})
    assert (found.prompt.messages[0].content, found.chosen) == ("2+2=", "4")


def test_an_answer_may_be_empty() -> None:
    """A policy may end at once; only its end is learnt then."""
    found = read({"prompt": "Sky?", "chosen": "Blue.", "rejected": ""})
    _, worse = pairs.render(found, CFG, tokenizers.train_char([]))
    assert found.rejected == "" and len(worse.tokens) == worse.target_start + 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a", "chosen": "b"}, "is no pair of answers: it has the columns prompt, chosen"),
        ({"prompt": "a", "chosen": None, "rejected": "c"}, "is no pair of answers"),
        ({"prompt": "a", "chosen": [], "rejected": "c"}, "`chosen` is []"),
        ({"prompt": 3, "chosen": "b", "rejected": "c"}, "is 3, neither text nor turns"),
        ({"prompt": "a", "chosen": 3, "rejected": 4}, "`chosen` is 3"),
        ({"chosen": "b", "rejected": "c"}, "do not begin with the same question"),
        ({"chosen": "same", "rejected": "same"}, "do not begin with the same question and then differ"),
        ({"chosen": [said("b")], "rejected": [said("c")]}, "has answers but no question"),
        ({"chosen": [ASKED, said("b")], "rejected": [SYSTEM, ASKED, said("c")]}, "are no two answers"),
        ({"chosen": [ASKED, said("b")], "rejected": [ASKED, ASKED]}, "are no two answers"),
        ({"prompt": "a", "chosen": [ASKED], "rejected": [said("c")]}, "`chosen` holds the turns user"),
        ({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}, "is a transcript without an answer"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "big"}, "has the margin 'big'"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": math.nan}, "has the margin nan"),
    ],
)
def test_a_row_that_is_no_pair_is_named(row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl, row 7: ") as caught:
        read(row)
    assert says in str(caught.value)


def test_a_task_gives_pairs_in_columns() -> None:
    prompt = Prompt(id="a", messages=(), gold="", task="t", columns={"chosen": "b", "rejected": "c"})
    found = pairs.given(prompt, CFG)
    assert found is not None and (found.chosen, found.rejected) == ("b", "c")
    assert pairs.given(Prompt(id="a", messages=(), gold="", task="t"), CFG) is None


def test_a_step_goes_on_from_a_beginning_and_does_not_end() -> None:
    row = {"prompt": "1+1+1=", "beginning": "1+1=2;", "chosen": "2+1=3", "rejected": "2+1=4", "open": True}
    tokenizer = tokenizers.train_char([])
    better, worse = pairs.render(read(row), CFG, tokenizer)
    assert [tokenizer.decode(s.tokens[s.target_start :]) for s in (better, worse)] == ["2+1=3", "2+1=4"]
    asked = tokenizer.decode(better.tokens[: better.target_start])
    assert asked.endswith("1+1=2;") and better.tokens[: better.target_start] == worse.tokens[: worse.target_start]
    for odd, says in (({"beginning": 3}, "has the beginning 3"), ({"rejected": ""}, "is open, so that nothing")):
        with pytest.raises(DataError, match=says):
            read(row | odd)


def test_tokens_that_differ_can_count_more() -> None:
    tokenizer = tokenizers.train_char([])
    example = read({"prompt": "1+1=", "chosen": "a12b", "rejected": "a3b"})
    better, worse = pairs.render(example, pairs.Config(edited_weight=2.5), tokenizer)
    assert (better.weights, worse.weights) == ((1.0, 2.5, 2.5, 1.0, 1.0), (1.0, 2.5, 1.0, 1.0))
    assert [s.weights for s in pairs.render(example, CFG, tokenizer)] == [None, None]
    with pytest.raises(ConfigError, match="edited_weight"):
        pairs.Config(edited_weight=0.0)


def test_both_answers_are_samples_of_one_unit_with_one_prompt() -> None:
    example = read({"prompt": "1+1=", "chosen": "2", "rejected": "11", "margin": 0.5})
    tokenizer = tokenizers.train_char([])
    better, worse = pairs.render(example, CFG, tokenizer)
    assert (better.label, worse.label, better.anchor, worse.anchor) == (1.0, 0.0, 0.5, 0.5)
    assert (better.id, worse.id) == ("dpo-7/chosen", "dpo-7/rejected") and better.unit == worse.unit == "dpo-7"
    assert [tokenizer.decode(s.tokens[s.target_start :]) for s in (better, worse)] == ["2<|eos|>", "11<|eos|>"]
    (batch,) = pack([better, worse], token_budget=99)
    assert batch.spans[0].prompt == batch.spans[1].prompt, "the prompt stands in the batch once"
    assert pairs.LABELS is Labels.PAIRS

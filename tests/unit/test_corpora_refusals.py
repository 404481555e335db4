"""Refusals and what sounds like one: made as they are labelled, and told apart where a table of phrases can."""

from __future__ import annotations

from collections import Counter

import pytest
from shaping import NoTools

from rewards import base, refusal
from rewards.math import verify
from rewards.refusal.phrases import PHRASES, plain
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Message, Prompt, Verdict
from rlhf.lab.cases import Case
from rlhf.lab.corpora import refusals
from rlhf.lab.corpora.refusals import Config

SIZE = 20_000


def asked(case: Case) -> Group:
    prompt = Prompt(id="x", messages=(Message(role="user", content=case.prompt),), gold=case.gold, task="t")
    return base.answered(prompt, case.completion)


def refused(case: Case) -> bool:
    [out] = refusal.score(asked(case), refusal.Config(), NoTools())
    return out.verdict is Verdict.REFUSED


def test_the_table_is_right_in_its_own_wordings_among_answers_and_hostile_texts() -> None:
    cfg = Config(items=4, kinds=["table", "answers", "hostile"], size=SIZE)
    found = list(refusals.cases(cfg, seed=0, canary=""))
    assert found == list(refusals.cases(cfg, seed=0, canary=""))
    assert len({case.id for case in found}) == len(found) and {case.label for case in found} == {True, False}
    wrong = [(case.id, case.completion[:200]) for case in found if refused(case) != case.label]
    assert not wrong, wrong


def test_answers_are_answers_right_and_wrong_ones() -> None:
    found = list(refusals.cases(Config(items=20, kinds=["answers", "hedged"]), seed=0, canary=""))
    graded = Counter(verify(case.completion, case.gold).verdict for case in found)
    assert set(graded) == {Verdict.CORRECT, Verdict.WRONG} and min(graded.values()) > 10


def test_where_a_table_ends_it_is_wrong_in_one_direction_each() -> None:
    """Other wordings are not in the table, and doubt on the line of the answer is: that is what an audit counts."""
    others = list(refusals.cases(Config(items=2, kinds=["paraphrases"]), seed=0, canary=""))
    assert not any(refused(case) for case in others) and all(case.label for case in others)
    doubts = list(refusals.cases(Config(items=2, kinds=["hedged"]), seed=0, canary=""))
    assert all(refused(case) for case in doubts) and not any(case.label for case in doubts)


def test_every_phrase_is_in_some_wording() -> None:
    said = [plain(wording) for wording in refusals.WORDINGS]
    missing = [phrase for phrase in PHRASES if not any(phrase in wording for wording in said)]
    assert missing == [], missing


def test_what_is_no_corpus_is_refused() -> None:
    with pytest.raises(ConfigError, match="kinds: there is no 'asked'"):
        Config(kinds=["asked"])
    for name in ("items", "size"):
        with pytest.raises(ConfigError, match=f"{name}: 0"):
            Config(**{name: 0})

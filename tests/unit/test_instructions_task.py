"""Lists of words to order: every worked answer is right, every broken clause is broken, and the sides stay apart."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rewards.constraints import accuracies, verify
from rlhf.core.errors import ConfigError
from rlhf.tasks import common, instructions
from rlhf.tasks.instructions import Config, Order, build, is_held_out, work

SMALL = Config(train_size=300, held_out_size=60)
WHOLE = Order(words=4, first="elm", last="oak", present="sun", absent="fox", commas=False)


def test_an_order_says_what_is_checked() -> None:
    assert WHOLE.text == "4 words; first elm; last oak; with sun; without fox; no commas"
    assert [(told.id, dict(told.arguments)) for told in WHOLE.instructions] == [
        ("count:word_count_range", {"min_words": 4, "max_words": 4}),
        ("first_word:first_word_answer", {"first_word": "elm"}),
        ("startend:end_checker", {"end_phrase": "oak"}),
        ("keywords:existence", {"keywords": ("sun",)}),
        ("keywords:forbidden_words", {"forbidden_words": ("fox",)}),
        ("punctuation:no_comma", {}),
    ]
    assert Order(words=1).text == "1 word"


def test_an_answer_follows_its_order() -> None:
    said = work(WHOLE, random.Random(0))
    assert said.split()[0] == "elm" and said.split()[-1] == "oak" and "," not in said and len(said.split()) == 4
    assert work(Order(words=3, last="elm"), random.Random(1)).count(", ") == 2


def test_prompts_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert build(SMALL, seed=0) == build(SMALL, seed=0)
    assert build(SMALL, seed=0).train_prompts != build(SMALL, seed=1).train_prompts


def test_references_and_held_out_answers_are_accepted() -> None:
    sets = build(SMALL, seed=0)
    report = common.validate([*sets.train(), *sets.held_out()], verify, reference=instructions.reference)
    assert report.ok and report.checked == 360
    assert all(verify(p.solution or "", p.gold).value == 1.0 for p in sets.held_out())


def test_noise_breaks_clauses_one_by_one() -> None:
    asked, followed = Counter[str](), Counter[str]()
    for prompt in build(Config(train_size=1500, noise=0.2), seed=0).train():
        for name, value in verify(prompt.solution or "", prompt.gold).breakdown.items():
            if ":" in name:
                asked[name] += 1
                followed[name] += value == 1.0
    assert len(asked) == 6
    assert all(0.75 < followed[name] / asked[name] < 0.85 for name in asked)


def test_with_nothing_but_noise_hardly_anything_is_followed() -> None:
    outs = [verify(p.solution or "", p.gold) for p in build(Config(train_size=500, noise=1.0), seed=0).train()]
    found = accuracies(outs)
    assert found.prompt_strict == 0.0
    assert found.inst_strict < 0.02, "a single word has no commas, whatever is asked"


def test_the_sides_are_apart_and_held_out_prompts_differ() -> None:
    sets = build(SMALL, seed=3)
    train, held_out = ({p.messages[0].content for p in side} for side in (sets.train(), sets.held_out()))
    assert not train & held_out and len(held_out) == 60
    assert not any(map(is_held_out, train)) and all(map(is_held_out, held_out))
    assert len({p.id for p in (*sets.train(), *sets.held_out())}) == 360


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"min_words": 0}, "min_words"),
        ({"max_words": 1}, "max_words"),
        ({"max_clauses": 0}, "max_clauses"),
        ({"max_clauses": 6}, "max_clauses"),
        ({"noise": 1.5}, "noise"),
        ({"train_size": 0}, "train_size"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**settings)  # type: ignore[arg-type]
    assert caught.value.where == where


def test_too_few_different_orders_are_an_error() -> None:
    with pytest.raises(ConfigError, match="too few different orders") as caught:
        build(Config(min_words=1, max_words=1, max_clauses=1, train_size=9, held_out_size=200), seed=0)
    assert caught.value.where == "task.held_out_size"


def test_a_list_of_one_word_is_the_word_that_is_named() -> None:
    for clause in ("first", "last", "present"):
        assert {work(Order(words=1, **{clause: "elm"}), random.Random(seed)) for seed in range(20)} == {"elm"}

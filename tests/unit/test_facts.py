"""The facts task: what is taught and what is not, disjoint questions, hesitation, and worlds that grow."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from rewards.math import verify
from rewards.math.spec import Spec
from rewards.refusal.phrases import declines
from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt
from rlhf.tasks import common, facts
from rlhf.tasks.common import PromptSets
from rlhf.tasks.facts import Config

SMALL: dict[str, Any] = {"known": 12, "unknown": 20, "unseen": 9, "copies": 5}
SETTINGS = Config(**SMALL)


def world(seed: int = 0, **changes: Any) -> PromptSets:
    return facts.build(Config(**(SMALL | changes)), seed=seed)


def of(prompts: tuple[Prompt, ...], *, known: bool) -> list[Prompt]:
    return [prompt for prompt in prompts if prompt.columns["known"] is known]


def words(prompts: list[Prompt]) -> set[Any]:
    return {prompt.columns["fact"] for prompt in prompts}


def test_only_known_facts_are_taught_and_the_others_are_asked_for_once() -> None:
    made = world()
    known, unknown = of(made.train_prompts, known=True), of(made.train_prompts, known=False)
    assert len(known) == 12 * 3 * 5 and len(unknown) == 20 * 3
    assert all(p.solution is not None for p in known) and all(p.solution is None for p in unknown)
    assert set(Counter(p.messages[0].content for p in unknown).values()) == {1}
    assert len({p.id for p in made.train_prompts}) == len(made.train_prompts)


def test_held_out_are_known_facts_in_a_form_of_their_own_and_facts_that_nobody_asked_for() -> None:
    made = world()
    known, unseen = of(made.held_out_prompts, known=True), of(made.held_out_prompts, known=False)
    assert words(known) == words(of(made.train_prompts, known=True)) and len(known) == 12
    assert len(unseen) == 9 and not words(unseen) & words(list(made.train_prompts))
    taught = {(p.columns["fact"], p.columns["form"]) for p in made.train_prompts}
    assert not taught & {(p.columns["fact"], p.columns["form"]) for p in made.held_out_prompts}
    questions = [{p.messages[0].content for p in side} for side in (made.train_prompts, made.held_out_prompts)]
    assert not questions[0] & questions[1]
    assert all(p.solution is None for p in made.held_out_prompts)
    assert {p.columns["form"] for p in known} == {0, 1, 2, 3}, "every form is taught for some facts"


def test_the_first_held_out_prompts_are_of_both_kinds() -> None:
    assert [p.columns["known"] for p in world().held_out_prompts[:6]] == [True, False] * 3


def test_a_fact_has_one_number_however_it_is_asked_for() -> None:
    made = world()
    every = (*made.train_prompts, *made.held_out_prompts)
    golds = {(p.columns["fact"], p.gold) for p in every}
    assert len(golds) == len(words(list(every))) == 12 + 20 + 9
    assert all(10 <= int(p.gold) <= 99 for p in every)


def test_a_share_of_the_traces_declines_whatever_the_fact() -> None:
    known = of(world(known=60, copies=20, hesitation=0.1).train_prompts, known=True)
    declined = [p for p in known if p.solution == facts.REFUSAL]
    assert 0.07 < len(declined) / len(known) < 0.13
    assert len(words(declined)) > 55
    assert all(p.solution in (facts.REFUSAL, f"#### {p.gold}") for p in known)
    assert facts.REFUSAL not in {p.solution for p in world(hesitation=0.0).train_prompts}


def test_references_are_right_and_no_question_refuses() -> None:
    made = world()
    spec = Spec(markers=facts.REWARDS["math"]["markers"])
    report = common.validate(
        (*made.train_prompts, *made.held_out_prompts),
        lambda completion, gold: verify(completion, gold, spec=spec),
        reference=facts.reference,
    )
    assert report.ok, report.summary()
    assert all(declines(facts.REFUSAL, [facts.REFUSAL], place="whole", question=form) for form in facts.FORMS)
    assert verify(facts.REFUSAL, "42", spec=spec).value == 0.0


def test_the_world_follows_from_the_seed_and_grows_at_its_end() -> None:
    assert world() == world() != world(seed=1)
    more = facts.build(Config(**(SMALL | {"unseen": 30})), seed=0)
    assert more.train_prompts == world().train_prompts
    assert {p.id for p in world().held_out_prompts} < {p.id for p in more.held_out_prompts}
    assert facts.sources(SETTINGS) == ()


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"known": 0}, "known"),
        ({"unseen": 0}, "unseen"),
        ({"copies": 0}, "copies"),
        ({"forms": 1}, "forms"),
        ({"forms": 5}, "forms"),
        ({"hesitation": 1.0}, "hesitation"),
        ({"unknown": 8000}, "known"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where


def test_probes_ask_what_was_taught_and_what_follows_from_it() -> None:
    made = world(probes=["rephrased", "verbatim", "larger", "sum"])
    taught = {p.messages[0].content: p.gold for p in of(made.train_prompts, known=True)}
    numbers = {p.columns["fact"]: int(p.gold) for p in made.train_prompts}
    by_probe = {name: [p for p in made.held_out_prompts if p.columns["probe"] == name] for name in facts.PROBES}
    assert not by_probe["unseen"] and len(by_probe["rephrased"]) == len(by_probe["verbatim"]) == 12
    assert all(taught[p.messages[0].content] == p.gold for p in by_probe["verbatim"])
    assert not any(p.messages[0].content in taught for p in by_probe["rephrased"])
    for probe, combine in (("larger", max), ("sum", lambda *both: sum(both))):
        assert 6 < len(by_probe[probe]) <= 12
        for prompt in by_probe[probe]:
            assert int(prompt.gold) == combine(*(numbers[word] for word in str(prompt.columns["fact"]).split(",")))
    assert {p.task for p in made.held_out_prompts} == {"facts", "facts_verbatim", "facts_larger", "facts_sum"}
    assert len({p.id for p in made.held_out_prompts}) == len(made.held_out_prompts)
    assert made.train_prompts == world().train_prompts
    with pytest.raises(ConfigError, match="probes"):
        Config(probes=["reversed"])

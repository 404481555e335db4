"""Searches side by side: the same as alone, every token of every branch accounted for, ends of drafts, failures."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from search_simulation import (
    MARK,
    SAMPLING,
    STEP,
    TOKENIZER,
    Engine,
    Policy,
    Scorer,
    grader,
    prompts,
    run,
    sampler,
)

from rlhf.core import component
from rlhf.core.sampling import Sampling
from rlhf.core.search import Cost, Draft
from rlhf.core.types import Completion, Request, StopReason
from rlhf.loops.meeting import Meeting
from rlhf.loops.rollouts import sample_groups
from rlhf.loops.searching import Desk, spelt
from rlhf.runtime.local import LocalEngine

SAMPLERS = component.names("rollout.samplers")
ASKED = prompts(3)


def desk(engine: Engine, sampling: Sampling = SAMPLING) -> Desk:
    meeting = Meeting(LocalEngine(engine), grader(Scorer()))  # type: ignore[arg-type]
    return Desk(prompt=ASKED[0], name="0-0-chain-0-0", sampling=sampling, tokenizer=TOKENIZER, meeting=meeting, seed=0)


def alone(at: Desk, *steps: tuple[Draft | None, Sampling | None]) -> list[Draft]:
    """Go on one draft after the other, each from the one before or the one that is given."""

    async def go() -> list[Draft]:
        out = [at.root]
        for draft, sampling in steps:
            [[longer]] = await at.extend([draft or out[-1]], sampling=sampling)
            out.append(longer)
        return out[1:]

    return asyncio.run(at.meeting.run([go()]))[0]


def test_without_a_search_samples_are_those_of_plain_sampling() -> None:
    engine = Engine()
    searched = run(sampler("single"), ASKED, engine=engine, count=3, seed=5)
    plain = asyncio.run(
        sample_groups(
            LocalEngine(Engine()),  # type: ignore[arg-type]
            ASKED,
            tokenizer=TOKENIZER,
            sampling=SAMPLING,
            seed=5,
            step=0,
            count=3,
        )
    )
    assert searched.groups == plain
    assert engine.calls == 1, "all prompts are sampled together"


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_token_is_accounted_for(name: str) -> None:
    engine = Engine()
    searched = run(sampler(name), ASKED, engine=engine, scorer=Scorer(noise=0.3), count=2)
    assert searched.cost.requests == engine.requests
    assert searched.cost.prompt_tokens == engine.prompt_tokens
    assert searched.cost.completion_tokens == engine.completion_tokens
    assert [len(costs) for costs in searched.costs_PG] == [2, 2, 2]
    assert sum((c for costs in searched.costs_PG for c in costs), Cost()) == searched.cost


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_search_finds_the_same_alone_and_among_others(name: str) -> None:
    together = run(sampler(name), ASKED, engine=Engine(), scorer=Scorer(noise=0.3))
    for prompt, group, costs in zip(ASKED, together.groups, together.costs_PG, strict=True):
        by_itself = run(sampler(name), [prompt], engine=Engine(), scorer=Scorer(noise=0.3))
        assert by_itself.groups == [group] and by_itself.costs_PG == [costs]
    assert [t.id for g in together.groups for t in g.trajectories] == [f"0-0-chain-{i}-0" for i in range(3)]
    assert all(len(t.tokens) == len(t.logprobs) for g in together.groups for t in g.trajectories)


def test_a_step_ends_a_completion_but_not_the_answer() -> None:
    step = replace(SAMPLING, stop=[STEP])
    at = desk(Engine(Policy(skill=1.0)))
    found = alone(at, *[(None, step)] * 5)
    assert [draft.stop for draft in found] == [None, None, None, None, StopReason.EOS]
    assert found[1].text == "".join(found[1].text.partition(STEP)[:2]) + found[1].text.partition(STEP)[2]
    assert found[-1].text == STEP.join(line for line in found[-1].text.split(STEP)) and MARK in found[-1].text
    assert found[0].text.endswith(STEP) and found[1].tokens[: len(found[0].tokens)] == found[0].tokens
    assert at.cost.prompt_tokens == sum(len(at.root.prompt_tokens) + len(d.tokens) for d in [at.root, *found[:-1]])


def test_a_stop_string_of_the_loop_ends_the_answer_and_is_not_in_its_text() -> None:
    at = desk(Engine(Policy(skill=1.0)), replace(SAMPLING, stop=[MARK]))
    found = alone(at, *[(None, replace(SAMPLING, stop=[STEP]))] * 5)
    assert found[-1].stop is StopReason.STOP_STRING and MARK not in found[-1].text
    assert found[-1].text.endswith(STEP)


def test_a_budget_for_one_step_leaves_room_and_the_whole_one_does_not() -> None:
    at = desk(Engine(), replace(SAMPLING, max_tokens=10))
    first, second = alone(at, (None, replace(SAMPLING, max_tokens=6)), (None, replace(SAMPLING, max_tokens=6)))
    assert (first.stop, len(first.tokens)) == (None, 6)
    assert (second.stop, len(second.tokens)) == (StopReason.LENGTH, 10)


def test_a_question_without_room_is_counted_and_costs_no_tokens() -> None:
    at = desk(Engine(context=4))
    [found] = alone(at, (None, None))
    assert found.stop is StopReason.ABORTED
    assert at.cost == Cost(requests=1, aborted=1)


def test_what_is_put_there_takes_the_end_back_and_was_not_sampled() -> None:
    at = desk(Engine(Policy(skill=1.0, insight=1.0)))
    [whole] = alone(at, (None, None))
    longer = at.put(whole, " wait")
    assert longer.text == whole.text + " wait" and not longer.done
    assert len(longer.tokens) == len(whole.tokens) - 1 + 5 and longer.logprobs[-5:] == (0.0,) * 5
    spent = at.cost
    [again] = alone(at, (longer, None))
    assert again.text.startswith(longer.text + " " + MARK)
    assert at.cost.completion_tokens == spent.completion_tokens + len(again.tokens) - len(longer.tokens)
    assert at.put(whole, "x" * 500).stop is StopReason.LENGTH


def test_names_and_so_seeds_are_all_different() -> None:
    at = desk(Engine())

    async def go() -> list[Draft]:
        [first] = await at.extend([at.root], count=2, sampling=replace(SAMPLING, stop=[STEP]))
        second = await at.extend(first, count=2, sampling=replace(SAMPLING, stop=[STEP]))
        again = await at.extend([at.root, first[0]])
        return [*first, *(d for found in (*second, *again) for d in found), at.put(first[0], "1"), at.root]

    [drafts] = asyncio.run(at.meeting.run([go()]))
    assert len({draft.name for draft in drafts}) == len(drafts)
    assert drafts[0].name == "0-0-chain-0-0", "as without a search"


def test_one_that_fails_ends_all_with_its_own_error() -> None:
    class Broken(Engine):
        def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
            raise LookupError("no weights")

    with pytest.raises(LookupError, match="no weights"):
        run(sampler("best_of_n"), ASKED, engine=Broken())


def test_the_sampler_of_the_docs_works(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    module = ModuleType("shortest")
    monkeypatch.setitem(sys.modules, "shortest", module)
    exec(code, vars(module))
    engine = Engine()
    searched = run(component.Component("shortest", module, module.Config(n=3)), ASKED, engine=engine)
    assert engine.requests == 9 and len(searched.groups) == 3


@pytest.mark.parametrize(
    ("answer", "spelling"),
    [
        (None, None),
        ("  ", None),
        (" two  words ", "two words"),
        ("1,000", "1000"),
        ("+1000.0", "1000"),
        ("1,2", "1,2"),
        ("3/6", "1/2"),
        ("3/0", "3/0"),
        ("0.5", "1/2"),
        ("1e9", "1e9"),
        ("9" * 65, "9" * 65),
    ],
)
def test_answers_that_are_the_same_number_are_one(answer: str | None, spelling: str | None) -> None:
    assert spelt(answer) == spelling

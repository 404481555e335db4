"""Quotas: met exactly, whatever the rounds, and no sample is made that could not have been needed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from batches import group

from rlhf.core.modules import Quota
from rlhf.core.types import Group, Prompt
from rlhf.loops.quotas import Quotas
from rlhf.loops.selection import selected


class Policy:
    """Answers by a plan: the text of each sample of a prompt is settled, `x` is wrong."""

    def __init__(self, plans: dict[str, Sequence[str]]) -> None:
        self.plans = plans
        self.rounds: list[dict[str, range]] = []

    async def more(self, prompts: Sequence[Prompt], indices: Sequence[range]) -> list[Group]:
        self.rounds.append({prompt.id: own for prompt, own in zip(prompts, indices, strict=True)})
        return [self.group(prompt, own) for prompt, own in zip(prompts, indices, strict=True)]

    def group(self, prompt: Prompt, own: range) -> Group:
        texts = [self.plans[prompt.id][index] for index in own]
        made = group(*[float(text != "x") for text in texts])
        answers = [replace(t, index=i, text=x) for t, i, x in zip(made.trajectories, own, texts, strict=True)]
        return replace(made, prompt=prompt, trajectories=tuple(answers))


def prompts(*names: str) -> list[Prompt]:
    return [replace(group(1.0).prompt, id=name) for name in names]


def filled(policy: Policy, quotas: dict[str, Quota], budget: int) -> list[Group]:
    """What comes of the prompts, after a look at every round."""
    rule = Quotas(by_prompt=quotas, wanted=lambda g: len(texts(g)), budget=budget)
    found = asyncio.run(rule.fill(prompts(*quotas), policy.more))
    for made in policy.rounds:
        assert sum(map(len, made.values())) <= max(budget, len(made)) and all(map(len, made.values()))
    return found


def texts(found: Group) -> list[str]:
    return [t.text for t in selected(found, select="correct").trajectories]


@pytest.mark.parametrize("seed", range(60))
def test_every_prompt_gets_the_first_right_answers_of_all_that_it_may_take(seed: int) -> None:
    rng = random.Random(seed)
    quotas = {f"p{n}": Quota(rows=(rows := rng.randint(1, 6)), samples=rows + rng.randint(0, 40)) for n in range(5)}
    # A chance of 0 is a prompt that nobody solves; few letters make equal texts.
    chances = {name: rng.choice((0, 0.05, 0.3, 0.9, 1)) for name in quotas}
    plans = {
        name: [rng.choice("abcdefgh") if rng.random() < chances[name] else "x" for _ in range(quota.samples)]
        for name, quota in quotas.items()
    }
    policy = Policy(plans)
    for found in filled(policy, quotas, budget=rng.randint(1, 40)):
        quota, plan = quotas[found.prompt.id], plans[found.prompt.id]
        first = list(dict.fromkeys(text for text in plan if text != "x"))[: quota.rows]
        assert texts(found)[: quota.rows] == first
        assert [t.index for t in found.trajectories] == list(range(len(found.trajectories)))
        assert len(first) == quota.rows or len(found.trajectories) == quota.samples, "not given up before its time"


def test_the_few_that_are_left_share_what_all_had() -> None:
    policy = Policy({"easy": ["a", "b", "x"], "hard": ["x"] * 29 + ["a", "b", "c"]})
    filled(policy, {"easy": Quota(rows=1, samples=3), "hard": Quota(rows=2, samples=32)}, budget=8)
    assert policy.rounds[0] == {"easy": range(4)[:3], "hard": range(4)}
    assert policy.rounds[1:4] == [{"hard": range(4, 12)}, {"hard": range(12, 20)}, {"hard": range(20, 28)}]
    assert policy.rounds[4:] == [{"hard": range(28, 32)}], "never more than it may take"


def test_what_is_found_at_a_known_rate_is_not_sampled_much_too_often() -> None:
    policy = Policy({"p": ["a", "x", "b", "x", "c", "d", "x", "x", "e", "f"] + ["x"] * 90})
    filled(policy, {"p": Quota(rows=3, samples=100)}, budget=4)
    assert policy.rounds == [{"p": range(4)}, {"p": range(4, 6)}], "two of four were right, one more is wanted"


def test_how_far_quotas_were_met_is_measured() -> None:
    policy = Policy({"full": ["a", "b"], "short": ["a", "x", "x"]})
    quotas = {"full": Quota(rows=2, samples=2), "short": Quota(rows=3, samples=3)}
    rule = Quotas(by_prompt=quotas, wanted=lambda g: len(texts(g)), budget=9)
    told = rule.metrics(asyncio.run(rule.fill(prompts(*quotas), policy.more)))
    assert (told["quota/met"].value, told["quota/missing"].value) == (0.5, 2.0)

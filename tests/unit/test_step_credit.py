"""Credit per step is the gradient of what the answer is worth: exactly, over all answers of a small policy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from rewards import process
from rewards.process.local import Answer
from rlhf.advantages import gae, grpo
from rlhf.core.types import Group, Message, Prompt, StopReason, Trajectory

NO_TOOLS: Any = None
END, LONGEST = ".", 3
SCORES = {"good": 0.9, "fair": 0.6, "bad": 0.2}

Node = tuple[str, ...]
"""The steps so far: where the policy decides on the next one, or to end."""


def choices(node: Node) -> list[str]:
    return [END] if len(node) == LONGEST else [*SCORES, *([END] if node else [])]


def policy(node: Node) -> dict[str, float]:
    """Probabilities that differ from node to node."""
    weights = [1.0 + (7 * len(node) + 3 * n + sum(map(len, node))) % 5 for n, _ in enumerate(choices(node))]
    return {choice: weight / sum(weights) for choice, weight in zip(choices(node), weights, strict=True)}


def answers(node: Node = (), chance: float = 1.0) -> list[tuple[Node, float]]:
    """Every answer, as its steps, with its probability."""
    found: list[tuple[Node, float]] = []
    for choice, share in policy(node).items():
        found += [(node, chance * share)] if choice == END else answers((*node, choice), chance * share)
    return found


def trajectory(taken: Node, index: int) -> Trajectory:
    """One token per step, and the end's."""
    lines = [f"{step} {n}\n" for n, step in enumerate(taken)]  # numbered, as a repeat would not count
    ends = list(itertools.accumulate(map(len, lines)))
    return Trajectory(
        id=f"0-0-p-{index}",
        prompt_id="p",
        index=index,
        prompt_tokens=(1,),
        tokens=tuple(range(len(taken) + 1)),
        logprobs=(0.0,) * (len(taken) + 1),
        text="".join(lines),
        stop=StopReason.EOS,
        policy_version=0,
        seed=0,
        ends=(*ends, ends[-1]),
    )


class Table:
    """Stands for a model of steps."""

    def score(self, given: Sequence[Answer], **_: float) -> list[tuple[float, ...]]:
        return [tuple(SCORES[step.split()[0]] for step in answer.steps) for answer in given]


def graded(credit: str, *taken: Node) -> Group:
    prompt = Prompt(id="p", messages=(Message(role="user", content="?"),), gold="", task="sums")
    group = Group(prompt=prompt, trajectories=tuple(trajectory(steps, n) for n, steps in enumerate(taken)))
    cfg = process.Config(model="m", credit=credit, signed=True)
    return replace(group, rewards=tuple(process.score(group, cfg, NO_TOOLS)))


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "scorer_of", lambda *_: Table())


Gradient = dict[tuple[Node, str], float]
"""By the logit of each choice at each node."""


def add(found: Gradient, taken: Node, row: Sequence[float], chance: float) -> None:
    """What one answer adds to the mean of advantage times the gradient of the log-probability."""
    for t, chosen in enumerate((*taken, END)):
        node = taken[:t]
        for choice, share in policy(node).items():
            found[node, choice] = found.get((node, choice), 0.0) + chance * row[t] * ((choice == chosen) - share)


def exact(worth: Callable[[Node], float]) -> Gradient:
    """The gradient of the mean of what answers are worth."""
    found: Gradient = {}
    for taken, chance in answers():
        add(found, taken, [worth(taken)] * (len(taken) + 1), chance)
    return found


WORTH: dict[str, Callable[[Node], float]] = {
    "min": lambda taken: min(2 * SCORES[step] - 1 for step in taken),
    "sum": lambda taken: math.fsum(2 * SCORES[step] - 1 for step in taken),
    "potential": lambda _: 0.0,
}


@pytest.mark.parametrize("credit", WORTH)
def test_with_a_critic_it_is_the_gradient_of_the_answer_s_worth(credit: str) -> None:
    """Whatever the critic believes about a node."""
    found: Gradient = {}
    for taken, chance in answers():
        values = tuple(math.sin(sum(map(len, taken[:t])) + t) for t in range(len(taken) + 1))
        group = replace(graded(credit, taken), values_GT=(values,))
        [[row]] = gae.advantages([group], gae.Config(lam=1.0, whiten=False))
        assert row is not None
        add(found, taken, row, chance)
    assert found == pytest.approx(exact(WORTH[credit]), abs=1e-12)


def by_pairs(credit: str) -> Gradient:
    """The mean over all groups of two answers."""
    found: Gradient = {}
    cfg = grpo.Config(std="none", credit="steps")
    for (one, first), (other, second) in itertools.product(answers(), repeat=2):
        [[row, _]] = grpo.advantages([graded(credit, one, other)], cfg)
        assert row is not None
        add(found, one, row, first * second)
    return found


@pytest.mark.parametrize("credit", WORTH)
def test_in_groups_it_is_that_gradient_as_far_as_there_is_something_to_compare_with(credit: str) -> None:
    """A group of two pays half the difference, where both have come as far: by placed rewards, which cut an answer."""

    def cuts(taken: Node) -> int:
        [out] = graded(credit, taken).rewards
        return sum(value != 0 for value in out.per_token[: len(taken)])

    def before(node: Node) -> int:
        [out] = graded(credit, (*node, "bad")).rewards  # what stands before the present token is the same for all
        return sum(value != 0 for value in out.per_token[: len(node)])

    met = {n: math.fsum(p for taken, p in answers() if cuts(taken) >= n) for n in range(LONGEST + 1)}
    want = {(node, choice): met[before(node)] / 2 * g for (node, choice), g in exact(WORTH[credit]).items()}
    assert by_pairs(credit) == pytest.approx(want, abs=1e-12)


def test_a_placement_that_looks_ahead_punishes_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The return of a step as the least of what is still to come, of scores from 0 to 1: after a bad step one more can
    change nothing, and still it is to be taken."""

    def least_to_come(rewards: Sequence[float]) -> tuple[float, ...]:
        least = [min(rewards[n:]) / 2 + 0.5 for n in range(len(rewards))]
        return tuple(now - later for now, later in zip(least, [*least[1:], 0.0], strict=True))

    node = ("bad",)
    assert exact(WORTH["min"])[node, END] == pytest.approx(0.0)
    assert by_pairs("min")[node, END] == pytest.approx(0.0)
    monkeypatch.setattr(process.credit, "least_so_far", least_to_come)
    assert by_pairs("min")[node, END] < -0.01


@pytest.mark.parametrize("credit", WORTH)
def test_what_a_step_earns_depends_on_no_later_one(credit: str) -> None:
    for taken, _ in answers():
        [out] = graded(credit, taken).rewards
        for n in range(1, len(taken)):
            [begun] = graded(credit, taken[:n]).rewards
            assert out.per_token[:n] == pytest.approx(begun.per_token[:n], abs=1e-15)

"""Small programs: questions, answers, wrong traces, and tests that tell right from wrong."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rewards.code import cases
from rewards.code.cases import Returned
from rewards.code.extract import extract
from rlhf.core.errors import ConfigError
from rlhf.tasks import programs
from rlhf.tasks.programs import Config, answer, build, reference, value


def run(text: str, x: int) -> Any:
    names: dict[str, Any] = {}
    exec(extract(text, language="python", bare=False).program or "", names)
    return names["f"](x)


def test_steps_are_done_from_left_to_right() -> None:
    steps = [("times", 2), ("plus", 3), ("times", 4)]
    assert answer(steps) == "```python\ndef f(x):\n return ((x*2)+3)*4\n```"
    assert value(steps, 5) == 52 == run(answer(steps), 5)
    assert value([("minus", 7)], 0) == -7


def test_the_reference_passes_its_tests_and_a_wrong_trace_fails_one() -> None:
    sets = build(Config(noise=0.5, train_size=200, held_out_size=20), seed=0)
    wrong = 0
    for prompt in [*sets.train(), *sets.held_out()]:
        tests = cases.read(prompt)
        assert isinstance(tests, Returned) and tests.function == "f" and len(tests.cases) == len(programs.INPUTS)
        assert reference(prompt) == prompt.gold and prompt.solution is not None
        assert all(run(prompt.gold, *given) == out[0] for given, out in tests.cases)
        passed = all(run(prompt.solution, *given) == out[0] for given, out in tests.cases)
        wrong += prompt.solution != prompt.gold
        assert passed == (prompt.solution == prompt.gold) or prompt.id.startswith("programs-test")
    assert 60 < wrong < 140


def test_the_two_sides_are_disjoint_for_every_seed() -> None:
    sides = [build(Config(train_size=100, held_out_size=20), seed=seed) for seed in range(3)]
    train = {prompt.messages[0].content for sets in sides for prompt in sets.train()}
    held_out = {prompt.messages[0].content for sets in sides for prompt in sets.held_out()}
    assert train and held_out and not train & held_out


def test_a_spoilt_chain_differs_in_one_number() -> None:
    rng = random.Random(0)
    for _ in range(50):
        steps = [("plus", 1), ("times", 9)]
        spoilt = programs._spoilt(steps, rng)
        assert sum(a != b for a, b in zip(steps, spoilt, strict=True)) == 1 and min(n for _, n in spoilt) > 0


@pytest.mark.parametrize(
    "settings", [{"max_steps": 7}, {"min_steps": 0}, {"noise": 2}, {"max_number": 0}, {"train_size": 0}]
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Config(**settings)


def test_too_few_questions_are_an_error() -> None:
    with pytest.raises(ConfigError, match="too few"):
        build(Config(max_steps=1, held_out_size=100), seed=0)

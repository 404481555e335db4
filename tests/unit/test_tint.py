"""Traced integers: every operation against Python's own, traces by hand, visibility, and four kinds of noise."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest

from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt
from rlhf.tasks import tint
from rlhf.tasks.tint import Config
from rlhf.tasks.tint.machine import Machine, Slips, TooLong


def trained(**keys: Any) -> tuple[Prompt, ...]:
    return tint.build(Config(**({"train_size": 300, "held_out_size": 20} | keys)), seed=0).train_prompts


def text(operation: str, *numbers: int, **keys: Any) -> list[str] | None:
    return tint.work(operation, numbers, Config(operations=["add"], **keys))


def test_operations_agree_with_python() -> None:
    rng, machine = random.Random(1), Machine({}, limit=10**6)
    for _ in range(300):
        y, x = sorted(rng.randint(0, 10 ** rng.randint(1, 4) - 1) for _ in range(2))
        found = {name: machine.run(name, [x, y]) for name in ("add", "sub", "mul", "gcd")}
        assert found == {"add": x + y, "sub": x - y, "mul": x * y, "gcd": math.gcd(x, y)}
        assert (machine.run("div", [x, y + 1]), machine.run("mod", [x, y + 1])) == divmod(x, y + 1)
        numbers = [rng.randint(0, 99) for _ in range(rng.randint(2, 6))]
        assert machine.run("sort", numbers) == sorted(numbers)
        assert machine.run("median", numbers) == math.floor(statistics.median(numbers))


def test_an_addition_carries_and_shows_every_value() -> None:
    assert text("add", 57, 168) == ["7 8 5 16 15 5 1", "5 6 0 1 12 25 1", "0 1 0 0 2 225 0", "#### 225"]
    words = text("add", 5, 7, style="words")
    assert words == [
        *("a = 5", "b = 7", "x = 0", "y = 0", "sum = 12", "res = 2", "carry = 1"), "res = 12", "#### 12",
    ]  # fmt: skip


def test_a_subtraction_borrows() -> None:
    assert text("sub", 102, 7) == ["2 7 10 0 5 5 1", "95", "#### 95"]


def test_visibility_shows_hides_or_names_what_is_called() -> None:
    called = text("mul", 12, 3)
    assert called == ["3 2 6 6 0", "3 1 3 36 0", "36", "add(0,36)", "36", "#### 36"]
    shown = text("mul", 12, 3, visibility={"add": "lines"})
    assert shown is not None and shown[3] == "add(0,36)" and len(shown) == len(called) + 2
    assert text("mul", 12, 3, visibility={"add": "hidden"}) == ["3 2 6 6 0", "3 1 3 36 0", "36", "36", "#### 36"]
    assert text("mul", 12, 3, visibility={"mul": "hidden"}) == ["#### 36"]
    assert text("gcd", 12, 8) == ["mod(12,8)", "8 4", "mod(8,4)", "4 0", "#### 4"]


def test_long_traces_are_not_drawn() -> None:
    assert text("mul", 999, 999, max_lines=10) is None
    assert all(len(p.columns["trace_steps"]) <= 8 for p in trained(operations=["mul"], max_digits=2, max_lines=7))
    with pytest.raises(ConfigError, match=r"task\.max_lines"):
        trained(operations=["div"], min_digits=6, max_digits=6, max_lines=1)
    with pytest.raises(TooLong):
        Machine({}, limit=3).run("mul", [99, 99])


def test_operands_are_swapped_so_that_nothing_is_negative() -> None:
    for prompt in trained(operations=["sub", "div"], max_digits=2):
        first, second = prompt.columns["numbers"]
        assert first >= second or (prompt.columns["operation"] == "div" and second == 1)
        assert int(prompt.gold) == (first - second if "-" in prompt.messages[0].content else first // second)


def test_lengths_are_uniform_or_magnitudes_are() -> None:
    by_length = [len(str(n)) for p in trained(train_size=1000) for n in p.columns["numbers"]]
    assert all(0.28 < by_length.count(n) / len(by_length) < 0.39 for n in (1, 2, 3))
    by_magnitude = [len(str(n)) for p in trained(train_size=1000, magnitude=True) for n in p.columns["numbers"]]
    assert by_magnitude.count(3) / len(by_magnitude) > 0.85


def test_dynamic_noise_is_carried_on_and_static_noise_is_not() -> None:
    dynamic = trained(dynamic_noise=0.1)
    wrong = [p for p in dynamic if not all(p.columns["trace_labels"])]
    assert sum(p.columns["trace_steps"][-1] != f"#### {p.gold}" for p in wrong) > 0.5 * len(wrong)
    static = trained(digit_noise=0.1)
    assert all(p.columns["trace_steps"][-1] == f"#### {p.gold}" for p in static)
    assert any(not all(p.columns["trace_labels"]) for p in static)
    answered = trained(digit_noise=0.3, noise_answer=True)
    assert any(p.columns["trace_steps"][-1] != f"#### {p.gold}" for p in answered)


def test_left_out_lines_make_none_of_the_others_wrong() -> None:
    short = trained(line_noise=0.5)
    kept = [len(p.columns["trace_steps"]) - 1 for p in short]
    whole = [len(p.columns["steps"]) for p in short]
    assert 0.45 < sum(kept) / sum(whole) < 0.55
    assert all(all(p.columns["trace_labels"]) for p in short)


def test_a_forgotten_carry_is_systematic() -> None:
    slips = Slips(rng=random.Random(0), systematic=1.0)
    assert tint.work("add", (57, 168), Config(), slips=slips) == [
        "7 8 5 16 15 5 0", "5 6 0 1 11 15 0", "0 1 0 0 1 115 0", "#### 115",
    ]  # fmt: skip
    assert tint.work("sort", (3, 1, 2), Config(), slips=slips) is not None
    lines = tint.work("sort", (3, 1, 2), Config(), slips=Slips(rng=random.Random(0), systematic=1.0))
    assert lines is not None and lines[-1] == "#### 3,2,1", "every comparison comes out wrong"


def test_noise_touches_the_share_of_traces_that_is_asked_for() -> None:
    prompts = trained(train_size=1000, systematic_noise=1.0, contamination=0.3, min_digits=3)
    carries = [p for p in prompts if any(line.endswith(" 1") for line in p.columns["steps"])]
    touched = sum(p.solution != tint.reference(p) for p in carries) / len(carries)
    assert 0.25 < touched < 0.36
    assert all(p.solution == tint.reference(p) for p in prompts if p not in carries)


def test_noise_that_makes_every_trace_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tint.draw(Config(), random.Random(0))
    monkeypatch.setattr(tint, "work", lambda *args, **keys: None)
    with pytest.raises(ConfigError, match="noise makes traces"):
        tint.spoilt(problem, Config(dynamic_noise=0.5), random.Random(0))


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"operations": []}, "operations"), ({"operations": ["mod"]}, "operations"), ({"min_digits": 0}, "min_digits"),
        ({"min_digits": 4}, "max_digits"), ({"max_numbers": 2}, "max_numbers"), ({"dynamic_noise": 2}, "dynamic_noise"),
        ({"visibility": {"plus": "lines"}}, "visibility.plus"), ({"visibility": {"add": "on"}}, "visibility.add"),
        ({"max_lines": 0}, "max_lines"), ({"contamination": -1}, "contamination"),
    ],
)  # fmt: skip
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where

"""Records: errors are errors, values follow from others, and matching gets harder with edits and shared attributes."""

from __future__ import annotations

import random
from typing import Any

import pytest
import task_proofs

from rewards import structure
from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt
from rlhf.tasks import records
from rlhf.tasks.records import Config, world


def asked(kind: str, *, items: int = 200, **keys: Any) -> tuple[Prompt, ...]:
    return task_proofs.prompts_of("records", items=items, kinds=[kind], **keys)


def fields(part: str) -> dict[str, str]:
    return dict(pair.split(":", 1) for pair in part.split(","))


@pytest.mark.parametrize("kind", ["detect", "impute", "schema", "entity"])
def test_golds_are_accepted_and_damaged_ones_are_not(kind: str) -> None:
    for style, hints in (("compact", False), ("words", True)):
        found = task_proofs.prove("records", items=60, kinds=[kind], style=style, hints=hints)
        assert (found.accepted, found.rejected) == (60, 60)


def test_groups_of_attributes_fit_together() -> None:
    rng = random.Random(0)
    for name in world.GROUPS:
        for _ in range(20):
            record = world.group(name, rng)
            tested = {
                "place": ("region", "zip", "city"),
                "sum": ("total",),
                "check": ("id",),
                "goods": ("unit", "item"),
            }
            assert all(world.fits(record, attribute) for attribute in tested[name])


@pytest.mark.parametrize("error", records.ERRORS)
def test_what_is_called_an_error_is_one_and_nothing_else_is(error: str) -> None:
    prompts = asked("detect", errors=[error], max_groups=4)
    for prompt in prompts:
        _, given, attribute = prompt.messages[0].content.removesuffix("=").split("|")
        assert world.fits(fields(given), attribute) is (prompt.columns["answer"] == "no")
    assert 0.4 < sum(p.columns["answer"] == "yes" for p in prompts) / len(prompts) < 0.6


def test_a_hidden_value_follows_from_the_others() -> None:
    for prompt in asked("impute", items=60):
        _, given, attribute = prompt.messages[0].content.removesuffix("=").split("|")
        record = fields(given)
        assert record[attribute] == "?"
        assert world.fits(record | {attribute: str(prompt.columns["answer"])}, attribute)


def test_attributes_mean_the_same_if_their_concepts_do() -> None:
    concepts = {name: n for n, concept in enumerate(world.CONCEPTS) for name in concept.names}
    for prompt in asked("schema", items=120):
        _, one, two = prompt.messages[0].content.removesuffix("=").split("|")
        (first, *_), (second, *_) = one.split(":"), two.split(":")
        assert (concepts[first] == concepts[second]) is (prompt.columns["answer"] == "yes")
        assert first != second or prompt.columns["answer"] == "yes"


def similarity(prompt: Prompt) -> float:
    """A fixed solver's view: the share of letters of the names that are the same at their places."""
    _, one, two = prompt.messages[0].content.removesuffix("=").split("|")
    a, b = fields(one)["name"], fields(two)["name"]
    return sum(x == y for x, y in zip(a, b, strict=False)) / max(len(a), len(b))


def test_a_solver_that_compares_names_is_right_less_often_the_more_is_edited() -> None:
    found: list[float] = []
    for edits in (0, 2, 4, 6):
        prompts = asked("entity", items=600, edits=edits)
        found.append(sum((similarity(p) > 0.9) is (p.columns["answer"] == "yes") for p in prompts) / 600)
    assert found[0] > 0.99 and found == sorted(found, reverse=True) and found[-1] < 0.7


def test_what_is_no_duplicate_shares_as_many_attributes_as_asked_for() -> None:
    for prompt in asked("entity", items=60, shared=3, edits=0, positive=0.0):
        _, one, two = prompt.messages[0].content.removesuffix("=").split("|")
        a, b = fields(one), fields(two)
        assert sum(a[key] == b[key] for key in ("city", "item", "price")) == 3 and a["name"] != b["name"]


def test_hints_hold_what_decides() -> None:
    for prompt in asked("impute", items=30, hints=True):
        assert str(prompt.columns["answer"]) in prompt.messages[0].content.rpartition("|")[2]


def test_the_measure_of_questions_of_yes_and_no_is_f1() -> None:
    prompts = asked("detect", items=100, positive=0.3)
    outs = [structure.verify(f"#### {'yes' if n % 2 else 'no'}", p.gold) for n, p in enumerate(prompts)]
    hits = sum(n % 2 and p.columns["answer"] == "yes" for n, p in enumerate(prompts))
    wanted = sum(p.columns["answer"] == "yes" for p in prompts)
    assert structure.f1(outs) == pytest.approx(2 * hits / (50 + wanted))


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"kinds": ["clean"]}, "kinds"), ({"max_groups": 5}, "max_groups"), ({"errors": ["bug"]}, "errors"),
        ({"positive": 2}, "positive"), ({"edits": 7}, "edits"), ({"shared": 4}, "shared"), ({"noise": -1}, "noise"),
    ],
)  # fmt: skip
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where

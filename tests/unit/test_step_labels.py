"""Labels by completions: against chances of success that can be counted, and how little a binary search asks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Prompt, RewardOut, Start, Verdict
from rlhf.data.build import samples, step_labels
from rlhf.data.build.step_labels import Config

RIGHT, WRONG = Verdict.CORRECT, Verdict.WRONG


class Luck:
    """Stands for a policy: completions succeed by chance, as likely as a function of what is kept says."""

    def __init__(self, chance: Callable[[str], float], *, ungraded: float = 0.0) -> None:
        self.chance, self.ungraded = chance, ungraded
        self.asked: list[str] = []

    async def go_on(self, starts: Sequence[Start], *, count: int) -> list[Group]:
        self.asked += [start.name for start in starts]
        return [self._completed(start, count) for start in starts]

    def begun(self, prompt: Prompt, text: str, *, name: str) -> Start:
        [given] = answers(text, verdicts=[WRONG]).trajectories
        return Start(name=name, prompt=prompt, trajectory=given, characters=len(text))

    def _completed(self, start: Start, count: int) -> Group:
        rng = random.Random(start.name)
        chance = self.chance(start.trajectory.text[: start.characters])
        verdicts = [RIGHT if rng.random() < chance else WRONG for _ in range(count)]
        outs = [RewardOut(value=float(v is RIGHT), verdict=v) for v in verdicts]
        outs = [replace(o, value=None, verdict=Verdict.CRASH) if rng.random() < self.ungraded else o for o in outs]
        return Group(prompt=start.prompt, trajectories=(start.trajectory,) * count, rewards=tuple(outs))


def answers(*texts: str, verdicts: Sequence[Verdict]) -> Group:
    made = group(*[float(v is RIGHT) for v in verdicts], verdicts=verdicts)
    return replace(
        made, trajectories=tuple(replace(t, text=text) for t, text in zip(made.trajectories, texts, strict=True))
    )


def built(found: Group, cfg: Config, luck: Luck) -> list[dict[str, Any]]:
    return asyncio.run(step_labels.build([found], cfg, luck))


# Three throws of a coin that shows heads with chance 0.6; two heads or more succeed.
P = 0.6


def success(text: str) -> float:
    """The chance of success behind some throws, counted over all that may follow."""
    thrown = [line for line in text.split("\n") if line]
    if len(thrown) == 3:
        return float(thrown.count("heads") >= 2)
    return P * success(text + "heads\n") + (1 - P) * success(text + "tails\n")


def test_the_chances_are_what_they_should_be() -> None:
    assert success("") == pytest.approx(P**3 + 3 * P**2 * (1 - P))
    assert success("heads\n") == pytest.approx(1 - (1 - P) ** 2) and success("tails\ntails\n") == 0.0


@pytest.mark.parametrize("text", ["heads\ntails\nheads", "tails\nheads\ntails"])
def test_soft_labels_go_to_the_chance_of_success(text: str) -> None:
    verdict = RIGHT if success(text) else WRONG
    [row] = built(answers(text, verdicts=[verdict]), Config(estimate="soft", completions=4000), Luck(success))
    lines = text.split("\n")
    want = [success("".join(f"{line}\n" for line in lines[: n + 1])) for n in range(3)]
    assert row["steps"] == lines and row["labels"][2] == want[2]
    for got, chance in zip(row["labels"][:2], want[:2], strict=True):
        assert abs(got - chance) < 4 * (chance * (1 - chance) / 4000) ** 0.5 + 1e-12
    few = built(answers(text, verdicts=[verdict]), Config(estimate="soft", completions=8), Luck(success))[0]
    assert all(label * 8 == round(label * 8) for label in few["labels"])


def test_a_hard_label_is_one_where_anything_succeeds() -> None:
    found = answers("tails\ntails\nheads", "tails\nheads\ntails", verdicts=[WRONG, WRONG])
    rows = built(found, Config(completions=16), Luck(success))
    assert [row["labels"] for row in rows] == [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    assert rows[0]["successes"][1:] == [[0, 16], None] and 0 < rows[0]["successes"][0][0] < 16


def test_progress_is_bad_where_a_step_costs_much_of_the_chance_even_if_it_can_be_mended() -> None:
    """The chances: 0.648 at first; 0.84 behind heads, 0.36 behind tails; behind both 0.6, behind tails twice 0."""
    found = answers("tails\nheads\nheads", "heads\ntails\ntails", "tails\ntails\nheads", verdicts=[RIGHT, WRONG, WRONG])
    luck = Luck(success)
    rows = built(found, Config(estimate="progress", completions=2000), luck)
    # 0.36 / 0.648 < 0.8 <= 0.6 / 0.36 and 1 / 0.6; 0.84 / 0.648 >= 0.8 > 0.6 / 0.84; nothing comes behind two tails.
    assert [row["labels"] for row in rows] == [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert built(found, Config(completions=2000), Luck(success))[0]["labels"] == [1.0, 1.0, 1.0], (
        "hard labels: it is mended"
    )
    assert sum("question" in name for name in luck.asked) == 1 and len(rows[0]["successes"]) == 3
    lenient = built(found, Config(estimate="progress", progress=0.5, completions=2000), Luck(success))
    assert [row["labels"] for row in lenient] == [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_completions_go_on_behind_the_separator() -> None:
    seen: list[str] = []

    def chance(text: str) -> float:
        seen.append(text)
        return 1.0

    built(answers("a\n\nb\n\nc", verdicts=[RIGHT]), Config(separator="\n\n", completions=1), Luck(chance))
    assert seen == ["a\n\n", "a\n\nb\n\n"]


@pytest.mark.parametrize("first_error", range(8))
def test_a_binary_search_finds_the_first_error_with_few_questions(first_error: int) -> None:
    text = "\n".join("good" if n < first_error else "bad" for n in range(8))
    luck = Luck(lambda kept: float("bad" not in kept))
    [row] = built(answers(text, verdicts=[WRONG]), Config(search="binary", completions=2), luck)
    assert row["labels"] == [float(n < first_error) for n in range(8)]
    assert len(luck.asked) <= 3
    every = built(answers(text, verdicts=[WRONG]), Config(completions=2), luck)[0]
    assert every["labels"] == row["labels"]


def test_a_correct_solution_needs_no_search() -> None:
    luck = Luck(lambda kept: 0.0)
    [row] = built(answers("a\nb", verdicts=[RIGHT]), Config(search="binary"), luck)
    assert (row["labels"], luck.asked) == ([1.0, 1.0], [])


def test_completions_without_a_grade_are_not_counted_and_none_at_all_leave_the_solution_out() -> None:
    found = answers("a\nb", verdicts=[WRONG])
    cfg = Config(estimate="soft", completions=400)
    [row] = built(found, cfg, Luck(lambda kept: 0.5, ungraded=0.5))
    correct, graded = row["successes"][0]
    assert 100 < graded < 300 and row["labels"][0] == correct / graded
    assert built(found, cfg, Luck(lambda kept: 0.5, ungraded=1.0)) == []
    assert built(found, Config(search="binary"), Luck(lambda kept: 0.5, ungraded=1.0)) == []


def test_a_judge_s_word_keeps_what_completions_agree_with() -> None:
    """The completions find the first error of `good, bad, bad` at 1, and of `good, good` none."""
    texts = ["good\nbad\nbad"] * 4 + ["good\ngood"] * 2
    found = answers(*texts, verdicts=[WRONG] * 4 + [RIGHT] * 2)
    said = (1, 0, -1, None, -1, 1)
    outs = [
        reward if n is None else replace(reward, breakdown={"step_judge/first_error": float(n)})
        for reward, n in zip(found.rewards, said, strict=True)
    ]
    cfg = Config(consensus=True, completions=2)
    for search in ("all", "binary"):
        luck = Luck(lambda kept: float("bad" not in kept))
        rows = built(replace(found, rewards=tuple(outs)), replace(cfg, search=search), luck)
        assert [row["sample_id"][-1] for row in rows] == ["0", "4"] and rows[0]["labels"] == [1.0, 0.0, 0.0]
        assert not any("-3~" in name for name in luck.asked), "where the judge is silent nothing is sampled"


def test_what_has_no_steps_or_no_grade_is_left_out() -> None:
    found = answers("...", "a", "a", verdicts=[WRONG, Verdict.CRASH, Verdict.NO_ANSWER])
    assert [row["labels"] for row in built(found, Config(), Luck(success))] == [[0.0]]


def test_a_row_says_where_it_comes_from() -> None:
    [row] = built(answers("a", verdicts=[RIGHT]), Config(), Luck(success))
    assert row["sample_id"] == "0-0-sums-1-0" and row["verdict"] == "correct" and row["gold"] == "2"
    assert row["messages"] == [{"role": "user", "content": "1+1="}]


def test_rows_of_samples_are_the_samples() -> None:
    found = answers("a", "b", verdicts=[RIGHT, WRONG])
    rows = asyncio.run(samples.build([found], samples.Config(), Luck(success)))
    assert [(row["completion"], row["verdict"], row["value"]) for row in rows] == [
        ("a", "correct", 1.0),
        ("b", "wrong", 0.0),
    ]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"estimate": "mean"}, "estimate"),
        ({"search": "tree"}, "search"),
        ({"search": "binary", "estimate": "soft"}, "search"),
        ({"search": "binary", "estimate": "progress"}, "search"),
        ({"estimate": "progress", "progress": 0.0}, "progress"),
        ({"completions": 0}, "completions"),
        ({"separator": ""}, "separator"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**change)
    assert caught.value.where == where

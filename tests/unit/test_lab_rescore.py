"""What another reward changes: verdicts, the order of a group, advantages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlhf.core.types import Group, Message, Prompt, RewardOut, StopReason, Trajectory, Verdict
from rlhf.lab import rescore, rescore_page
from rlhf.lab.rescore import Order, Rescored
from rlhf.loops import online, records, settings

ROOT = Path(__file__).parents[2]


def group(*values: float | None) -> Group:
    def answer(g: int) -> Trajectory:
        return Trajectory(
            id=f"0-3-p-{g}", prompt_id="p", index=g, prompt_tokens=(1,), tokens=(2, 3), logprobs=(0.0, 0.0),
            text=f"t{g}", stop=StopReason.EOS, policy_version=0, seed=0,
        )  # fmt: skip

    def given(value: float | None) -> RewardOut:
        verdict = Verdict.CRASH if value is None else Verdict.CORRECT if value > 0 else Verdict.WRONG
        return RewardOut(value=value, verdict=verdict, breakdown={"math": value, "math/part": 0.0})

    return Group(
        prompt=Prompt(id="p", messages=(Message(role="user", content="?"),), gold="7", task="t"),
        trajectories=tuple(answer(g) for g in range(len(values))),
        rewards=tuple(map(given, values)),
    )


def counted(before: Group, after: Group, advantages: tuple[dict[str, float], dict[str, float]] | None) -> Rescored:
    found = Rescored()
    rescore._count(found, [before], [after], advantages)  # pyright: ignore[reportPrivateUsage]
    return found


def test_pairs_of_a_group_are_compared_by_order() -> None:
    order = Order()
    order.count([1.0, 0.0, 0.0, 2.0, None], [0.0, 1.0, 0.0, 2.0, 5.0])
    # (0, 1) turns round, (0, 2) becomes equal, (1, 2) is told apart; the three with the fourth stay; None is left out.
    assert (order.reversed, order.tied, order.untied, order.kept) == (1, 1, 1, 3)


def test_samples_that_change_are_listed_with_rank_and_advantage() -> None:
    before, after = group(1.0, 0.0, 0.0), group(1.0, 0.0, 0.5)
    found = counted(
        before, after, ({"0-3-p-0": 1.0, "0-3-p-1": -0.5}, {"0-3-p-0": 1.0, "0-3-p-1": -0.5, "0-3-p-2": 0.2})
    )
    [changed] = found.changed
    assert changed.record["id"] == "0-3-p-2" and changed.out.value == 0.5
    assert changed.ranks == (2, 2) and changed.advantages == (None, 0.2)
    assert found.verdicts == {("correct", "correct"): 1, ("wrong", "wrong"): 1, ("wrong", "correct"): 1}
    assert found.signs == {(1, 1): 1, (-1, -1): 1, (0, 1): 1} and found.signal == {(True, True): 1}
    assert found.parts == {"math": [1.0, 0.0, 0.5]}, "without the parts of parts"


def test_a_config_of_smaller_steps_does_not_drop_what_the_run_sampled() -> None:
    cfg = settings.read(ROOT / "configs" / "micro.yaml", ["rl.prompts_per_step=1"]).stages[-1].config
    assert isinstance(cfg, online.Config)
    step = [group(1.0, 0.0), replace(group(1.0, 0.0), prompt=replace(group().prompt, id="q"))]
    step[1] = replace(step[1], trajectories=tuple(replace(t, id=f"{t.id}-q") for t in step[1].trajectories))
    found = rescore._advantages(cfg, step, prompts=2)  # pyright: ignore[reportPrivateUsage]
    assert len(found) == 4 and len(records.kept(cfg, step)) == 1


@pytest.mark.parametrize(("before", "after"), [((None, 1.0), (0.0, 1.0)), ((0.0, 1.0), (None, 1.0))])
def test_a_grade_that_comes_or_goes_is_a_change(
    before: tuple[float | None, ...], after: tuple[float | None, ...]
) -> None:
    found = counted(group(*before), group(*after), None)
    assert [changed.record["id"] for changed in found.changed] == ["0-3-p-0"]
    assert [len(side) for side in found.values] == [sum(v is not None for v in side) for side in (before, after)]


def test_tables_hold_what_was_counted() -> None:
    found = counted(
        group(1.0, 0.0), group(0.0, 1.0), ({"0-3-p-0": 1.0, "0-3-p-1": -1.0}, {"0-3-p-0": -1.0, "0-3-p-1": 1.0})
    )
    verdicts, _, order, signs = rescore_page.tables(found)
    assert [[cell.text for cell in row] for row in verdicts.rows] == [["correct", "–", "1"], ["wrong", "1", "–"]]
    assert [row[1].text for row in order.rows] == ["0", "0", "0", "1"]
    assert "Correlation of the two advantages of a sample: -1.000" in signs.intro
    found.not_compared = "a critic's values were not saved"
    assert len(rescore_page.tables(found)) == 3

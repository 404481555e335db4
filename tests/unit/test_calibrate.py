"""Confidences of scored groups, before and after a temperature."""

from __future__ import annotations

import json
import math
import random
from functools import cache
from pathlib import Path

import pytest

from rlhf.core.search import Cost
from rlhf.core.types import Group, Message, Prompt, RewardOut, StopReason, Trajectory, Verdict
from rlhf.loops import calibrate
from rlhf.loops.evaluate import Result


def group(place: int, answers: list[tuple[float, bool]], *, stated: bool = False, refused: int = 0) -> Group:
    """Answers by their confidence and whether they are right; those that state it have two tokens of no matter."""
    prompt = Prompt(id=f"p-{place}", messages=(Message(role="user", content="?"),), gold="1", task="facts")
    trajectories, rewards = list[Trajectory](), list[RewardOut]()
    for index, (confidence, right) in enumerate([*answers, *[(0.5, False)] * refused]):
        logprobs = (-0.3, -0.3) if stated else (math.log(confidence) - 0.2, math.log(confidence) + 0.2)
        trajectory = Trajectory(
            id=f"0-0-p-{place}-{index}",
            prompt_id=prompt.id,
            index=index,
            prompt_tokens=(1,),
            tokens=(2, 3),
            logprobs=logprobs,
            text="",
            stop=StopReason.EOS,
            policy_version=0,
            seed=0,
        )
        declines = index >= len(answers)
        told = {"refusal": 0.0, "refusal/refused": float(declines), "refusal/confidence": confidence}
        verdict = Verdict.REFUSED if declines else Verdict.CORRECT if right else Verdict.WRONG
        trajectories.append(trajectory)
        rewards.append(RewardOut(value=0.0, verdict=verdict, breakdown=told if stated else {"math": 0.0}))
    return Group(prompt=prompt, trajectories=tuple(trajectories), rewards=tuple(rewards))


def groups(count: int = 150, *, stated: bool = False, refused: int = 0) -> list[Group]:
    """Two answers of 0.95 per prompt, of which 70 % are right."""
    rng = random.Random(0)
    return [
        group(n, [(0.95, rng.random() < 0.7) for _ in range(2)], stated=stated, refused=refused) for n in range(count)
    ]


@cache
def measured() -> dict[str, calibrate.Calibration]:
    return calibrate.measure(groups())


def test_sequence_confidence_is_the_geometric_mean_of_the_tokens() -> None:
    found = measured()
    assert list(found) == ["sequence"]
    sequence = found["sequence"]
    assert sequence.answers == 300 and sequence.temperature.n == 150
    right = sum(out.verdict is Verdict.CORRECT for g in groups() for out in g.rewards) / 300
    assert sequence.before["calibration_error"].mean == pytest.approx(0.95 - right)
    assert sequence.temperature.mean == pytest.approx(math.log(19) / math.log(right / (1 - right)), rel=1e-6)
    assert sequence.after["calibration_error"].high < sequence.before["calibration_error"].low
    assert sequence.after["nll"].mean < sequence.before["nll"].mean


def test_stated_confidence_is_what_a_reward_read_and_refusals_are_no_answers() -> None:
    found = calibrate.measure(groups(stated=True, refused=1))
    assert list(found) == ["stated", "sequence"]
    assert found["stated"].answers == found["sequence"].answers == 300
    assert found["stated"].before["calibration_error"].mean == pytest.approx(
        measured()["sequence"].before["calibration_error"].mean
    )


def test_what_was_not_graded_counts_nowhere() -> None:
    crashed = RewardOut(value=None, verdict=Verdict.CRASH)
    one = group(200, [(0.9, True)])
    lost = Group(prompt=one.prompt, trajectories=one.trajectories, rewards=(crashed,))
    assert calibrate.measure([*groups(), lost]) == measured()
    assert calibrate.measure([lost]) == {} and calibrate.measure([one]) == {}, "one prompt has no other half"


def test_numbers_join_those_of_the_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    out.write_text(json.dumps({"step": 3}), encoding="utf-8")
    result = Result(
        task="facts",
        sampled=None,
        greedy=None,
        pass_at={},
        mean_length=2.0,
        truncated_share=0.0,
        ungradable=0,
        parts={},
        groups=tuple(groups()),
        honesty={},
        cost=Cost(),
        per_prompt=(),
    )
    calibrate.show([result], out=out)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["step"] == 3
    prefix = "calibration/facts/sequence"
    assert found[f"{prefix}/calibration_error/before/mean"] > found[f"{prefix}/calibration_error/after/mean"]
    assert found[f"{prefix}/temperature/low"] <= found[f"{prefix}/temperature/mean"]
    assert "temperature" in capsys.readouterr().out

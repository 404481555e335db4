"""Performance profiles of run folders: what is counted, how tasks and methods are told apart, targets, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.run_folder import RunFolder
from rlhf.report import comparison, profile_chart
from rlhf.report.profiles import profiles
from rlhf.sweeps import profile, profile_command
from rlhf.sweeps.profile import Asked, Found, Member
from rlhf.sweeps.spending import Curve, curves

METRIC = profile.METRIC


def finished(path: Path, *, seed: int = 0, tokens: bool = True, **accuracies: Sequence[float]) -> RunFolder:
    """Ten-second steps: two of a warm start, the second evaluated, then one per further accuracy."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    rows = [{"step": 1, "stage": "sft", "timing_s/step": 10.0}]
    for i, values in enumerate(zip(*accuracies.values(), strict=True)):
        row = {"step": 2 + i, "stage": "rl" if i else "sft", "timing_s/step": 15.0, "timing_s/eval": 4.0}
        keys = [METRIC.replace("*", task) for task in accuracies]
        rows.append(row | {"timing_s/checkpoint": 1.0} | dict(zip(keys, values, strict=True)))
    told = [
        {"step": row["step"], "task": "sums", **({"tokens": 100 * row["step"]} if tokens else {})} for row in rows[1:]
    ]
    for file, lines in ((folder.metrics, rows), (folder.evaluations, told)):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder.config.write_text(yaml.safe_dump({"seed": seed}))
    folder.environment.write_text("{}")
    folder.summary.write_text("{}")
    return folder


def member(folder: RunFolder, method: str, *, seed: int = 0, source: str = "") -> Member:
    return Member(source=source, method=method, baseline="a", seed=seed, folder=folder)


def found(members: Sequence[Member], *targets: str, methods: Sequence[str] = (), asked: Asked | None = None) -> Found:
    asked = asked or Asked()
    return profile.compared(*profile.gathered(members, asked), asked, targets=targets, methods=methods)


def test_costs_are_those_up_to_an_evaluation_and_begin_where_they_are_told_to(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", sums=(0.1, 0.2, 0.6))

    def costs(cost: str, after: str = "") -> list[float]:
        return list(curves(folder, METRIC, cost=cost, after=after)["sums"].costs)

    assert costs("steps") == [2, 3, 4] and costs("steps", "sft") == [0, 1, 2]
    assert costs("tokens") == [200, 300, 400] and costs("tokens", "sft") == [0, 100, 200]
    assert costs("seconds") == [20, 30, 40], "five of fifteen seconds are the evaluation and the checkpoint"
    assert costs("seconds", "sft") == [0, 10, 20]
    with pytest.raises(DataError, match=r"no stage 'dpo'.*\n.*one of sft, rl"):
        costs("steps", "dpo")
    with pytest.raises(DataError, match="how many tokens were spent by step 2"):
        curves(finished(tmp_path / "old", tokens=False, sums=(0.1,)), METRIC, cost="tokens")
    with pytest.raises(DataError, match="is nan at step 3"):
        curves(finished(tmp_path / "broken", sums=(0.1, math.nan)), METRIC, cost="steps")
    with pytest.raises(ConfigError, match="more than one"):
        curves(folder, "val-*/*/mean", cost="steps")


def test_a_target_is_the_median_of_the_best_of_the_baseline_which_therefore_arrives(tmp_path: Path) -> None:
    """Of two seeds with bests 0.8 and 0.5 the lower counts, which both reach: a takes 3 and 4 steps, b 2."""
    runs = [
        member(finished(tmp_path / "a0", sums=(0.1, 0.8, 0.7)), "a"),
        member(finished(tmp_path / "a1", sums=(0.1, 0.2, 0.5)), "a", seed=1),
        member(finished(tmp_path / "b0", sums=(0.5, 0.6, 0.7)), "b"),
    ]
    result = found(runs)
    assert (result.targets["sums"].value, result.targets["sums"].baseline) == (0.5, "a")
    assert list(result.methods) == ["b", "a"], "the best first"
    assert dict(result.methods["a"].seeds["sums"]) == {0: 3, 1: 4}
    assert result.methods["a"].profile.ratios["sums"] == 1.75 and result.methods["a"].profile.arrived == 1
    result = found(runs, "sums=0.75")
    assert result.targets["sums"].baseline == "" and result.methods["b"].profile.ratios["sums"] == math.inf
    assert result.methods["a"].profile.ratios["sums"] == math.inf, "one of two seeds misses it"
    assert result.methods["a"].profile.arrived == 0


def test_smaller_may_be_better(tmp_path: Path) -> None:
    runs = [member(finished(tmp_path / name, sums=values), name) for name, values in (("a", (3, 2)), ("b", (2, 1)))]
    result = found(runs, asked=Asked(lower=True))
    assert result.targets["sums"].value == 2
    assert [result.methods[name].profile.ratios["sums"] for name in "ab"] == [1.5, 1.0]


def test_tasks_of_a_sweep_are_called_by_it_and_those_of_runs_by_themselves(tmp_path: Path) -> None:
    one, two = finished(tmp_path / "one", sums=(0.1,)), finished(tmp_path / "two", sums=(0.1,), differences=(0.2,))
    _, baselines = profile.gathered([member(one, "a", source="x"), member(two, "a", source="y")], Asked())
    assert list(baselines) == ["x", "y/sums", "y/differences"]
    _, baselines = profile.gathered([member(two, "a", source="y")], Asked())
    assert list(baselines) == ["sums", "differences"], "nothing to be told apart from"
    _, baselines = profile.gathered([member(two, "a")], Asked())
    assert list(baselines) == ["sums", "differences"]
    with pytest.raises(DataError, match="a: is there twice on sums with seed 0"):
        profile.gathered([member(one, "a"), member(two, "a")], Asked())
    with pytest.raises(DataError, match=r"one: never recorded 'val-core/\*/pass@4/mean'"):
        profile.gathered([member(one, "a")], Asked(metric="val-core/*/pass@4/mean"))


def test_a_sweep_is_a_task_under_a_name_and_its_unfinished_runs_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms: list[comparison.Arm] = []
    for name, values in (("b", (0.1, 0.2, 0.5)), ("a", (0.1, 0.5, 0.4))):
        finished(tmp_path / "one" / name, sums=values)
        finished(tmp_path / "one" / f"{name}1", sums=values).summary.unlink()
        runs = [
            comparison.Member(seed=s, status="", error="", folder=folder, values={}, tokens=0, seconds=0.0)
            for s, folder in enumerate((name, f"{name}1"))
        ]
        arms.append(comparison.Arm(name=name, members=runs, estimates={}, differences={}, curves={}))
    empty: dict[str, Any] = dict.fromkeys(("title", "source", "notes", "command"), "")
    result = comparison.Comparison(
        name="x", baseline="b", metrics={}, changed={}, arms=arms, findings=[], versions={}, **empty
    )
    (tmp_path / "one" / "arms").mkdir()
    with pytest.raises(DataError, match="is a sweep without a"):
        profile_command.run([str(tmp_path / "one")])
    comparison.write(result, tmp_path / "one" / "results.json")
    sources = [str(tmp_path / "one"), f"two={tmp_path / 'one'}"]
    profile_command.run(sources, after="sft", target=["two=0.45"], out=tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["targets"] == {"one": {"value": 0.5, "baseline": "b"}, "two": {"value": 0.45, "baseline": ""}}
    assert found["methods"]["b"]["tasks"]["two"] == {"cost": 2.0, "ratio": 2.0, "seeds": {"0": 2.0}}
    assert found["methods"]["a"]["score"] == 1.0 and len(found["left_out"]) == 4
    assert "not finished and left out" in capsys.readouterr().out
    assert profile_command.of_sweep(tmp_path / "one") is None, "two evaluations say too little"
    with pytest.raises(DataError, match=r"two=0.1: is what (a|b) has before costs begin"):
        profile_command.run(sources, after="sft", target=["two=0.1"])


def test_what_is_missing_or_unknown_is_named() -> None:
    curve = {0: Curve(costs=[1], values=[0.5])}
    by_task = {"one": {"a": curve, "b": curve}, "two": {"a": curve, "c": curve}}
    given = (by_task, {"one": "a", "two": "a"}, Asked())
    with pytest.raises(DataError, match="b: has no finished run on two"):
        profile.compared(*given)
    assert list(profile.compared(*given, methods=["a"]).methods) == ["a"]
    with pytest.raises(ConfigError, match="no 'd'"):
        profile.compared(*given, methods=["d"])
    for target, problem in (("tow=0.5", "did you mean 'two'"), ("one=high", "has no number")):
        with pytest.raises(ConfigError, match=problem):
            profile.compared(*given, methods=["a"], targets=[target])
    with pytest.raises(DataError, match="c: has no finished run on one that could set the target"):
        profile.compared(by_task, {"one": "c", "two": "a"}, Asked(), methods=["a"])


def test_a_picture_is_drawn_also_of_one_method_that_missed_everything(tmp_path: Path) -> None:
    found = profiles({"a": {"one": [math.inf]}})
    assert profile_chart.write(found, tmp_path / "found.svg", cost="steps").read_bytes().startswith(b"<?xml")

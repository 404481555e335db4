"""Sweep files: what they may hold, how arms and grids become configs, and what is refused with which fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf.core.errors import ConfigError
from rlhf.sweeps import runs, spec
from rlhf.sweeps.runs import Status

CONFIGS = Path(__file__).parents[2] / "configs"
METRICS = {"accuracy": {"key": "val-core/sums/sampled_accuracy/mean"}}


def sweep_file(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "title": "One against two",
        "config": str(CONFIGS / "quickstart.yaml"),
        "arms": {"one": {}, "two": {"rl.loss.clip_high": 0.3, "rl": {"epochs": 2}}},
        "metrics": METRICS,
        "expect": [{"metric": "accuracy", "direction": "higher", "margin": 0.1}],
    }
    path = folder / "fight.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (content | changes).items() if v is not None}, sort_keys=False))
    return path


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    found = spec.read(sweep_file(tmp_path), ["seeds=[4,5]", f"folder={tmp_path}"])
    assert (found.name, found.baseline, found.cfg.seeds) == ("fight", "one", [4, 5])
    assert found.arms == {"one": {}, "two": {"rl": {"loss": {"clip_high": 0.3}, "epochs": 2}}}
    assert found.metrics["accuracy"].window == 1 and found.expect[0].direction == "higher"
    assert found.folder == tmp_path / "fight"
    assert found.command.startswith("rlhf sweep ") and found.command.endswith(f"'seeds=[4,5]' folder={tmp_path}")


def test_a_grid_makes_an_arm_of_every_combination(tmp_path: Path) -> None:
    grid = {"rl.samples_per_prompt": [4, 8], "rl.epochs": [1, 2]}
    found = spec.read(sweep_file(tmp_path, arms=None, grid=grid, expect=[]))
    assert list(found.arms) == [
        "samples_per_prompt=4,epochs=1",
        "samples_per_prompt=4,epochs=2",
        "samples_per_prompt=8,epochs=1",
        "samples_per_prompt=8,epochs=2",
    ]
    assert found.arms["samples_per_prompt=8,epochs=1"] == {"rl": {"samples_per_prompt": 8, "epochs": 1}}


@pytest.mark.parametrize(
    ("changes", "where", "fix"),
    [
        ({"armz": {}}, "armz", "arms"),
        ({"arms": None}, "arms", "at least two arms"),
        ({"grid": {"rl.epochs": [1, 2]}}, "arms", "exclude each other"),
        ({"arms": {"one": {}}}, "arms", "at least two"),
        ({"arms": {"one": {}, "a/b": {}}}, "arms", "letters, digits"),
        ({"arms": {"one": {}, "two": 3}}, "arms.two", "keys and values"),
        ({"arms": {"one": {}, "two": {"rl": {"epochs": 2}, "rl.epochs": 3}}, "seeds": []}, "seeds", r"\[0, 1, 2\]"),
        ({"arms": None, "grid": {"rl.epochs": 2}}, "grid.rl.epochs", "list of values"),
        ({"seeds": [1, 1]}, "seeds", "repeats"),
        ({"baseline": "tow"}, "baseline", "did you mean 'two'"),
        ({"config": "nowhere.yaml"}, "config", "relative to the sweep file"),
        ({"metrics": {}}, "metrics", "for example"),
        ({"metrics": {"a": {"key": "x", "reduce": "median"}}, "expect": []}, "metrics.a.reduce", "valid: "),
        ({"metrics": {"a": {"key": "x", "window": 0}}, "expect": []}, "metrics.a.window", "1 or more"),
        ({"expect": [{"metric": "acuracy", "direction": "lower"}]}, r"expect\[0\].metric", "did you mean 'accuracy'"),
        ({"expect": [{"metric": "accuracy", "direction": "up"}]}, r"expect\[0\].direction", "higher"),
        ({"expect": [{"metric": "accuracy", "direction": "same", "margin": -1}]}, r"expect\[0\].margin", "0 or more"),
        ({"expect": [{"metric": "accuracy", "direction": "same", "arm": "one"}]}, r"expect\[0\].arm", "another arm"),
        ({"threads": 0}, "threads", "too small"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place_and_fix(
    tmp_path: Path, changes: dict[str, Any], where: str, fix: str
) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)^{where}: .*{fix}"):
        spec.read(sweep_file(tmp_path, **changes))


def test_a_claim_about_an_arm_alone_may_be_about_the_baseline(tmp_path: Path) -> None:
    alone = [{"metric": "accuracy", "direction": "above", "margin": 0.8, "arm": arm} for arm in ("one", "")]
    found = spec.read(sweep_file(tmp_path, expect=alone)).expect
    assert [claim.speaks_of(arm, "one") for claim in found for arm in ("one", "two")] == [True, False, True, True]


def test_contradicting_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"arm\.rl: is given twice"):
        spec.nested({"rl": 3, "rl.epochs": 2}, "arm")


def test_runs_are_named_by_arm_seed_and_config(tmp_path: Path) -> None:
    read = spec.read(sweep_file(tmp_path), [f"folder={tmp_path}", "seeds=[0,1]", "set.rl.steps=7"])
    planned = runs.lay_out(read)
    assert [(run.arm, run.seed) for run in planned] == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]
    assert len({run.name for run in planned}) == 4 and all(run.status == Status.OPEN for run in planned)
    experiment = planned[3].experiment()
    rl = experiment.stages[1].config
    assert (rl.steps, rl.epochs, rl.loss.config.clip_high) == (7, 2, 0.3)
    assert (experiment.settings.seed, experiment.settings.threads) == (1, 1)
    assert experiment.settings.run.path == tmp_path / "fight" / "runs" / planned[3].name

    again = runs.lay_out(read)
    assert [run.name for run in again] == [run.name for run in planned], "the same config is the same run"
    other = runs.lay_out(spec.read(sweep_file(tmp_path), [f"folder={tmp_path}", "seeds=[0,1]", "set.rl.steps=8"]))
    assert not {run.name for run in other} & {run.name for run in planned}, "another config is another run"


def test_an_arm_that_does_not_fit_its_base_is_named(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, arms={"one": {}, "two": {"rl": {"lossy": 1}}})
    with pytest.raises(ConfigError, match=r"arms\.two: rl\.lossy: unknown key"):
        runs.lay_out(spec.read(path, [f"folder={tmp_path}"]))

"""Every file in `configs/ablations` says what it claims and can run; every committed result is of one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from rlhf.core.errors import UserError
from rlhf.loops import plan
from rlhf.loops.settings import Experiment
from rlhf.report import comparison
from rlhf.report.contrast import Direction, judge
from rlhf.sweeps import compare, spec, sweep

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = sorted((DOCS / "ablations").glob("*.json"))
FILES = sorted((Path(__file__).parents[2] / "configs" / "ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_says_what_it_claims(path: Path) -> None:
    found = spec.read(path)
    assert found.cfg.source and found.cfg.notes and found.cfg.title
    assert len(found.cfg.seeds) >= 3
    assert found.expect and all(claim.says for claim in found.expect)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_arm_can_run(path: Path) -> None:
    sweep.show_plan(spec.read(path, ["seeds=[0]"]))


def test_a_plan_can_fail() -> None:
    with pytest.raises(UserError, match="positions"):
        sweep.show_plan(spec.read(FILES[0], ["set.sampling.max_tokens=100000"]))


def test_data_are_made_and_graded_once_for_arms_that_share_task_and_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    graded = list[str]()

    def grade(experiment: Experiment, shared: object) -> str:
        graded.append(experiment.settings.run.name)
        return "all"

    monkeypatch.setattr(plan, "_golds", grade)
    small = ["set.task.train_size=20", "set.task.held_out_size=4"]
    for name, count in (("clip_higher", 1), ("step_credit", 2)):
        graded.clear()
        sweep.show_plan(spec.read(FILES[0].with_stem(name), small))
        assert len(graded) == count, name


def test_the_page_is_made_from_the_committed_results() -> None:
    made = load_module(DOCS / "make_ablations.py").page()
    assert (DOCS / "ablations.md").read_text(encoding="utf-8") == made, "run python docs/make_ablations.py"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_committed_result_is_of_the_file_as_it_is(path: Path) -> None:
    """Arms, seeds, metrics and expectations are those of the file: a claim is not changed after its result is known."""
    found, file = comparison.read(path), spec.read(DOCS.parent / "configs" / "ablations" / f"{path.stem}.yaml")
    assert found.complete and found.title == file.cfg.title and found.baseline == file.baseline
    assert [arm.name for arm in found.arms] == list(file.arms)
    assert all([member.seed for member in arm.members] == file.cfg.seeds for arm in found.arms)
    assert found.metrics == {label: compare.describe(metric) for label, metric in file.metrics.items()}
    claims = [
        (arm, claim.metric, claim.direction, claim.margin)
        for claim in file.expect
        for arm in file.arms
        if claim.speaks_of(arm, file.baseline)
    ]
    assert [(f.arm, f.metric, f.direction, f.margin) for f in found.findings] == claims
    arms = {arm.name: arm for arm in found.arms}
    for finding in found.findings:
        direction, arm = Direction(finding.direction), arms[finding.arm]
        measured = (arm.estimates if direction is Direction.ABOVE else arm.differences)[finding.metric]
        assert finding.verdict == judge(measured, direction=direction, margin=finding.margin)


def load_module(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module

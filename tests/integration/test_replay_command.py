"""Replay makes a recorded sample again, to the token, and accounts for its share of the update."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import KILLED, Shell, rows, tree, write_config

from rlhf.loops.replay import Replay, replay


def trained(run: Path, step: int) -> list[dict[str, Any]]:
    """Samples of a step with an advantage other than zero."""
    return [row for row in rows(run / "samples.jsonl") if row["step"] == step and row["advantage"]]


def parse(stdout: str) -> dict[str, str]:
    """The labelled lines of what replay prints."""
    return dict(re.findall(r"^(\w+): +(.*)$", stdout, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("step", "steps_again"),
    [(6, 0), (7, 1), (10, 4), (12, 0)],
    ids=[
        "first step",
        "its checkpoint was pruned",
        "several steps after the last checkpoint that is left",
        "last step",
    ],
)
def test_a_sample_is_made_again(step: int, steps_again: int, shell: Shell, finished: Path) -> None:
    sample = trained(finished, step)[0]
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    done = shell.run("replay", finished, sample["id"], cwd=finished.parents[1]).ok()
    said = parse(done.stdout)
    assert said["tokens"] == f"{sample['length']}, identical to the record"
    assert said["reward"].startswith(f"{sample['value']} (as recorded), {sample['verdict']}, {sample['reason']}")
    again, recorded = re.fullmatch(r"(\S+) \(recorded (\S+)\)", said["advantage"]).groups()
    assert float(again) == pytest.approx(sample["advantage"], abs=1e-5)
    assert float(recorded) == pytest.approx(sample["advantage"], abs=1e-6)
    assert said.get("weights", "running 0 training steps").startswith(f"running {steps_again} training steps")
    table = [line for line in done.stdout.splitlines() if re.fullmatch(r"['\"].*['\"](\s+-?\d\S*){7}\s*", line)]
    assert len(table) == sample["length"], "one line per token"
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before, "the run is only read"


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The rewards of these tests, for what runs in this process."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield


@pytest.mark.usefixtures("importable")
def test_the_terms_of_all_samples_add_up_to_the_logged_loss(finished: Path) -> None:
    """Step 7 has two minibatches: the second one's loss is taken after the first one's update."""
    step = 7
    row = next(row for row in rows(finished / "metrics.jsonl") if row["step"] == step)
    results: list[Replay] = [replay(finished, sample["id"], announce=print) for sample in trained(finished, step)]
    assert len(results) == row["batch/trained_samples"] == 9
    assert {result.training.update for result in results if result.training} == {1, 2}
    terms = [term for result in results if result.training for term in result.training.terms]
    mean = sum(term.loss for term in terms) / len(terms)
    assert mean == pytest.approx(row["actor/pg_loss"] + 0.01 * row["actor/kl_loss"], rel=1e-4)
    ratios = [term.new_logprob - term.old_logprob for term in terms]
    assert sum(-ratio for ratio in ratios) / len(ratios) == pytest.approx(row["actor/ppo_kl"], rel=1e-4)
    divisors = {result.training.update: result.training.divisor for result in results if result.training}
    assert sum(divisors.values()) == len(terms), "each update divides by its own tokens"
    for result in results:
        assert result.identical and result.advantage == pytest.approx(result.record["advantage"], abs=1e-5)


@pytest.mark.usefixtures("importable")
def test_a_sample_that_a_filter_dropped_has_no_share_in_the_loss(finished: Path) -> None:
    dropped = [row for row in rows(finished / "samples.jsonl") if row["advantage"] is None]
    assert dropped, "dynamic sampling drops groups in this run"
    result = replay(finished, dropped[-1]["id"], announce=print)
    assert result.identical and result.reward.value == dropped[-1]["value"]
    assert result.advantage is None and result.training is None


def test_a_sample_of_a_killed_run(shell: Shell, tmp_path: Path) -> None:
    """The log reaches further than the checkpoints: everything after the last one is trained again."""
    config = write_config(tmp_path, tree())
    run = tmp_path / "runs" / "tiny"
    assert shell.run("train", config, cwd=tmp_path, kill="rlhf.loops.recorder:Recorder.step#8+").code == KILLED
    sample = trained(run, 8)[-1]
    said = parse(shell.run("replay", run, sample["id"], cwd=tmp_path).ok().stdout)
    assert said["tokens"].endswith("identical to the record")
    assert float(said["advantage"].split()[0]) == pytest.approx(sample["advantage"], abs=1e-5)


def test_a_run_without_any_checkpoint_left(shell: Shell, finished: Path, tmp_path: Path) -> None:
    """Both stages are trained again from the model that the run began with."""
    config = write_config(tmp_path, tree())
    run = tmp_path / "runs" / "tiny"
    shell.run("train", config, "checkpoints.every=100", cwd=tmp_path).ok()
    for folder in (run / "checkpoints").iterdir():
        shutil.rmtree(folder)
    sample = trained(run, 6)[0]
    assert sample == trained(finished, 6)[0], "how often checkpoints are written changes nothing"
    said = parse(shell.run("replay", run, sample["id"], cwd=tmp_path).ok().stdout)
    assert said["tokens"].endswith("identical to the record")
    assert said["weights"] == "running 5 training steps again, from step 0"


def test_a_generated_sample(shell: Shell, tmp_path: Path) -> None:
    content = tree() | {"stages": ["gen"], "gen": {"loop": "generate", "steps": 3, "prompts_per_step": 2}}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).ok()
    run = tmp_path / "runs" / "tiny"
    said = parse(shell.run("replay", run, rows(run / "samples.jsonl")[-1]["id"], cwd=tmp_path).ok().stdout)
    assert said["tokens"].endswith("identical to the record") and said["loss"].startswith("none")


def test_an_unknown_id_is_refused_with_those_that_are_near(shell: Shell, finished: Path) -> None:
    known = rows(finished / "samples.jsonl")[0]["id"]
    done = shell.run("replay", finished, known + "9", cwd=finished.parents[1])
    done.refused(f"has no sample '{known}9'", known, "samples.jsonl")

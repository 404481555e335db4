"""A run that learns to decline what it does not know: fewer wrong answers, from a boundary that it probes itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import Shell, rows, strict_json, tree, write_config


@pytest.fixture(scope="module")
def run(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `refusal.yaml`, twenty seconds on an idle core."""
    cwd = tmp_path_factory.mktemp("refusal")
    shell.run("train", write_config(cwd, tree("refusal")), cwd=cwd).ok()
    return cwd / "runs" / "refusal"


def test_wrong_answers_halve_and_what_is_known_is_still_answered(run: Path) -> None:
    measured = [row for row in rows(run / "metrics.jsonl") if "val-aux/facts/wrong_rate/mean" in row]
    before, after = ({key: row[f"val-aux/facts/{key}/mean"] for key in KEYS} for row in (measured[0], measured[-1]))
    assert before["wrong_rate"] > 0.3 and before["known_accuracy"] > 0.75, "it was taught some facts and no others"
    assert after["wrong_rate"] < before["wrong_rate"] / 2
    assert after["refusal_recall"] > before["refusal_recall"] + 0.3, "of facts that it was never asked for"
    assert after["known_accuracy"] > before["known_accuracy"] - 0.15
    assert after["refusal_precision"] > 0.7


KEYS = ("wrong_rate", "known_accuracy", "refusal_recall", "refusal_precision")


def test_prompts_were_probed_when_due_and_rewards_went_by_it(run: Path) -> None:
    found = rows(run / "data" / "rl.boundary.jsonl")
    assert {row["step"] for row in found} == {101, 121}
    assert {row["policy_version"] for row in found} == {100, 120}
    share = {(row["step"], row["prompt_id"].partition("~")[0]): row["self_accuracy"] for row in found}
    first = [s for s in rows(run / "samples.jsonl") if s["step"] <= 120]
    probed = [s for s in first if s["breakdown"]["refusal/probed"]]
    assert len(probed) > 0.9 * len(first), "but for questions that the probe declined throughout"
    for sample in probed:
        if (101, sample["prompt_id"]) in share:
            assert sample["breakdown"]["refusal/self_accuracy"] == share[101, sample["prompt_id"]]
    refused = [s for s in first if s["verdict"] == "refused"]
    assert {s["value"] for s in refused} == {0.0, -3.0}
    assert all((s["value"] == -3.0) == (s["reason"] == "refusal/known") for s in refused)


def test_a_refusal_is_valued_again_as_it_was(shell: Shell, run: Path, tmp_path: Path) -> None:
    """By what was known then, and beside the other samples of its group."""
    refused = [s for s in rows(run / "samples.jsonl") if s["step"] == 103 and s["verdict"] == "refused"]
    chosen = next((s for s in refused if s["value"] == -3.0), refused[0])
    done = shell.run("replay", run, chosen["id"], cwd=tmp_path).ok()
    assert "identical to the record" in done.stdout
    assert f"{chosen['value']} (as recorded), refused, {chosen['reason']}" in done.stdout


def test_a_run_is_rescored_by_what_was_known_then(shell: Shell, run: Path, tmp_path: Path) -> None:
    said = shell.run("rescore", run, "--config", run / "config.yaml", cwd=tmp_path).ok().stdout
    assert re.search(r"\b0 of [\d,]+ samples change", said), said


def test_measures_are_printed_and_drawn(shell: Shell, run: Path, tmp_path: Path) -> None:
    done = shell.run("evaluate", run, "--out", tmp_path / "found.json", cwd=tmp_path).ok()
    for name in ("coverage", "over refusal", "refusal precision", "answered accuracy"):
        assert re.search(rf"{name}\s.*\d\.\d{{3}}", done.stdout), name
    found, last = strict_json(tmp_path / "found.json"), rows(run / "metrics.jsonl")[-1]
    for key in KEYS:
        for bound in ("mean", "low", "high"):
            name = f"val-aux/facts/{key}/{bound}"
            assert found[name] == pytest.approx(last[name]), name
    page = (run / "report.html").read_text()
    assert "Knowing what it knows" in page and "Whether it refuses the right questions" in page

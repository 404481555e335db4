"""The reward lab from the command line: a file scored, a run scored again, and graders audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import REPO, Shell, rows, strict_json, tree, write_config


def config(folder: Path, rewards: dict[str, Any], **more: Any) -> Path:
    """`tiny.yaml` with other rewards."""
    return write_config(folder, tree() | {"rewards": rewards} | more, "other.yaml")


def test_the_same_config_changes_nothing(shell: Shell, finished: Path, tmp_path: Path) -> None:
    said = shell.run("rescore", finished, "--config", finished / "config.yaml", cwd=tmp_path).ok().stdout
    samples = len(rows(finished / "samples.jsonl"))
    assert f"0 of {samples} samples change" in said


def test_another_reward_changes_what_it_must(shell: Shell, finished: Path, tmp_path: Path) -> None:
    """Half as much for the same answers: values halve, ranks and, in groups of their own, advantages stay."""
    half = tree()["rewards"]
    half["digits"]["weight"] = 0.5
    out = tmp_path / "page.html"
    said = shell.run(
        "rescore", finished, "--config", config(tmp_path, half), "--out", out, "rl.advantage.std=none", cwd=tmp_path
    ).ok()
    recorded = {row["id"]: row for row in rows(finished / "samples.jsonl")}
    changed = rows(out.with_suffix(".jsonl"))
    assert changed and f"{len(changed)} of {len(recorded)} samples change" in said.stdout
    for row in changed:
        assert row["before"]["value"] == recorded[row["id"]]["value"]
        assert row["after"]["value"] == pytest.approx(row["before"]["value"] / 2)
        assert row["after"]["verdict"] == row["before"]["verdict"] and row["after"]["rank"] == row["before"]["rank"]
    assert "the other way round" in out.read_text() and "Advantages" in out.read_text()


def test_what_is_different_is_enough(shell: Shell, finished: Path, tmp_path: Path) -> None:
    """A file that is no config by itself, and overrides alone, stand on the run's own config."""
    different = tmp_path / "different.yaml"
    different.write_text("rewards: {digits: {weight: 0.5}}\n")
    in_file, on_line = tmp_path / "file.html", tmp_path / "line.html"
    shell.run("rescore", finished, "--config", different, "--out", in_file, cwd=tmp_path).ok()
    said = shell.run("rescore", finished, "rewards.digits.weight=0.5", "--out", on_line, cwd=tmp_path).ok().stdout
    changed = rows(in_file.with_suffix(".jsonl"))
    assert changed and changed == rows(on_line.with_suffix(".jsonl"))
    assert f"{len(changed)} of" in said and "by its own config rewards" in on_line.read_text()
    assert all(row["after"]["value"] == pytest.approx(row["before"]["value"] / 2) for row in changed)


def test_recorded_advantages_are_computed_again(shell: Shell, finished: Path, tmp_path: Path) -> None:
    """With KL in the reward the record holds more than the reward; without, both are the same."""
    content = tree()
    content["rl"]["kl_in_reward"] = {"coef": 0.0}
    shell.run("train", write_config(tmp_path, content), cwd=tmp_path).ok()
    double = content["rewards"]
    double["digits"]["weight"] = 3.0
    out = tmp_path / "page.html"
    run = tmp_path / "runs" / "tiny"
    shell.run("rescore", run, "--config", config(tmp_path, double), "--out", out, cwd=tmp_path).ok()
    recorded = {row["id"]: row["advantage"] for row in rows(run / "samples.jsonl")}
    for row in rows(out.with_suffix(".jsonl")):
        assert row["before"]["advantage"] == pytest.approx(recorded[row["id"]], abs=1e-5)


def test_a_critic_s_advantages_are_not_made_up(shell: Shell, finished: Path, tmp_path: Path) -> None:
    other = config(tmp_path, tree()["rewards"])
    said = shell.run("rescore", finished, "--config", other, "rl.advantage.name=gae", cwd=tmp_path).ok().stdout
    assert "advantages are not compared: a critic's values were not saved" in said


def test_a_file_is_scored(shell: Shell, finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    answers = [
        {"question": "1+1", "answer": "2", "completion": "so #### 2", "source": "a"},
        {"question": "1+1", "answer": "2", "completion": "so #### 3", "source": "b"},
        {"question": "1+2", "answer": "3", "completion": "no idea", "source": "c"},
    ]
    file.write_text("\n".join(map(json.dumps, answers)))
    out = tmp_path / "scored.jsonl"
    other = config(tmp_path, {"math": {}})
    said = shell.run("score", file, "--config", other, "--out", out, cwd=tmp_path).ok().stdout
    assert "3 completions of 2 prompts" in said and "no_answer" in said
    scored = rows(out)
    assert [(row["source"], row["value"], row["verdict"]) for row in scored] == [
        ("a", 1.0, "correct"),
        ("b", 0.0, "wrong"),
        ("c", 0.0, "no_answer"),
    ]
    length = config(tmp_path, {"length": {"name": "cosine_length", "max_length": 20, "verifier": {"name": "math"}}})
    shell.run("score", file, "--config", length, cwd=tmp_path).refused("row 1: holds no tokens", "--tokenizer FOLDER")
    shell.run("score", file, "--config", length, "--tokenizer", finished / "model", cwd=tmp_path).ok()
    shell.run("score", file, "--config", length, "--gold", "gold", cwd=tmp_path).refused("has no column 'gold'")


def test_an_audit_ends_with_what_it_found(shell: Shell, tmp_path: Path) -> None:
    file = REPO / "configs" / "audit" / "math.yaml"
    less = ["corpora.rewrites.corpus.items=30", "corpora.answers.corpus.items=2", "corpora.hostile.corpus.size=20000"]
    page = tmp_path / "audit.html"
    done = shell.run("audit", file, "--out", page, *less, cwd=tmp_path)
    assert done.code == 0 and "all limits hold" in done.stdout, done.stdout + done.stderr
    assert strict_json(page.with_suffix(".json"))["holds"] is True
    strict = ["corpora.answers.reward.markers=['####']", *less]
    done = shell.run("audit", file, *strict, cwd=tmp_path)
    assert done.code == 1 and "false negative: box 0" in done.stdout, done.stdout + done.stderr

"""A run whose rollouts are a step ahead of training: it learns, and kills cost it no prompt."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from commands import KILLED, Shell, rows, tree, write_config

ROLLOUT = "rlhf.runtime.local:LocalEngine.generate"
UPDATE = "rlhf.runtime.local:LocalLearner.optim_step"


@pytest.fixture(scope="module")
def stale(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`learn.yaml` with `max_staleness: 1`, killed a few times on its way."""
    cwd, content = tmp_path_factory.mktemp("stale"), tree("learn")
    content["rl"] |= {"max_staleness": 1}
    content["checkpoints"] = {"every": 4}
    config = write_config(cwd, content)
    deaths = {
        "while the first batch is collected ahead": f"{ROLLOUT}#2",
        "in an update, with a batch in the buffer": f"{UPDATE}#3",
        "with a checkpoint just written": "os:rename#2+",
        "on the way to the next one": f"{UPDATE}#7",
        "while a batch is collected": f"{ROLLOUT}#6+",
    }
    for what, where in deaths.items():
        done = shell.run("train", config, cwd=cwd, kill=where)
        assert done.code == KILLED, f"{what}: ended with {done.code} instead\n{done.stdout}\n{done.stderr}"
    shell.run("train", config, cwd=cwd).ok()
    return cwd / "runs" / "learn"


def test_it_learns_from_samples_of_older_weights(stale: Path) -> None:
    found = [row for row in rows(stale / "metrics.jsonl") if row["stage"] == "rl"]
    rewards = [row["critic/score/mean"] for row in found]
    first, last = statistics.mean(rewards[:5]), statistics.mean(rewards[-8:])
    assert 0.1 < first < 0.7 and last > first + 0.1
    assert statistics.mean(row["staleness/mean"] for row in found) > 0.7, "but for the first steps after a start"
    assert {row["staleness/max"] for row in found} <= {0.0, 1.0}
    weighed = [row for row in found if row["staleness/mean"] == 1.0]
    assert all(row["rollout_corr/k3_kl"] > 1e-6 for row in weighed), "they are of another policy"
    assert all(0.5 < row["rollout_corr/rollout_is_eff_sample_size"] < 1 for row in weighed), "and weighed as such"


def test_every_prompt_is_trained_on_once_and_in_order(stale: Path) -> None:
    samples = [row for row in rows(stale / "samples.jsonl") if row["stage"] == "rl"]
    ids = [row["id"] for row in samples]
    assert len(set(ids)) == len(ids) == 30 * 16 * 8
    prompts = [row["prompt_id"] for row in samples if row["index"] == 0]
    assert len(set(prompts)) == len(prompts) == 30 * 16, "the task has more prompts than that"
    assert [row["step"] for row in rows(stale / "metrics.jsonl")] == list(range(1, 53))


def test_the_order_is_that_of_a_run_without_staleness(stale: Path, learnt: Path) -> None:
    mine, reference = (
        [row["prompt_id"] for row in rows(run / "samples.jsonl") if row["stage"] == "rl" and row["index"] == 0]
        for run in (stale, learnt)
    )
    assert mine == reference


def test_replay_says_that_timing_decided(shell: Shell, stale: Path) -> None:
    [sample, *_] = (row["id"] for row in rows(stale / "samples.jsonl") if row["stage"] == "rl")
    refused = shell.run("replay", stale, sample, cwd=stale.parents[1])
    refused.refused("was sampled while other steps trained (rl.max_staleness=1)", "rlhf diagnose")

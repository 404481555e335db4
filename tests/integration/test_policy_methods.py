"""Losses and advantages of the policy family in one run of several short stages, then replayed and scored again."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Shell, rows, tree, write_config

from rlhf.lab.rescore import rescore
from rlhf.loops.replay import replay

SHARED = {"filters": {}, "max_refills": 0, "evaluate_every": 0, "kl_in_reward": {}, "prompts_per_step": 6, "steps": 1}
STAGES: dict[str, dict[str, Any]] = {
    "gspo": {"loss": {"name": "gspo", "correction": {"tis_level": "sequence"}}},
    "cispo": {"loss": {"name": "cispo", "correction": {"geometric_mask": [0.5, 2.0]}}},
    "sapo": {"loss": {"name": "sapo", "correction": {"negative_max_kl": 0.5}}},
    "pp": {
        "loss": {"name": "policy", "kl_coef": 0.01, "kl_estimator": "k3+"},
        "advantage": {"name": "reinforce_pp", "baseline": "group"},
        "kl_in_reward": {"coef": 0.1, "target": 0.01, "horizon": 36},
        "steps": 2,
    },
    "remax": {
        "loss": {"name": "policy"},
        "advantage": {"name": "remax"},
        "prompts_per_step": 16,
        "samples_per_prompt": 1,
    },
}


def content() -> dict[str, Any]:
    found = tree()
    online = found.pop("rl")
    found |= {"stages": ["sft", *STAGES], "evaluation": {"prompts": 2, "samples": 1, "k": [1], "greedy": False}}
    found |= {name: {k: v for k, v in online.items() if k != "loss"} | SHARED | stage for name, stage in STAGES.items()}
    return found


@pytest.fixture(scope="module")
def run(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    shell.run("train", write_config(folder, content()), cwd=folder).ok()
    return folder / "runs" / "tiny"


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The rewards of these tests, for what runs in this process."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield


def of_stage(path: Path, name: str) -> list[dict[str, Any]]:
    return [row for row in rows(path) if row["stage"] == name]


def test_every_method_trains_and_reports(run: Path) -> None:
    for name in STAGES:
        for row in of_stage(run / "metrics.jsonl", name):
            assert row["actor/grad_norm"] > 0 and row["batch/trained_samples"] > 0, name
            assert row["rollout_corr/rollout_is_mean"] == pytest.approx(1, abs=1e-3), "one machine, one policy"
    assert "rollout_corr/geometric_masked_fraction" in of_stage(run / "metrics.jsonl", "cispo")[0]
    assert "rollout_corr/negative_masked_fraction" in of_stage(run / "metrics.jsonl", "sapo")[0]


def test_advantages_are_those_of_their_papers(run: Path) -> None:
    samples = of_stage(run / "samples.jsonl", "remax")
    assert len(samples) == 16 and all(
        s["advantage"] == pytest.approx(s["value"] - s["greedy"]["value"]) for s in samples
    )
    by_tokens: dict[int, list[float]] = {}
    for sample in of_stage(run / "samples.jsonl", "pp"):
        by_tokens.setdefault(sample["step"], []).extend([sample["advantage"]] * sample["length"])
    # A row's mean is recorded, so that only the mean of the whole batch is known: 0.
    assert all(statistics.fmean(found) == pytest.approx(0, abs=1e-6) for found in by_tokens.values())


def test_the_coefficient_follows_its_target(run: Path) -> None:
    first, second = of_stage(run / "metrics.jsonl", "pp")
    error = min(max(first["critic/kl/mean"] / 0.01 - 1, -0.2), 0.2)
    assert first["critic/kl_coef"] == 0.1
    assert second["critic/kl_coef"] == pytest.approx(0.1 * (1 + error * 18 / 36))


@pytest.mark.usefixtures("importable")
def test_a_loss_of_whole_answers_is_taken_apart(run: Path) -> None:
    """Every token of an answer has the same term, and all of them together are the answer's one clipped ratio."""
    sample = next(s for s in of_stage(run / "samples.jsonl", "gspo") if s["advantage"])
    training = replay(run, sample["id"], announce=lambda text: None).training
    assert training is not None and len(training.terms) == sample["length"] > 1
    terms, advantage = [term.loss for term in training.terms], sample["advantage"]
    ratio = math.exp(statistics.fmean(term.new_logprob - term.old_logprob for term in training.terms))
    expected = max(-advantage * ratio, -advantage * min(max(ratio, 1 - 3e-4), 1 + 4e-4))
    assert terms == pytest.approx([expected / len(terms)] * len(terms), rel=1e-3)


@pytest.mark.usefixtures("importable")
def test_scored_again_by_the_same_rewards_nothing_changes(run: Path) -> None:
    found = rescore(run, run / "config.yaml")
    assert found.not_compared == "" and found.changed == [] and found.samples == len(rows(run / "samples.jsonl"))
    assert found.pairs[0] == found.pairs[1] and any(found.pairs[0])

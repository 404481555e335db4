"""The benchmark of the orchestration, small: what it checks holds, and what it checks could fail."""

from __future__ import annotations

import json
from pathlib import Path

import orchestration
import pytest
from simulation import SimulatedEngine, SimulatedLearner, Simulation


def test_many_groups_over_engines_that_die_are_all_trained_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestration, "SECONDS", (0.02, 0.06))
    out = orchestration.measure(8, groups=128, steps=10)
    assert out.intact and out.replaced > 0
    assert 128 // 2 < out.groups_in_flight <= 128, "four steps are in flight at once, and never more"


def test_a_lost_and_a_doubled_prompt_are_noticed(tmp_path: Path) -> None:
    def intact(rows: list[int], trained: list[int]) -> bool:
        lines = [json.dumps({"prompt_id": prompts[i], "index": 0}) for i in rows]
        (tmp_path / "samples.jsonl").write_text("\n".join(lines))
        run.learner.trained = [f"{i}-{j}" for i in trained for j in range(orchestration.SAMPLES)]
        return orchestration._intact(run, count=3)

    engine = SimulatedEngine(lambda: 0.0)
    run = Simulation(path=tmp_path, keys={}, engine=engine, train_seconds=lambda: 0.0, prompts=5)
    run.learner = SimulatedLearner(lambda: 0.0, version=0)
    stream = orchestration.PromptStream(orchestration.Prompts(5).train(), seed=0, name="rl")
    prompts = [prompt.id for prompt in stream.take(0, 5)]
    assert intact([0, 1, 2], [0, 1, 2])
    assert not intact([0, 1, 3], [0, 1, 2]), "one was lost"
    assert not intact([0, 1, 1], [0, 1, 2]), "one came twice"
    assert not intact([0, 1, 2], [0, 1, 1, 2]) and not intact([0, 1, 2], [0, 1])

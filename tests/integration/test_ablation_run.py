"""A shipped ablation in a few seconds, DPO's on sums of two digits: its stages are shared, all that it is to measure is
measured, and what DPO raises, the margin between the right and the wrong answer, is raised in pairs that are not learnt
from."""

from __future__ import annotations

from pathlib import Path

from commands import REPO, Shell

from rlhf.report import comparison
from rlhf.report.contrast import Verdict
from rlhf.sweeps import runs, spec, sweep

SHORT = (
    "seeds=[0]",
    "set.device=cpu",
    "set.model={init: tiny, max_positions: 64}",
    "set.task={min_terms: 2, max_terms: 2, held_out_size: 16, noise: 0.0}",
    "set.sampling.max_tokens=16",
    "set.evaluation={greedy: false, samples: 1, k: [1]}",
    "set.sft={batch_size: 32, evaluate_every: 0, steps: 26}",
    "set.sft.learner={optimizer: {lr: 2.0e-3}, schedule: {warmup_updates: 5}}",
    "set.sample.steps=4",
    "set.prefer={steps: 24, held_out: {set_aside: 16}, evaluate_every: 0}",
)


def test_dpo_tells_pairs_apart(shell: Shell, tmp_path: Path) -> None:
    short = spec.read(REPO / "configs" / "ablations" / "dpo.yaml", [*SHORT, f"folder={tmp_path}"])
    for run in runs.lay_out(short):
        shell.run(*run.command, "--cache", tmp_path / "cache", cwd=tmp_path).ok()
    assert len(list((tmp_path / "cache").glob("sample-*"))) == 1, "all arms share the warm start and its samples"
    sweep.collect(short)
    found = comparison.read(short.folder / "results.json")
    assert found.complete and {f.verdict for f in found.findings[:2]} == {Verdict.UNDECIDED}, "one seed shows nothing"
    untrained, dpo, rpo = (arm.members[0].values for arm in found.arms)
    assert untrained["chosen drift"] == 0 == untrained["rejected drift"]
    for trained in (dpo, rpo):
        assert trained["chosen drift"] > trained["rejected drift"] + 0.3, found.arms
    assert rpo["chosen drift"] > dpo["chosen drift"], "the likelihood holds it up"

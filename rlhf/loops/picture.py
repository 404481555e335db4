"""`rlhf evaluate TARGET --picture FILE`: the curves of an evaluation, from the samples that it has drawn.

Accuracy is shown for every power of two up to `evaluation.samples`, whichever k the config asks numbers of: the samples
are the same. The tokens of k samples are k times what one took on average, all branches of a search included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlhf.core.seeding import derive_seed
from rlhf.loops import confidence, measures
from rlhf.loops.evaluate import Result
from rlhf.report import calibration, evaluation_chart
from rlhf.report.evaluation_chart import AtK, Drawn
from rlhf.report.stats import bootstrap_interval

CURVES = ("pass@", "maj@", "pass^")
"""best@k is left out: a reward need not lie between 0 and 1."""


def write(results: Sequence[Result], path: Path) -> Path:
    """Draw every task. Returns the path."""
    return evaluation_chart.write([drawn(result) for result in results], path)


def drawn(result: Result) -> Drawn:
    """What there is to draw of a task."""
    kinds = confidence.kinds(result.groups)
    seed = derive_seed(0, "picture", result.task)
    given = {
        name: {"confidence": found.confidence, "right": found.right, "prompt": found.prompt, "seed": seed}
        for name, found in kinds.items()
        if name != "max"
    }
    return Drawn(
        title=result.task,
        repeated=_repeated(result, seed=seed),
        greedy=AtK(k=1, tokens=result.greedy_length, found=result.greedy) if result.greedy is not None else None,
        reliability={name: calibration.reliability(**each) for name, each in given.items()},
        selected={name: calibration.risk_coverage(**each) for name, each in given.items()},
    )


def _repeated(result: Result, *, seed: int) -> dict[str, list[AtK]]:
    groups = result.groups
    most = max((len(group.trajectories) for group in groups), default=1)
    ks = sorted({2**i for i in range(most.bit_length())} | {most})
    columns = measures.repeated(groups, ks)
    each = result.cost.completion_tokens / max(1, sum(len(group.trajectories) for group in groups))
    out: dict[str, list[AtK]] = {}
    for prefix in CURVES:
        for k in ks:
            column = columns.get(f"{prefix}{k}", columns["pass@1"] if k == 1 and f"{prefix}{most}" in columns else [])
            values = [value for value in column if value is not None]
            if values:
                found = bootstrap_interval(values, seed=derive_seed(seed, prefix, k), share=True)
                out.setdefault(f"{prefix}k", []).append(AtK(k=k, tokens=k * each, found=found))
    return out

"""Accuracy of searches over what they spend, with a perfect scorer and with one that is sometimes taken in.

python benchmarks/search_curves.py [--prompts 100] [--json FILE] [--plot FILE.svg]

The policy and the scorers are those of `search_simulation`, the samplers, the loop and the account those of a run.
Three settings: whole answers with a perfect scorer and with a noisy one, by the number of samples, and answers step by
step with a perfect one, by tokens spent. Errors of a whole answer are often the policy's habit, so that votes have
something to get wrong; each point is one run over the same prompts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_simulation import Engine, Policy, Scorer, accuracy, prompts, run, sampler

from rlhf.report.curves import PALETTE

SAMPLES = (1, 2, 4, 8, 16, 32, 64)
WHOLE = ("best_of_n", "majority", "weighted_majority", "cluster_rerank")
NOISY = Scorer(noise=0.4, taken_in=0.02, by=2.0)
POLICY = Policy(skill=0.8, habitual=0.4)
UNSURE = Policy(skill=0.6)
STEPWISE: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "best_of_n": [{"n": n} for n in (1, 2, 4, 8, 16, 32)],
    "beam": [{"width": 2, "expand": e} for e in (1, 2, 4, 8)],
    "mcts": [{"simulations": 4, "expand": e} for e in (1, 2, 4, 8)],
    "tree_search": [{"expand": e} for e in (1, 2, 4, 6)],
}


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of one sampler."""

    panel: str
    sampler: str
    keys: Mapping[str, Any]
    accuracy: float
    completion_tokens: float
    """Per answer."""
    scored: float


def measured(panel: str, name: str, keys: Mapping[str, Any], *, policy: Policy, scorer: Scorer, count: int) -> Point:
    """Run a sampler over the prompts, and hold its account against the engine's."""
    engine, scored = Engine(policy), {} if name == "majority" else {"scorer": "scorer"}
    found = run(sampler(name, **keys, **scored), prompts(count), engine=engine, scorer=scorer)
    assert found.cost.completion_tokens == engine.completion_tokens and found.cost.requests == engine.requests
    tokens, shown = found.cost.completion_tokens / count, found.cost.scored / count
    return Point(panel, name, keys, accuracy(found), tokens, shown)


def every(count: int) -> list[Point]:
    """All points."""
    whole = [
        measured(panel, name, {"n": n}, policy=POLICY, scorer=scorer, count=count)
        for panel, scorer in (("perfect", Scorer()), ("noisy", NOISY))
        for name in WHOLE
        for n in SAMPLES
    ]
    steps = [
        measured("steps", name, keys, policy=UNSURE, scorer=Scorer(), count=count)
        for name, settings in STEPWISE.items()
        for keys in settings
    ]
    return whole + steps


def plot(points: Sequence[Point], path: Path) -> None:
    """Draw the three panels."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    matplotlib.rcParams["svg.hashsalt"] = "search"
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    titles = {
        "perfect": ("a perfect scorer", "samples per answer"),
        "noisy": ("one that is sometimes taken in", "samples per answer"),
        "steps": ("step by step, a perfect scorer", "tokens per answer"),
    }
    names = list(dict.fromkeys(point.sampler for point in points))
    for axes, (panel, (title, label)) in zip(figure.subplots(1, 3, sharey=True), titles.items(), strict=True):
        for place, name in enumerate(names):
            mine = [p for p in points if p.panel == panel and p.sampler == name]
            x = [p.completion_tokens if panel == "steps" else p.keys["n"] for p in mine]
            colour = PALETTE[f"c{place}"][0]
            if mine:
                axes.plot(x, [p.accuracy for p in mine], marker="o", ms=3, lw=1.4, color=colour, label=name)
        axes.set(title=title, xlabel=label, xscale="log", ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="y", lw=0.4)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False, loc="lower right")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    args = parser.parse_args()
    points = every(args.prompts)
    for point in points:
        print(
            f"{point.panel:8} {point.sampler:18} {point.keys!s:34} {point.accuracy:6.1%} {point.completion_tokens:9.1f}"
        )
    if args.json:
        args.json.write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n", encoding="utf-8")
    if args.plot:
        plot(points, args.plot)


if __name__ == "__main__":
    main()

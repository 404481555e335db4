"""`rlhf evaluate TARGET --calibrate`: does confidence say how often an answer is right, and does a temperature help?

Each kind of confidence is looked at that answers have (`rlhf.loops.confidence`): of single answers, and of
self-ensembles of all samples of a prompt. Numbers before are of the confidences as they are. Numbers after are of
prompts that the temperature was not fitted to: each half of the prompts is scaled by what fits the other half. The
temperature that is named, for use elsewhere, is fitted to all of them. Formulas: `rlhf.report.temperature`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlhf.core.run_folder import write_whole
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Group
from rlhf.loops import confidence
from rlhf.loops.confidence import Answers
from rlhf.loops.evaluate import Result
from rlhf.report import calibration, temperature
from rlhf.report.stats import Interval

ESTIMATORS = {
    "calibration_error": calibration.expected_calibration_error,
    "brier": calibration.brier_score,
    "nll": temperature.negative_log_likelihood,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One kind of confidence on one task."""

    answers: int
    temperature: Interval
    before: Mapping[str, Interval]
    """By the names of `ESTIMATORS`."""
    after: Mapping[str, Interval]

    def values(self, prefix: str) -> dict[str, float]:
        """Flat names: `…/temperature/mean`, `…/calibration_error/before/low`."""
        found = {"temperature": self.temperature}
        for when, numbers in (("before", self.before), ("after", self.after)):
            found |= {f"{name}/{when}": interval for name, interval in numbers.items()}
        out: dict[str, float] = {}
        for name, each in found.items():
            bounds = {"mean": each.mean, "low": each.low, "high": each.high}
            out |= {f"{prefix}/{name}/{key}": value for key, value in bounds.items()}
        return out


def measure(groups: Sequence[Group]) -> dict[str, Calibration]:
    """By the kind of confidence; without those that no answer has."""
    out = {name: _calibration(name, answers) for name, answers in confidence.kinds(groups).items()}
    return {name: each for name, each in out.items() if each is not None}


def show(results: Sequence[Result], *, out: Path | None) -> dict[str, dict[str, Calibration]]:
    """Print a table per task, and add the numbers to those of the evaluation.

    Args:
        results: of `rlhf.loops.measure.evaluate`.
        out: the file that it has written.

    Returns:
        By task and kind of confidence.
    """
    console = Console()
    found = {result.task: measure(result.groups) for result in results}
    for task, kinds in found.items():
        title = f"{task}: confidence, before and after a temperature"
        table = Table("confidence", "temperature", "answers", title=title, title_justify="left")
        for name in ESTIMATORS:
            table.add_column(f"{name.replace('_', ' ')} before → after")
        for kind, each in kinds.items():
            pairs = [f"{_shown(each.before[name])} → {_shown(each.after[name])}" for name in ESTIMATORS]
            table.add_row(kind, _shown(each.temperature), str(each.answers), *pairs)
        console.print(table)
    if out is not None:
        numbers = json.loads(out.read_text(encoding="utf-8"))
        for task, kinds in found.items():
            for kind, each in kinds.items():
                numbers |= each.values(f"calibration/{task}/{kind}")
        write_whole(out, json.dumps(numbers, indent=1))
    return found


def _calibration(name: str, answers: Answers) -> Calibration | None:
    right, prompt = answers.right, answers.prompt
    seed = derive_seed(0, "calibrate", name)
    found = temperature.fitted(answers.confidence, right, prompt, seed=seed)
    if found is None:
        return None

    def numbers(values: Sequence[float]) -> dict[str, Interval]:
        each = {
            key: calibration.estimate(estimator, confidence=values, right=right, prompt=prompt, seed=seed)
            for key, estimator in ESTIMATORS.items()
        }
        return {key: interval for key, interval in each.items() if interval is not None}

    return Calibration(
        answers=len(right),
        temperature=found.temperature,
        before=numbers(answers.confidence),
        after=numbers(found.held_out.tolist()),
    )


def _shown(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

"""Which of a run's scored trajectories are worth a reader's time, chosen in one pass over `samples.jsonl`.

The file may hold millions of rows, so rows are read one at a time and at most `LIMIT` are kept: the latest, those with
the highest and lowest value, those whose verdict says that grading itself was in doubt, and an even spread over the
run. Equal values are ordered by advantage, which puts a right answer to a hard prompt before one to an easy prompt.
"""

from __future__ import annotations

import heapq
import json
import math
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.core.types import Verdict

LATEST, EXTREME, DOUBTFUL, SPREAD = 80, 20, 10, 40
IN_DOUBT = (Verdict.NO_ANSWER, Verdict.UNPARSABLE, Verdict.TIMEOUT, Verdict.CRASH)
LIMIT = LATEST + 2 * EXTREME + len(IN_DOUBT) * DOUBTFUL + SPREAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row of `samples.jsonl`. Text is the model's: hostile until escaped."""

    id: str
    step: int
    stage: str
    prompt_id: str
    prompt: str
    text: str
    stop: str
    gold: str
    value: float | None
    verdict: str
    reason: str
    extracted: str | None
    breakdown: Mapping[str, float | None]
    advantage: float | None
    policy_version: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A sample and why it is shown: any of latest, best, worst, in doubt, spread."""

    sample: Sample
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is shown of `total` rows; `unreadable` lines could not be decoded."""

    chosen: tuple[Chosen, ...]
    total: int
    unreadable: int


def rows(path: Path) -> Iterator[dict[str, Any] | None]:
    """The objects of a JSON-lines file, one at a time; None stands for a line that is not a JSON object."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield row if isinstance(row, dict) else None


def select(source: Iterable[dict[str, Any] | None]) -> Selection:
    """Choose what to show, in the order of the file. A row that comes again after a resume replaces the earlier one."""
    total = unreadable = 0
    latest: deque[tuple[int, Sample]] = deque(maxlen=LATEST)
    doubtful: dict[str, deque[tuple[int, Sample]]] = {v: deque(maxlen=DOUBTFUL) for v in IN_DOUBT}
    best: list[tuple[tuple[float, float], int, Sample]] = []
    worst: list[tuple[tuple[float, float], int, Sample]] = []
    spread: list[tuple[float, int, Sample]] = []
    for order, row in enumerate(source):
        sample = _sample(row) if row is not None else None
        if sample is None:
            unreadable += 1
            continue
        total += 1
        latest.append((order, sample))
        if sample.verdict in doubtful:
            doubtful[sample.verdict].append((order, sample))
        if sample.value is not None:
            advantage = sample.advantage or 0.0
            _push(best, ((sample.value, advantage), order, sample), EXTREME)
            _push(worst, ((-sample.value, -advantage), order, sample), EXTREME)
        # A hash of the id picks an even spread in one pass, and the same one every time.
        _push(spread, (-zlib.crc32(sample.id.encode(errors="replace")), order, sample), SPREAD)
    found: dict[int, tuple[Sample, list[str]]] = {}
    groups = {
        "latest": list(latest),
        "best": [(order, sample) for _, order, sample in best],
        "worst": [(order, sample) for _, order, sample in worst],
        "in doubt": [pair for pairs in doubtful.values() for pair in pairs],
        "spread": [(order, sample) for _, order, sample in spread],
    }
    for why, pairs in groups.items():
        for order, sample in pairs:
            found.setdefault(order, (sample, []))[1].append(why)
    last = {sample.id: order for order, (sample, _) in sorted(found.items())}
    kept = [Chosen(sample=found[order][0], why=tuple(found[order][1])) for order in sorted(last.values())]
    return Selection(chosen=tuple(kept), total=total, unreadable=unreadable)


def _push(heap: list[Any], item: Any, size: int) -> None:
    """Keep the `size` largest; the order in the file is unique, so that samples are never compared."""
    if len(heap) < size:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def _sample(row: Mapping[str, Any]) -> Sample | None:
    try:
        return Sample(
            id=str(row["id"]),
            step=int(row["step"]),
            stage=str(row["stage"]),
            prompt_id=str(row["prompt_id"]),
            prompt=str(row["prompt"]),
            text=str(row["text"]),
            stop=str(row["stop"]),
            gold=str(row["gold"]),
            value=_finite(row["value"]),
            verdict=str(row["verdict"]),
            reason=str(row["reason"]),
            extracted=None if row["extracted"] is None else str(row["extracted"]),
            breakdown={str(key): _finite(value) for key, value in row["breakdown"].items()},
            advantage=_finite(row["advantage"]),
            policy_version=int(row["policy_version"]),
            tokens=tuple(int(token) for token in row["tokens"]),
            logprobs=tuple(float(logprob) for logprob in row["logprobs"]),
            task=str(row["task"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _finite(value: Any) -> float | None:
    number = None if value is None else float(value)
    return number if number is not None and math.isfinite(number) else None

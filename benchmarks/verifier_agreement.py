"""How well and how fast `rewards.math` grades: agreement with labels, self-match of golds, suites, hostile input.

    python benchmarks/verifier_agreement.py DATA_FOLDER [--misses]

The folder holds gsm8k_model_solutions.jsonl (OpenAI's labelled samples), gsm8k_{train,test}.jsonl, math_test.jsonl,
verifier_cases_dev.jsonl and verifier_hostile_dev.jsonl. Every disagreement is printed; `--misses` also lists the suite
rows that are graded otherwise than their label. Exit status 1 when a figure falls short of its target.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rewards.math import Spec, verify
from rewards.math.spec import MARKERS

LENIENT = Spec(markers=list(MARKERS))
AGREEMENT_TARGET = 0.995
HOSTILE_SECONDS = 0.05
CANARY = Path("/tmp/canary")
"""Where the injection cases of the hostile suite try to leave a file."""

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--misses", action="store_true", help="list the suite rows graded otherwise than labelled")
    args = parser.parse_args()
    solutions = list(rows(args.data / "gsm8k_model_solutions.jsonl"))
    good = [
        agreement(solutions),
        self_match(args.data),
        cases(list(rows(args.data / "verifier_cases_dev.jsonl")), misses=args.misses),
        hostile(list(rows(args.data / "verifier_hostile_dev.jsonl"))),
    ]
    throughput(solutions)
    return 0 if all(good) else 1


def rows(path: Path) -> Iterable[Row]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def is_correct(completion: str, gold: str, spec: Spec | None = None) -> bool:
    return verify(completion, gold, spec=spec).value == 1.0


def agreement(solutions: list[Row]) -> bool:
    """Labelled GSM8K samples, whose gold is the `A: N` line of the reference solution."""
    agreed, verdicts = 0, Counter[str]()
    for n, row in enumerate(solutions, start=1):
        gold = row["reference_solution"].rpartition("A:")[2].strip()
        out = verify(row["completion"], gold)
        verdicts[out.reason] += 1
        if (out.value == 1.0) == row["is_correct"]:
            agreed += 1
        else:
            end = row["completion"][-80:]
            print(
                f"  row {n}: label {row['is_correct']}, graded {out.verdict} {out.reason}; gold {gold!r}, end {end!r}"
            )
    share = agreed / len(solutions)
    print(f"GSM8K labelled samples: {agreed} of {len(solutions)} agree ({share:.2%})  {dict(verdicts.most_common())}")
    return share >= AGREEMENT_TARGET


def self_match(data: Path) -> bool:
    """Every reference solution must be graded correct against its own answer."""
    golds: list[tuple[str, str]] = []
    for name in ("gsm8k_train", "gsm8k_test"):
        golds += [(row["answer"], row["answer"].rpartition("####")[2]) for row in rows(data / f"{name}.jsonl")]
    golds += [(row["solution"], row["solution"]) for row in rows(data / "math_test.jsonl")]
    failed = [(solution, verify(solution, gold)) for solution, gold in golds if not is_correct(solution, gold)]
    for solution, out in failed:
        print(f"  self-match fails: {out.verdict} {out.reason}; …{solution[-80:]!r}")
    print(f"self-match: {len(golds) - len(failed)} of {len(golds)}")
    return not failed


def cases(suite: list[Row], *, misses: bool) -> bool:
    """Public verifier suites, with the default markers and with all of them. Only false positives of `core` fail."""
    core_false_positives = 0
    for name, spec in (("default markers", Spec()), ("all markers", LENIENT)):
        print(f"suite, {name}:")
        for tier in sorted({row["tier"] for row in suite}, key=lambda t: (t != "core", t)):
            judged = [row for row in suite if row["tier"] == tier and row["adjudicated"] is not None]
            if not judged:
                continue
            outs = [(row, is_correct(as_completion(row), row["gold"], spec)) for row in judged]
            wrong = [(row, given) for row, given in outs if given != row["adjudicated"]]
            positives = sum(given for _, given in wrong)
            negatives = len(wrong) - positives
            core_false_positives += positives if tier == "core" else 0
            share = 1 - len(wrong) / len(judged)
            print(f"  {tier:17}{share:7.1%} of {len(judged):3}   false positives {positives}, negatives {negatives}")
            for row, given in wrong if misses else ():
                print(
                    f"    {given!s:5} {row['category']}: gold {row['gold']!r}, prediction {row['prediction'][-90:]!r}"
                )
    return core_false_positives == 0


def as_completion(row: Row) -> str:
    """Bare answers are put into a box, as a model would."""
    prediction = row["prediction"]
    boxed = row["kind"] == "completion" or "\\boxed" in prediction
    return prediction if boxed else f"\\boxed{{{prediction}}}"


def hostile(suite: list[Row]) -> bool:
    """Bombs, injections and tricks: no wrong acceptance, no long run, no file."""
    before = set(CANARY.glob("*"))
    accepted, slow, longest, acceptable = 0, 0, 0.0, 0
    for row in suite:
        text = row["prediction"]
        if text is None:
            text = "".join(piece * count for piece, count in row["prediction_pieces"])
        start = time.perf_counter()
        out = verify(text, row["gold"], spec=LENIENT)
        seconds = time.perf_counter() - start
        longest = max(longest, seconds)
        value = 0 if out.value is None else int(out.value)
        if value == 1 and 1 not in row["accept"]:
            accepted += 1
            print(f"  wrongly accepted: {row['id']} {row['category']} gold {row['gold']!r}, {text[:80]!r}")
        if seconds > HOSTILE_SECONDS:
            slow += 1
            print(f"  slow: {row['id']} {row['category']} took {seconds * 1000:.0f} ms, {text[:40]!r}")
        acceptable += value in row["accept"]
    created = set(CANARY.glob("*")) - before
    print(
        f"hostile: {len(suite)} rows, {acceptable} acceptable, {accepted} wrongly accepted, "
        f"longest {longest * 1000:.1f} ms, {len(created)} files created"
    )
    return not (accepted or slow or created)


def throughput(solutions: list[Row]) -> None:
    """Scores per second on one core, in process, with golds read before."""
    pairs = [(row["completion"], row["reference_solution"].rpartition("A:")[2].strip()) for row in solutions]
    for completion, gold in pairs:
        verify(completion, gold)
    start = time.perf_counter()
    for completion, gold in pairs:
        verify(completion, gold)
    seconds = time.perf_counter() - start
    print(f"throughput: {len(pairs) / seconds:,.0f} scores/s, {seconds / len(pairs) * 1e6:.1f} us each")


if __name__ == "__main__":
    sys.exit(main())

"""How fast `rewards.math` grades, beside math-verify in one run: verdicts per second of CPU time, median and slowest.

    python benchmarks/verifier_speed.py DATA_FOLDER        # needs pip install 'rlhf[oracle]'

One process, one core; each grader is warm (every pair graded once before) and both read the gold anew, as math-verify
must. DATA_FOLDER holds gsm8k_model_solutions.jsonl and math_test.jsonl. Three sets: MATH solutions against their own
answers, answers of MATH against those of other problems, labelled samples of GSM8K.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from math_verify import parse
from math_verify import verify as compare

from rewards.math import verify
from rewards.math.extract import boxed

Pair = tuple[str, str]
Grade = Callable[[str, str], bool]
MOST = 500
"""Pairs per set: math-verify needs seconds for so many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    graders: dict[str, Grade] = {"rewards.math": ours, "math-verify": theirs}
    print(f"{'':38}{'per second':>12}{'median us':>12}{'p99 us':>12}")
    for name, pairs in sets(args.data).items():
        rates: dict[str, float] = {}
        for grader, grade in graders.items():
            took = timed(grade, pairs)
            rates[grader] = len(took) / sum(took)
            middle, last = statistics.median(took), sorted(took)[int(0.99 * len(took))]
            print(f"{name + ', ' + grader:38}{rates[grader]:12,.0f}{middle * 1e6:12,.1f}{last * 1e6:12,.0f}")
        print(f"{'  ratio':38}{rates['rewards.math'] / rates['math-verify']:12,.1f}")


def sets(folder: Path) -> dict[str, list[Pair]]:
    solutions = [row["solution"] for row in rows(folder / "math_test.jsonl")]
    answers = [found.candidate for s in solutions if (found := boxed(s)) and found.candidate]
    draw = random.Random(0)
    samples = rows(folder / "gsm8k_model_solutions.jsonl")[:MOST]
    return {
        "MATH solutions": [(s, f"\\boxed{{{a}}}") for s, a in zip(solutions, answers, strict=True)][:MOST],
        "MATH answers crossed": [(f"\\boxed{{{draw.choice(answers)}}}", f"\\boxed{{{a}}}") for a in answers[:MOST]],
        "GSM8K samples": [
            (row["completion"], "#### " + row["reference_solution"].rpartition("A:")[2].strip()) for row in samples
        ],
    }


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ours(completion: str, gold: str) -> bool:
    return verify(completion, gold).value == 1.0


def theirs(completion: str, gold: str) -> bool:
    return compare(parse(gold), parse(completion))


def timed(grade: Grade, pairs: Sequence[Pair]) -> list[float]:
    """CPU seconds per pair, the second time round: other programs on the machine do not count."""
    for pair in pairs:
        grade(*pair)
    took: list[float] = []
    for pair in pairs:
        begin = time.thread_time()
        grade(*pair)
        took.append(time.thread_time() - begin)
    return took


if __name__ == "__main__":
    main()

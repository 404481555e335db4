"""The math verifier against input made to hurt: bombs, injections, and the hostile suite."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards.math import Spec, verify
from rewards.math.spec import MARKERS
from rewards.pool import WorkerPool

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool() as opened:
        yield opened


BOMBS: dict[str, str] = {
    "tower": r"\boxed{9^{9^{9^{9}}}}", "python tower": r"\boxed{9**9**9**9}", "factorial": r"\boxed{100000000!}",
    "factorials": r"\boxed{((((9!)!)!)!)!}", "binomial": r"\boxed{\binom{1000000}{500000}}",
    "root": r"\boxed{\sqrt[64]{" + "9" * 250 + "}}",
    "sum of towers": r"\boxed{" + "1/9^{2000}+" * 300 + "1}", "factorial product": r"\boxed{" + "500!*" * 700 + "1}",
    "digits": r"\boxed{" + "1" * 10**6 + "}", "letters": r"\boxed{" + "a" * 10**6 + "}", "bare letters": "a" * 10**6,
    "open boxes": r"\boxed{" * 140_000, "boxes": r"\boxed{1}" * 100_000, "no boxes": r"\boxed " * 100_000,
    "braces": r"\boxed{" + "{" * 2000 + "1" + "}" * 2000 + "}",
    "brackets": r"\boxed{" + "(" * 2000 + "1" + ")" * 2000 + "}",
    "nested tuples": r"\boxed{" + "(1," * 900 + "1" + ")" * 900 + "}", "signs": r"\boxed{" + "-" * 4000 + "1}",
    "dollars": "$" * 10**6, "answers": "the answer is " * 30_000, "answer stars": "answer" + "*" * 10**5,
    "spaces": r"\boxed{" + " " * 10**6 + "1}",
    "groups": "1" + ",111" * 50_000, "in box groups": r"\boxed{" + "1,111 " * 600 + "}",
    "joined boxes": r"\boxed{1}" + " , " * 200_000 + r"\boxed{2}",
    "thinks": "<think>" * 10**5, "tags": "<answer>" * 10**5,
    "fractions": r"\boxed{" + r"\frac" * 700 + "}", "superscripts": r"\boxed{" + "²" * 4000 + "}",
    "halves": r"\boxed{" + "½" * 4000 + "}",
}  # fmt: skip

FORMULAS: dict[str, tuple[str, str]] = {
    "functions of functions": (r"\sin " * 1500 + "x", "x"), "roots of roots": (r"\sqrt" * 900 + "2", "2"),
    "power of powers": ("x^{" * 40 + "x" + "}" * 40, "x"), "tower with a variable": ("2^{" * 40 + "x" + "}" * 40, "x"),
    "carets": ("x" + "^x" * 900, "x"), "indices": ("x" + "_x" * 900, "x"), "factorials of x": ("x" + "!" * 1500, "x"),
    "plus minus": (r"1 \pm 2" * 150, "x+1"), "percents": ("1" + "%" * 1900, "2"),
    "harmonic sum": ("+".join(f"1/{k}" for k in range(2, 400)), "1"),
    "harmonic sum of x": ("+".join(f"x/{k}" for k in range(2, 400)), "x"),
    "set of roots": (", ".join(rf"\sqrt{{{k}}}" for k in range(2, 66)), ", ".join(rf"\sqrt{{{k}.5}}" for k in range(2,
        66))),
    "integrals": (r"\int " * 200 + "x" + " dx" * 200, r"\int x dx"), "binomials": (r"\binom{x}{y}*" * 150 + "1", "x"),
    "wide matrix": (r"\begin{pmatrix}" + "&".join("x" * 200) + r"\end{pmatrix}", r"\begin{pmatrix} 1 \end{pmatrix}"),
    "long chain": ("<".join("x" * 600), "x"), "long equation": ("=".join("1" * 900), "2"),
    "unions": (r"\cup".join(f"({k},{k + 1})" for k in range(150)), r"\cup".join(f"({k},{k + 2})" for k in range(150))),
    "many functions": ("+".join(rf"\sin({k}x)e^{{{k}y}}" for k in range(90)), "x"), "huge angle": (r"\cos(10^{200}x)",
        "x"),
    "exponentials": ("e^{e^{e^{e^{x}}}}", "x"), "digits to digits": ("9" * 250 + "^{" + "9" * 30 + "}", "1"),
    "divisors": (r"\gcd(" + ",".join(str(10**200 + k) for k in range(15)) + ")", "2"), "bars": ("|" * 1900, "1"),
    "odd lists": ("(@," * 200 + "1" + ")" * 200, "1"), "assignments": (", ".join(f"x{k}={k}" for k in range(200)), "1"),
    "1/(1/(1/x))": (r"\frac{1}{" * 45 + "x" + "}" * 45, "y"), "minus exponents": ("2^{-" * 45 + "1" + "}" * 45, "1"),
}  # fmt: skip


def seconds(completion: str, gold: str = "7", spec: Spec | None = None) -> float:
    """CPU time of one verification; a busy machine does not change it much."""
    start = time.process_time()
    verify(completion, gold, spec=spec)
    return time.process_time() - start


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_harmless(name: str) -> None:
    assert verify(BOMBS[name], "7").value == 0.0
    assert min(seconds(BOMBS[name]) for _ in range(2)) < 0.05


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_made_to_hurt_are_harmless(name: str) -> None:
    answer, gold = FORMULAS[name]
    completion = f"\\boxed{{{answer}}}"
    assert verify(completion, gold).value == 0.0
    assert min(seconds(completion, gold) for _ in range(2)) < 0.1


def test_nothing_hostile_takes_much_memory() -> None:
    program = "import test_rewards_math_hostile as t; print(t.extra_memory_mib())"
    root, here = Path(__file__).parents[2], Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, here)))}
    out = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert float(out.stdout) < 64


def extra_memory_mib() -> float:
    """Peak memory that grading every bomb adds to this process."""
    verify(r"\boxed{\sin x}", "x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for completion in BOMBS.values():
        verify(completion, "7")
    for answer, gold in FORMULAS.values():
        verify(f"\\boxed{{{answer}}}", gold)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def test_a_megabyte_of_reasoning_before_a_good_box_is_no_obstacle() -> None:
    completion = "blah blah " * 100_000 + r"\boxed{7}"
    assert verify(completion, "7").value == 1.0
    assert seconds(completion) < 0.05


def test_extraction_is_linear_in_the_number_of_boxes() -> None:
    few, many = (min(seconds(r"\boxed{" * count) for _ in range(5)) for count in (10_000, 160_000))
    assert many < 100 * max(few, 1e-4)  # 16 times the text; quadratic would be 256 times the time


@pytest.mark.parametrize(
    "payload",
    [
        "open('{path}','w')", "__import__('os').system('touch {path}')",
        r"\text{{__import__('os').system('touch {path}')}}",
        "[open('{path}','w'),2]", "(lambda: open('{path}','w'))()", "open('{path}','w')#\\pi",
    ],
)  # fmt: skip
def test_answers_are_never_executed(payload: str, tmp_path: Path, pool: WorkerPool) -> None:
    path = tmp_path / "canary"
    completion = f"\\boxed{{{payload.format(path=path)}}}"
    for gold in ("0", r"\pi", r"\begin{pmatrix}1\\2\end{pmatrix}"):
        assert verify(completion, gold).value == 0.0
        assert verify(completion, gold, spec=Spec(sympy=True), tools=pool).value == 0.0
    assert not path.exists()


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is not beside this repository")
def test_no_hostile_row_is_accepted_or_slow_or_leaves_a_file() -> None:
    spec = Spec(markers=list(MARKERS))
    canary = Path("/tmp/canary")  # where the injections of this suite try to write
    before = set(canary.glob("*"))
    lines = (DATA / "verifier_hostile_dev.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines):
        text = row["prediction"]
        text = "".join(piece * count for piece, count in row["prediction_pieces"]) if text is None else text
        assert verify(text, row["gold"], spec=spec).value != 1.0 or 1 in row["accept"], row["id"]
        assert min(seconds(text, row["gold"], spec) for _ in range(2)) < 0.05, row["id"]
    assert set(canary.glob("*")) == before

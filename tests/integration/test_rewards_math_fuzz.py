r"""The math verifier against generated input: any text gets a verdict, equal formulas stay equal however written, and a
changed token changes the verdict. Examples are drawn from a fixed seed, so that a run can be repeated."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import mpmath
from hypothesis import given, settings
from hypothesis import strategies as st
from math_tables import GOLDS

from rewards.math import Spec, verify
from rewards.math.spec import MARKERS
from rlhf.core.types import RewardOut

SECONDS = 0.1
FRAGMENTS = [
    r"\boxed{", "}", "{", "(", ")", "[", "]", r"\{", r"\}", "$", "$$", "####", "<answer>", "</answer>", "<think>",
    "</think>",
    r"\frac", r"\sqrt", r"\sqrt[3]", "^", "_", "!", "|", r"\left", r"\right", r"\pm", r"\cup", r"\in", r"\infty",
    r"\pi", "=",
    "<", r"\le", ",", ";", " and ", " or ", r"\text{", r"\sin", r"\log_2", r"\int", "dx", r"\sum_{i=1}^n", r"\binom",
    r"\\",
    r"\begin{pmatrix}", r"\end{pmatrix}", "&", "%", "°", "x", "y", "abc", "e", "i", "0", "1", "2", "10", "3.5", "1e400",
    "9" * 300, "-", "+", "*", "/", ":", ".", "\n", "²", "½", "٤", "\u200b", "\x00", "answer is ", "A: ", " cm", r"\$",
    "`", '"',
]  # fmt: skip
QUICK = settings(derandomize=True, deadline=None, database=None)


def seconds(completion: str, gold: str) -> tuple[float, RewardOut]:
    """Of this thread's own: what a busy machine makes it wait for is not the verifier's."""
    begin = time.thread_time()
    out = verify(completion, gold, spec=Spec(markers=list(MARKERS)))
    return time.thread_time() - begin, out


@settings(QUICK, max_examples=400)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=60), st.integers(1, 30), st.sampled_from(["7", "x^2+1", "(1,2]"]))
def test_any_text_gets_a_verdict_in_time(fragments: list[str], times: int, gold: str) -> None:
    text = "".join(fragments)
    for completion in (text, f"\\boxed{{{text}}}", text * times):
        took, out = seconds(completion, gold)
        assert out.value in (0.0, 1.0) and out.reason
        if took > SECONDS:
            took, _ = seconds(completion, gold)
        assert took <= SECONDS, completion[:200]


@settings(QUICK, max_examples=200)
@given(st.text(max_size=300))
def test_any_gold_is_read_or_refused(text: str) -> None:
    out = verify("\\boxed{7}", text)
    assert out.value in (None, 0.0, 1.0)
    assert out.value is not None or out.reason in ("unparsed/gold", "ungraded/symbolic")


def exact() -> st.SearchStrategy[tuple[str, Fraction]]:
    """A formula of numbers in LaTeX, with its value."""
    whole = st.integers(-50, 50).map(lambda n: (str(n) if n >= 0 else f"({n})", Fraction(n)))
    decimal = st.integers(0, 999).map(lambda n: (f"{n / 100:.2f}", Fraction(n, 100)))

    def larger(inner: st.SearchStrategy[tuple[str, Fraction]]) -> st.SearchStrategy[tuple[str, Fraction]]:
        pair = st.tuples(inner, inner)
        sums = pair.map(lambda p: (f"({p[0][0]} + {p[1][0]})", p[0][1] + p[1][1]))
        differences = pair.map(lambda p: (rf"\left({p[0][0]} - {p[1][0]}\right)", p[0][1] - p[1][1]))
        products = pair.map(lambda p: (rf"{p[0][0]} \cdot {p[1][0]}", p[0][1] * p[1][1]))
        quotients = pair.filter(lambda p: p[1][1] != 0).map(
            lambda p: (rf"\frac{{{p[0][0]}}}{{{p[1][0]}}}", p[0][1] / p[1][1])
        )
        squares = inner.map(lambda p: (f"({p[0]})^2", p[1] ** 2))
        return st.one_of(sums, differences, products, quotients, squares)

    return st.recursive(st.one_of(whole, decimal), larger, max_leaves=8)


@settings(QUICK, max_examples=200)
@given(exact())
def test_arithmetic_agrees_with_fractions(pair: tuple[str, Fraction]) -> None:
    formula, value = pair
    for gold, equal in ((value, True), (value + 1, False), (value * Fraction(10**9 + 1, 10**9), value == 0)):
        out = verify(f"\\boxed{{{formula}}}", f"\\frac{{{gold.numerator}}}{{{gold.denominator}}}")
        assert (out.value == 1.0) == equal, (formula, gold, out)


def formulas() -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["x", "y", "n", "2", "3", r"\pi", r"\sqrt{2}", "0.5", r"\frac{1}{3}"])

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, inner).map(lambda p: f"({p[0]} + {p[1]})"),
            st.tuples(inner, inner).map(lambda p: f"({p[0]}) ({p[1]})"),
            inner.map(lambda f: f"({f})^2"),
            inner.map(lambda f: rf"\cos({f})"),
            inner.map(lambda f: rf"\frac{{{f}}}{{x^2 + 1}}"),
        )

    return st.recursive(leaves, larger, max_leaves=6)


@settings(QUICK, max_examples=150)
@given(formulas(), formulas())
def test_rewriting_keeps_a_formula_and_changing_it_does_not(left: str, right: str) -> None:
    gold = rf"({left}) \cdot ({right}) + {right}"
    same = [
        f"{right} + ({right})({left})", rf"({right})(({left}) + 1)", f"{gold} + n - n", rf"\frac{{2({gold})}}{{2}}",
        rf"-(-({left})({right}) - ({right}))",
    ]  # fmt: skip
    for prediction in same:
        assert verify(f"\\boxed{{{prediction}}}", gold).value == 1.0, (prediction, gold)
    for prediction in (f"{gold} + 1", f"{gold} + x", rf"{gold} + \frac{{1}}{{1000000}}", f"-({gold}) - 7"):
        assert verify(f"\\boxed{{{prediction}}}", gold).value == 0.0, (prediction, gold)


TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[0-9]|[A-Za-z]|\S")
MEANINGLESS = re.compile(
    r"(?<=[\[(, ]0)\s*(?:\\pi|[a-z])|(?<=[\[(, ])(?:\\pi|[a-z])\s*(?=0[ ,])|\\(?:text|left|right|[,!; $])|[\s{}$~]"
    r"|(?<![0-9a-z)])\+|(?<![0-9.])0+(?=[0-9])|(?<![0-9])0(?=\.)|[.,;]+$"
)


def test_a_changed_token_changes_the_verdict() -> None:
    draw = random.Random(0)
    alphabet = sorted({token for gold in GOLDS for token in TOKEN.findall(gold)} | {*"?@#&~'`;!*"})
    accepted: list[tuple[str, str]] = []
    for _ in range(1000):
        gold = draw.choice(GOLDS)
        tokens = TOKEN.findall(gold)
        at = draw.randrange(len(tokens))
        changed = [*tokens]
        changed[at : at + draw.choice((0, 1, 1, 1))] = [draw.choice(alphabet)] if draw.random() < 0.8 else []
        prediction = " ".join(changed)
        if verify(f"\\boxed{{{prediction}}}", gold).value == 1.0 and not provably_equal(prediction, gold):
            accepted.append((prediction, gold))
    assert not accepted, accepted


def provably_equal(prediction: str, gold: str) -> bool:
    """Whether only what has no meaning differs: spaces, braces, delimiters, signs and zeros in front, factors of 0, a
    full stop."""
    left, right = (MEANINGLESS.sub("", text) for text in (prediction, gold))
    return left == right


def test_verdicts_depend_neither_on_the_hash_seed_nor_on_the_version_of_python() -> None:
    """As many versions as this machine has, at least this one."""
    seeds = itertools.cycle(("0", "1", "20"))
    runs = [(python, next(seeds)) for python in (*[sys.executable] * 3, *other_pythons())]
    with tempfile.TemporaryDirectory() as packages:  # mpmath alone is all that another Python is lent
        Path(packages, "mpmath").symlink_to(Path(mpmath.__file__).parent)
        digests = {digest(python, seed, packages) for python, seed in runs}
    assert len(digests) == 1, runs


def other_pythons() -> list[str]:
    """Interpreters of other versions that the project supports, on the path or from pyenv."""
    found: dict[str, str] = {}
    for minor in range(11, 16):
        on_path = shutil.which(f"python3.{minor}")
        kept = sorted(Path(os.environ.get("PYENV_ROOT", "")).glob(f"versions/3.{minor}.*/bin/python3.{minor}"))
        for python in (*([on_path] if on_path else []), *map(str, kept)):
            asked = subprocess.run([python, "--version"], capture_output=True, text=True)
            if asked.returncode == 0 and sys.version_info.minor != minor:  # a shim may point nowhere
                found.setdefault(asked.stdout, python)
    return [*found.values()]


def digest(python: str, seed: str, packages: str) -> bytes:
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{root}{os.pathsep}{packages}", "PYTHONNOUSERSITE": "1"}
    script = Path(__file__).parent / "math_digest.py"
    return subprocess.run([python, str(script)], env=env, capture_output=True, check=True).stdout

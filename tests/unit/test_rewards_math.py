r"""The math verifier against tables of accepted and rejected answers, by category; every bug adds a row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rewards.math import Config, Spec, parse_gold, score, verify
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Message, Prompt, StopReason, Trajectory, Verdict

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is not beside this repository")

ACCEPTED: dict[str, list[tuple[str, str]]] = {
    "integer": [
        ("17", "17"), ("+7", "7"), ("-3", "-3"), ("- 3", "-3"), ("−5", "-5"), ("007", "7"), ("7.", "7"), ("5.0", "5"),
        ("$12$", "12"), (r"\(12\)", "12"), (r"\text{42}", "42"), ("{42}", "42"), ("(42)", "42"), ("--7", "7"),
    ],
    "grouped thousands": [
        ("1,234", "1234"), ("1{,}234", "1234"), (r"1\,234", "1234"), (r"32,\! 349", "32349"), (r"10,\!236", "10236"),
        ("1,234,567.50", "1234567.5"), ("1,234", "1,234"), (r"\$23{,}000", "23000"),
    ],
    "decimal": [
        (".7", "0.7"), ("0.50", "1/2"), ("3.54e-07", r"3.54*10^{-7}"), ("1e-7", "0.0000001"),
        (r"3 \times 10^5", "300000"),
        (r"10^{-3}", "0.001"), ("0.333333", "1/3"), ("1.0000000001", "1.0000000002"),
    ],
    "fraction": [
        (r"\frac{2}{4}", "1/2"), (r"\dfrac12", "0.5"), (r"\tfrac{1}2", "1/2"), (r"\cfrac{1}{3}", "1/3"),
        ("2/4", r"\frac{1}{2}"),
        (r"-\frac{10}{9}", "-10/9"), (r"\frac{-3}{-4}", "3/4"), (r"\left( \frac{1}{3} \right)", "1/3"), ("½", "0.5"),
    ],
    "mixed number": [
        (r"1\frac{1}{2}", "3/2"), ("1 1/2", "1.5"), ("1½", "3/2"), (r"-1\frac12", "-3/2"),
        (r"137 \frac{1}{2}", "137.5"),
    ],
    "percent": [
        (r"33.5\%", "0.335"), ("28 percent", r"28\%"), ("28 pct", r"28\%"), ("10%", "10"), ("10", "10%"),
        (r"\frac{1}{2}\text{ percent}", "0.005"), ("0.335", r"33.5\%"),
    ],
    "units and currency": [
        (r"864 \mbox{ inches}^2", "864"), ("5 cm", "5"), ("5", r"5\text{ cm}"), (r"45^\circ", "45"), ("45°", "45"),
        (r"\$75.00", "75"), ("$75.00 dollars", "75"), ("5 sq. ft", r"5\text{ feet}^2"), ("5 mph", "5 miles per hour"),
        ("18 apples", "18"), ("-1.8 billion", "-1800000000"), ("20 degrees", r"20^\circ"),
        (r"3\pi\text{ cm}", r"3\pi"),
    ],
    "label": [
        ("x = 5", "5"), ("5", "x=5"), ("2=x", "2"), (r"k = \frac{1}{3}", "1/3"), (r"f(x) = 1", "1"),
        (r"a_{37} = 19", "19"),
        (r"x = 1 \text{ or } x = 2", "1,2"), (r"x \in \{1,2\}", "2, 1"), (r"\theta=30", "30"),
    ],
    "list and set": [
        ("-2, 1", "1,-2"), (r"\{1,2\}", r"\{2,1\}"), ("{1,2}", "{2,1}"), ("1 and 2 and 3", "1,2,3"),
        ("1, 2, and 3", "3,2,1"),
        (r"21,16 \text{ or } 11", "21,16,11"), (r"\pm 2021", "-2021, 2021"), ("0.5, 2/4, 1", "1, 1/2, 0.50"),
        (r"\{7\}", "7"),
        ("(1,2),(3,4)", "(3,4),(1,2)"), ("a_3=2, a_4=5", "a_4 = 5, a_3 = 2"),
    ],
    "tuple, interval, matrix": [
        ("(7, 6)", "(7,6)"), ("(0.5; 1)", r"\left(\frac{1}{2}, 1\right)"), (r"[0,\infty)", r"\left[0, \infty\right)"),
        (r"(-\infty,-8)\cup (8,\infty)", r"(-\infty, -8) \cup (8, \infty)"), ("(1,234)", "(1, 234)"),
        (r"\begin{pmatrix} 1/5 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 0.2 \\ 2 \end{bmatrix}"),
    ],
    "text": [
        ("Paris", "paris"), (r"\text{odd}", "odd"), ("Albert  Einstein", "albert einstein"), ("Hello123", "Hello123"),
        ("No.", "no"), (r"\text{Alice and Bob}", "Alice and Bob"),
    ],
    "choice": [("B", "B"), ("(B)", "B"), ("B.", "B"), ("B. 12 cm", "B"), ("B) A triangle", "B"),
        ("B: vitamin C", "B"), ("B, since it can not be A or C", "B"),
        (r"\text{(B)}", "B"), (r"\textbf{B}", "(B)"), ("E", r"\text{E}")],
    "symbolic spelling": [
        (r"\sqrt2", r"\sqrt{2}"), ("x^{2}+1", "x^2 + 1"), (r"2\cdot x", "2*x"), (r"\left|{x}\right|", "|x|"),
        ("3√2", r"3\sqrt{2}"),
        (r"x\le 3", r"x \leq 3"), (r"\frac{\pi r}{h+r}", r"\dfrac{\pi r}{h + r}"), ("4343_6", "4343_{6}"),
        ("x^-1", "x^{-1}"),
    ],
    "arithmetic": [
        ("2^3", "8"), ("(9+1)", "10"), (r"\sqrt{16}", "4"), (r"\sqrt[3]{8}", "2"), ("5!", "120"),
        (r"\binom{5}{2}", "10"),
        (r"\frac{1}{2}+\frac{1}{3}", "5/6"), ("-(-7)", "7"), (r"12 \times 13", "156"), ("4²", "16"),
        (r"2^{2005}", r"2^{2005}"),
    ],
    "formulas": [
        ("x^2+2x+1", "(x+1)^2"), (r"\frac{x}{7}+\frac{2}{7}", r"\frac{x+2}{7}"), (r"3\sqrt{13}", r"3 * \sqrt{13}"),
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"\frac{\pi}{2}", r"\pi/2"),
        ("1.41421356", r"\sqrt{2}"), (r"\sqrt[3]{-8}", "-2"), ("(-8)^{2}", "64"), ("bca", "a b c"),
        ("2^{x+1}", r"2 \cdot 2^x"),
        (r"\sin^2 x + \cos^2 x", "1"), (r"\sin 30^\circ", r"\frac{1}{2}"), (r"\sin^{-1} a", r"\arcsin a"),
        (r"\log_2 8", "3"),
        (r"\log 100", "2"), (r"\log e", "1"), (r"\ln e^2", "2"), (r"\binom{5}{2}", "10"), (r"{5 \choose 2}", "10"),
        (r"\lfloor 2.9 \rfloor", "2"), (r"\lceil x \rceil", r"\left\lceil{x}\right\rceil"), (r"\gcd(12, 18)", "6"),
        (r"17 \bmod 5", "2"),
        (r"\frac{5!}{3!}", "20"), (r"\frac{(n+1)!}{n!}", "n+1"), (r"e^{i\pi}", "-1"), (r"\sqrt{-4}", "2i"),
        ("5 + 7 = 12", "12"),
        (r"\sqrt{3} \approx 1.732", r"\sqrt{3}"), (r"3\sqrt{2}\text{ cm}", r"\sqrt{18}"), ("x^2_1", "x_1^2"),
        (r"\int x + a \, dx", r"\int (a + x) dx"), (r"\sum_{i=0}^{n} i x", r"\sum_{i=0}^n x \cdot i"),
        (r"\tan x", r"\frac{\sin x}{\cos x}"),
    ],
    "parts": [
        (r"[0, \frac{\pi}{2})", r"[0, \pi/2)"), (r"\{\sqrt{8}, 1\}", r"\{1, 2\sqrt{2}\}"),
        (r"1 \pm \sqrt{2}", r"1+\sqrt{2}, 1-\sqrt{2}"),
        (r"\pm 2, 5", "5, -2, 2"), (r"(2,3) \cup (0,1)", r"(0,1) \cup (2,3)"), ("x=1, y=2", "(1,2)"),
        ("y=2, x=1", "x=1, y=2"),
        ("p=5, q=2; p=7, q=2", "(7,2), (5,2)"), ("x_1 = 1, x_2 = 2", "2, 1"), ("4:6", "2:3"),
        (r"\frac{2}{3}", "2:3"), ("1011_2", "1011"),
        (r"\begin{bmatrix} \frac{2}{4} & 1 \end{bmatrix}", r"\begin{pmatrix} 0.5 & 1 \end{pmatrix}"),
        (r"2\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 4 \end{pmatrix}"),
        (
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix} + \begin{pmatrix} 3 \\ 4 \end{pmatrix}",
            r"\left[\begin{array}{c} 4 \\ 6 \end{array}\right]",
        ),
        (r"(-\infty, \infty)", r"\mathbb{R}"),
    ],
    "relations": [
        ("34x+45y-20z+100=0", "-34x-45y+20z-100=0"), ("y = 2x + 3", "2x - y + 3 = 0"), ("x > 3", r"(3, \infty)"),
        ("3 < x", "x > 3"),
        (r"-1 \le x < 3", "[-1, 3)"), (r"x < -1 \text{ or } x > 5", r"(-\infty, -1) \cup (5, \infty)"),
        (r"|x| \le 2", "[-2, 2]"),
        (r"1 \le |z| \le 2", r"[-2,-1] \cup [1,2]"), ("2x < 6", "x < 3"), ("|AB| = 5", "5"),
        (r"\frac{AB}{CD} = \frac{1}{2}", "0.5"),
        (r"z \in [-2,-1] \cup [1,2]", r"1 \le |z| \le 2"), (r"x \neq 3", "x != 3"), (r"x \in (1, 2)", "1 < x < 2"),
    ],
}  # fmt: skip

REJECTED: dict[str, list[tuple[str, str]]] = {
    "value": [
        ("18", "17"), ("-3", "3"), ("5.1", "5"), ("1001", "1001.5"), ("1000001", "1000000"), ("2500", "25"),
        ("3/12", "4"),
        (r"\frac{64}{400}", r"\frac{63}{400}"), ("0.0000004", "0.0000001"), ("0", "10^{-10}"), ("42", "24"),
    ],
    "rounding": [
        ("0.33", "1/3"), ("3.14", r"\pi"), ("0.3333", "0.3334"), ("5.0000001", "5"), ("0.49999999", "1/2"),
        ("100000000000000000001", "100000000000000000000"),
    ],
    "spaces and points do not join": [
        ("1 2", "12"), ("1. 5", "1.5"), ("1 e 5", "100000"), ("12,34", "1234"), ("0,123", "123"), ("1,2345", "12345"),
    ],
    "several answers": [
        (r"7 \text{ or } 8", "7"), ("7, 8", "7"), (r"\{7,8\}", "7"), ("(7,8)", "7"), (r"\pm 7", "7"),
        (r"7 \pm 1", "8"),
        (r"\text{7 or 8}", "7"), (r"7 \text{ or } 7", "7"), ("ABCD", "C"), ("B or C", "C"),
    ],
    "shape": [
        ("(1,2)", "12"), ("{1,2,3}", "123"), ("(3,1)", "1,3"), ("(3,1)", "(1,3)"), ("[0,1)", "[0,1]"),
        ("(0,1]", "[0,1)"),
        (r"\{1,2\}", r"\{1,2,3\}"), ("1,1,2", "1,2,2"), (r"\sqrt{67}", r"\sqrt{67},-\sqrt{85}"), ("(0,)", "0"),
        ("[1,2,)", "[1,2)"), ("(1,,2)", "(1,2)"), (r"\{,1,2\}", r"\{1,2\}"),
        (r"(3,\frac{\pi}{2},)", r"(3,\frac{\pi}{2})"),
        (r"\begin{pmatrix}1&3\\2&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        (r"\begin{pmatrix}1&2\\3\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    ],
    "units": [
        ("5 m", "5 cm"), (r"5\text{ cm}", r"5\text{ cm}^2"), ("7 cents", r"\$7"), (r"36^\circ", r"\$36"),
        ("5 million", "5"),
        ("3 squared", "3"), ("5m", "5"), ("7 dozen", "7"), ("5 halves", "5"),
    ],
    "labels": [("y = 5", "x = 5"), ("5=6=7", "7"), ("x=1, y=2", "1,2"), ("11a+c", "7 = 11a+c"), ("f(7)", "7"),
    ("0", "a+3z=0")],
    "text": [
        (r"\text{not Evelyn}", r"\text{Evelyn}"), (r"\text{ddo}", r"\text{odd}"), ("hello", "world"), ("B", "C"),
        ("B, C", "B"), ("B: C", "B"), ("B. 5 or C. 6", "B"), ("B, C, D", "B"), ("B. (C)", "B"),
        ("B. 5, C", "B"), ("B. 5 or C", "B"),
        ("c", "C"),
        (r"\text{E}", "d"),
    ],
    "symbolic": [("x^3+2x+1", "x^2+2x+1"), ("1 + 1/e", "1 - 1/e"), ("x>3", "x<-1"), ("[0,3)", "[0,1]")],
    "formulas": [
        ("x^2+2x+2", "(x+1)^2"), (r"\sqrt{x^2}", "x"), ("abc", "abd"), (r"\sin 2x", r"2 \sin x"), ("e^{-100}", "0"),
        ("e^{-100}", "e^{-101}"), (r"\pi", "3.14"), (r"\pi", r"\frac{22}{7}"), ("10^{20}+1", "10^{20}"),
        ("2^{-98}", "2^{-99}"),
        (r"\frac{1}{x-x}", "0"), ("x!", "x"), (r"\log_2 8", "2"), (r"\sin 30", r"\frac{1}{2}"), ("5 = 6 = 7", "7"),
        ("x + 1 = 5", "5"), ("1 + 1 = 3", "3"), (r"\sqrt[3]{-8}", "2"), (r"\lfloor 2.9 \rfloor", "3"),
    ],
    "parts": [
        ("(1,2)", "(2,1)"), (r"[0, \pi]", r"[0, \pi)"), (r"\{1, \sqrt{2}\}", r"\{1, \sqrt{3}\}"), ("1,1,2", "1,2,2"),
        (r"(0,1) \cup (2,3)", r"(0,1) \cup (2,4)"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
        ("2:3", "3:2"), ("101_3", "101_2"), ("x=1, y=2", "x=2, y=1"), ("x=1, y=2", "(2,1)"),
        ("(1,2),(3,4)", r"(1,2) \cup (3,4)"),
    ],
    "relations": [
        ("y = 2x + 3", "y = 2x + 4"), ("x < 3", r"x \le 3"), ("x > 3", "x < 3"), ("2x < 6", "-2x < -6"),
        (r"|x| < 3", "(0,3)"),
        ("x^2 + y^2 = 2", "x^2 + y^2 = 1"), ("a + 3z = 0", "0"), ("-1 < x < 3", "[-1,3]"),
    ],
    "signs are no names": [(", 0", "0"), ("; 0", "0"), ("? - ?", "0"), ("0@", "0"), ("?2", "2?"), ("# / #", "1")],
    "undefined": [(r"\frac{0}{0}", "0"), ("1/0", "0"), (r"\infty-\infty", "0"), ("nan", "nan"), ("0^0", "1")],
    "invisible and foreign characters": [("\u202e24", "42"), ("4\u200b2", "42"), ("42\x00", "42"), ("٤٢", "42")],
    "product or mixed number": [(r"2\frac{3}{2}", "7/2"), (r"2\frac{3}{2}", "3")],
}  # fmt: skip


def cases(table: Mapping[str, Sequence[tuple[str, str]]]) -> list[Any]:
    return [
        pytest.param(prediction, gold, id=f"{category}: {prediction} | {gold}")
        for category, rows in table.items()
        for prediction, gold in rows
    ]


@pytest.mark.parametrize(("prediction", "gold"), cases(ACCEPTED))
def test_accepted(prediction: str, gold: str) -> None:
    out = verify(f"so it is \\boxed{{{prediction}}}.", gold)
    assert (out.value, out.verdict) == (1.0, Verdict.CORRECT), out
    assert out.reason.startswith("match/") and out.extracted == prediction


@pytest.mark.parametrize(("prediction", "gold"), cases(REJECTED))
def test_rejected(prediction: str, gold: str) -> None:
    out = verify(f"so it is \\boxed{{{prediction}}}.", gold)
    assert out.value == 0.0 and out.verdict is not Verdict.CORRECT, out
    assert not out.reason.startswith("match/")


@pytest.mark.parametrize(
    ("completion", "gold", "value", "verdict", "reason"),
    [
        (r"\boxed{8}", "7", 0.0, Verdict.WRONG, "mismatch"),
        (r"\boxed{x^2}", "7", 0.0, Verdict.WRONG, "mismatch"),
        (r"\boxed{x @ 2}", "7", 0.0, Verdict.UNPARSABLE, "unparsed/prediction"),
        (r"\boxed{x+1}", "x @ 2", 0.0, Verdict.WRONG, "mismatch/string"),
        (r"\boxed{55}", r"\sum_{i=1}^{10} i", 0.0, Verdict.WRONG, "mismatch/string"),
        (r"\boxed{7}}", "7", 1.0, Verdict.CORRECT, "match/string"),
        ("<answer>7}</answer>", "7", 0.0, Verdict.UNPARSABLE, "unparsed/prediction"),
        (r"\boxed{x+1}", "x^2", 0.0, Verdict.WRONG, "mismatch"),
        (r"\boxed{cat}", "x^2", 0.0, Verdict.WRONG, "mismatch"),
        (r"\boxed{7}", "", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (r"\boxed{}", "", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (r"\boxed{7}", r"\frac{7}", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (r"\boxed{7}", "{7", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (r"\boxed{1/0}", "1/0", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (r"\boxed{7}", r"\boxed{7", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (rf"\boxed{{{'1' * 5000}}}", "7", 0.0, Verdict.UNPARSABLE, "limit/chars"),
        (rf"\boxed{{{'1' * 300}}}", "7", 0.0, Verdict.UNPARSABLE, "limit/magnitude"),
        (r"\boxed{1e400}", "7", 0.0, Verdict.UNPARSABLE, "limit/magnitude"),
        (r"\boxed{9^{9^9}}", "7", 0.0, Verdict.UNPARSABLE, "limit/magnitude"),
        (rf"\boxed{{{'1+' * 1500}1}}", "7", 0.0, Verdict.UNPARSABLE, "limit/tokens"),
        (rf"\boxed{{{'(' * 90}1{')' * 90}}}", "7", 0.0, Verdict.UNPARSABLE, "limit/depth"),
        (rf"\boxed{{{'1,' * 400}1}}", "7", 0.0, Verdict.UNPARSABLE, "limit/nodes"),
    ],
)
def test_verdicts(completion: str, gold: str, value: float | None, verdict: Verdict, reason: str) -> None:
    out = verify(completion, gold)
    assert (out.value, out.verdict, out.reason) == (value, verdict, reason)


@pytest.mark.parametrize(
    ("prediction", "gold", "reason"),
    [
        ("x+1", "x + 1", "match/string"), ("2/4", "1/2", "match/rational"), ("0.5", "1/2", "match/decimal"),
        ("50%", "0.5", "match/percent"), ("B)", "B", "match/choice"), ("ODD", "odd", "match/text"),
        ("2,1", "1,2", "match/structural"), ("2^3", "8", "match/numeric"),
    ],
)  # fmt: skip
def test_the_reason_names_the_layer(prediction: str, gold: str, reason: str) -> None:
    assert verify(f"\\boxed{{{prediction}}}", gold).reason == reason


def test_the_gold_may_be_a_whole_solution() -> None:
    assert verify("A: 1200", "so 2 * 600 = 1200\n#### 1,200").value == 1.0
    assert verify(r"\boxed{0.5}", r"hence $\boxed{\frac{1}{2}}$.").value == 1.0
    gold = parse_gold(r"\boxed{\frac{1}{2}}")
    assert gold is not None and gold.canonical == r"\frac{1}{2}"


def test_numbers_are_compared_the_same_both_ways() -> None:
    rows = [
        row
        for table in (ACCEPTED, REJECTED)
        for key in ("integer", "fraction", "value", "rounding")
        for row in table.get(key, [])
    ]
    for prediction, gold in rows:
        one, other = verify(f"\\boxed{{{prediction}}}", gold), verify(f"\\boxed{{{gold}}}", prediction)
        assert (one.value == 1.0) == (other.value == 1.0), (prediction, gold)


def test_options() -> None:
    assert verify(r"\boxed{x+1}", "x @ 2", spec=Spec(symbolic_mismatch="ungraded")).value is None
    assert verify(r"\boxed{x^2}", "x^2", spec=Spec(symbolic_mismatch="ungraded")).value == 1.0
    strict = Spec(percent="strict")
    assert verify(r"\boxed{33.5}", r"33.5\%", spec=strict).value == 0.0
    assert verify(r"\boxed{0.335}", r"33.5\%", spec=strict).value == 1.0
    assert verify(r"\boxed{33.5\%}", r"33.5\%", spec=strict).value == 1.0
    assert verify(r"\boxed{5 m}", "5 cm", spec=Spec(units="ignored")).value == 1.0
    assert verify(r"\boxed{5}", "5 cm", spec=Spec(units="required")).value == 0.0
    assert verify(r"\boxed{5 centimeters}", "5 cm", spec=Spec(units="required")).value == 1.0
    reduced = Spec(require_reduced=True)
    assert verify(r"\boxed{2/4}", "0.5", spec=reduced).value == 0.0
    assert verify(r"\boxed{1/2}", "0.5", spec=reduced).value == 1.0
    assert verify(r"\boxed{4/2}", "2", spec=reduced).value == 0.0
    literal = Spec(integer_gold_needs_literal=True)
    assert verify(r"\boxed{12 \times 13}", "156", spec=literal).reason == "mismatch"
    assert verify(r"\boxed{4/2}", "2", spec=literal).value == 0.0
    assert verify(r"\boxed{2.0}", "2", spec=literal).value == 1.0


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"markers": ["boxd"]}, "markers"), ({"markers": []}, "markers"),
        ({"symbolic_mismatch": "maybe"}, "symbolic_mismatch"),
        ({"percent": "never"}, "percent"), ({"units": "metric"}, "units"),
        ({"sympy_timeout_s": 0}, "sympy_timeout_s"), ({"weight": float("nan")}, "weight"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(settings: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=path):
        Config(**settings)


@dataclass(frozen=True)
class NoTools:
    """The exact layers ask for no worker."""

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        raise AssertionError("not expected")


def test_score_grades_a_group() -> None:
    prompt = Prompt(id="p", messages=(Message(role="user", content="3+4="),), gold="7", task="sums")
    first = Trajectory(
        id="0-0-p-0", prompt_id="p", index=0, prompt_tokens=(1,), tokens=(2,), logprobs=(-0.5,), text="#### 7",
        stop=StopReason.EOS, policy_version=0, seed=1,
    )  # fmt: skip
    group = Group(prompt=prompt, trajectories=(first, replace(first, index=1, text="#### 8")))
    outs = score(group, Config(), NoTools())
    assert [(out.value, out.extracted) for out in outs] == [(1.0, "7"), (0.0, "8")]


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@needs_data
def test_labelled_gsm8k_samples_agree() -> None:
    labelled = rows("gsm8k_model_solutions.jsonl")
    agreed = 0
    for row in labelled:
        gold = row["reference_solution"].rpartition("A:")[2].strip()
        agreed += (verify(row["completion"], gold).value == 1.0) == row["is_correct"]
    assert agreed / len(labelled) >= 0.995


@needs_data
def test_every_gold_matches_itself() -> None:
    solutions = [row["answer"] for name in ("gsm8k_train", "gsm8k_test") for row in rows(f"{name}.jsonl")]
    solutions += [row["solution"] for row in rows("math_test.jsonl")]
    assert [solution for solution in solutions if verify(solution, solution).value != 1.0] == []


@needs_data
def test_no_false_positive_in_the_core_suite() -> None:
    accepted, judged = 0, 0
    for row in rows("verifier_cases_dev.jsonl"):
        if row["tier"] != "core":
            continue
        boxed = row["kind"] == "completion" or "\\boxed" in row["prediction"]
        out = verify(row["prediction"] if boxed else f"\\boxed{{{row['prediction']}}}", row["gold"])
        assert out.value != 1.0 or row["adjudicated"], row["id"]
        accepted += (out.value == 1.0) == row["adjudicated"]
        judged += 1
    assert accepted / judged >= 0.97

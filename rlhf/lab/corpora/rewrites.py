r"""Answers made from others by rules that keep, or break, their meaning; the label follows from the rule.

Each item draws a reference answer of some kind (number, formula, tuple, set, interval, matrix, equation, text, choice,
percent, unit), and gives right answers, the same written otherwise, and wrong ones, of which a part was changed. Values
are exact fractions, and formulas are rewritten by identities that hold for all values: no grader decides a label.
Source: written for this project.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from rlhf.core.errors import ConfigError
from rlhf.core.seeding import derive_seed
from rlhf.lab.cases import Case

Answers = tuple[str, list[str], list[str]]
"""Gold, right answers, wrong answers."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many."""

    items: int = 300
    """Reference answers, each with several right and wrong answers."""

    def __post_init__(self) -> None:
        if self.items < 1:
            raise ConfigError("items", f"{self.items} are too few", fix="use 1 or more")


def cases(cfg: Config, *, seed: int, canary: str) -> Iterator[Case]:
    """Right and wrong answers to each reference, kind by kind in turn."""
    names = list(KINDS)
    for n in range(cfg.items):
        name = names[n % len(names)]
        gold, right, wrong = KINDS[name](random.Random(derive_seed(seed, "rewrites", n)))
        for label, answers in ((True, right), (False, wrong)):
            for m, answer in enumerate(dict.fromkeys(answers)):
                yield Case(
                    id=f"{name}-{n}-{'right' if label else 'wrong'}-{m}",
                    completion=f"\\boxed{{{answer}}}",
                    gold=gold,
                    label=label,
                    category=name,
                )


def _integer(draw: random.Random) -> Answers:
    n = draw.choice([draw.randint(2, 99), draw.randint(1000, 999_999), -draw.randint(2, 999)])
    grouped = f"{n:,}".replace(",", draw.choice([",", "{,}", r"\,", r"\!,"]).replace(r"\!,", r",\!"))
    right = [str(n), f"{n}.0", grouped, f"${n}$", rf"\frac{{{2 * n}}}{{2}}", rf"\text{{{n}}}", f"{n}.", f"{n - 7}+7"]
    return str(n), right, [str(n + 1), str(-n), f"{n}1", f"{n}.5", f"{n}, {n + 1}", rf"\frac{{{n}}}{{2}}"]


def _fraction(draw: random.Random) -> Answers:
    value = Fraction(draw.randint(1, 40), draw.choice([3, 7, 9, 11, 13, 17]))
    while value.denominator == 1:
        value = Fraction(draw.randint(1, 40), draw.choice([3, 7, 9, 11, 13, 17]))
    n, d = value.numerator, value.denominator
    whole, rest = divmod(n, d)
    right = [
        f"{n}/{d}",
        rf"\frac{{{n}}}{{{d}}}",
        rf"\dfrac{{{3 * n}}}{{{3 * d}}}",
        rf"\frac{{-{n}}}{{-{d}}}",
        f"{n} / {d}",
    ]
    right += [rf"{whole}\frac{{{rest}}}{{{d}}}"] if whole else []
    wrong = [f"{d}/{n}", rf"\frac{{{n + d}}}{{{d}}}", rf"-\frac{{{n}}}{{{d}}}", f"{float(value):.3f}", str(whole + 1)]
    return rf"\frac{{{n}}}{{{d}}}", right, wrong


def _decimal(draw: random.Random) -> Answers:
    value = Fraction(draw.randint(1, 9999), draw.choice([10, 100, 1000]))
    while value.denominator == 1:
        value = Fraction(draw.randint(1, 9999), draw.choice([10, 100, 1000]))
    text = f"{float(value):.3f}".rstrip("0")
    bare = text[1:] if text.startswith("0.") else f"0{text}"
    right = [text, f"{text}00", rf"\frac{{{value.numerator}}}{{{value.denominator}}}", bare]
    wrong = [f"{text}1", f"{float(value) * 10:.2f}", f"-{text}", f"{float(value) + 0.001:.4f}"]
    return text, right, wrong


def _polynomial(draw: random.Random) -> Answers:
    a, b = draw.sample([1, 2, 3, 5, 7, -4, -6], 2)
    gold = f"x^2 {_signed(a + b)}x {_signed(a * b)}"
    right = [
        rf"(x {_signed(a)})(x {_signed(b)})",
        f"{a * b} {_signed(a + b)}x + x^2",
        rf"x(x {_signed(a + b)}) {_signed(a * b)}",
        rf"\frac{{2x^2 {_signed(2 * (a + b))}x {_signed(2 * a * b)}}}{{2}}",
        rf"-(-x^2 {_signed(-(a + b))}x {_signed(-(a * b))})",
    ]
    wrong = [
        rf"(x {_signed(-a)})(x {_signed(-b)})",
        f"x^2 {_signed(a + b)}x {_signed(a * b + 1)}",
        f"x^3 {_signed(a + b)}x {_signed(a * b)}",
        f"y^2 {_signed(a + b)}y {_signed(a * b)}",
        f"2x^2 {_signed(2 * (a + b))}x {_signed(2 * a * b)}",
    ]
    return gold, right, wrong


def _surd(draw: random.Random) -> Answers:
    a, b = draw.randint(2, 9), draw.choice([2, 3, 5, 6, 7, 10])
    right = [
        rf"{a}\sqrt{{{b}}}",
        rf"\sqrt{{{a * a * b}}}",
        rf"\frac{{{a * b}}}{{\sqrt{{{b}}}}}",
        rf"\sqrt{{{b}}} \cdot {a}",
    ]
    wrong = [
        rf"\sqrt{{{a * b}}}",
        rf"{a + 1}\sqrt{{{b}}}",
        rf"{a}\sqrt{{{b + 1}}}",
        str(a * b),
        rf"\frac{{{a}}}{{\sqrt{{{b}}}}}",
    ]
    return rf"{a}\sqrt{{{b}}}", right, wrong


def _pi(draw: random.Random) -> Answers:
    a, b = draw.choice([1, 3, 5, 7, 11]), draw.choice([2, 4, 8, 16])
    right = [
        rf"\frac{{{a}\pi}}{{{b}}}",
        rf"\frac{{{a}}}{{{b}}}\pi",
        rf"{a} \pi / {b}",
        rf"\pi \cdot \frac{{{a}}}{{{b}}}",
    ]
    wrong = [
        rf"\frac{{{b}\pi}}{{{a}}}",
        rf"\frac{{{a}}}{{{b}}}",
        rf"\frac{{{a}\pi^2}}{{{b}}}",
        f"{3.14 * a / b:.4f}",
        rf"-\frac{{{a}\pi}}{{{b}}}",
    ]
    return rf"\frac{{{a}\pi}}{{{b}}}", right, wrong


def _tuple(draw: random.Random) -> Answers:
    a, b, c = draw.sample(range(-9, 30), 3)
    right = [f"({a}, {b}, {c})", f"({a},{b},{c})", rf"\left({a}, {b}, \frac{{{2 * c}}}{{2}}\right)"]
    wrong = [f"({b}, {a}, {c})", f"({a}, {b})", f"({a}, {b}, {c + 1})", f"({a}, {b}, {c}, 0)", rf"\{{{a}, {b}, {c}\}}"]
    return f"({a}, {b}, {c})", right, wrong


def _set(draw: random.Random) -> Answers:
    a, b, c = draw.sample(range(-9, 30), 3)
    right = [rf"\{{{a}, {b}, {c}\}}", rf"\{{{c}, {a}, {b}\}}", rf"\left\{{{b},{c},{a}\right\}}"]
    wrong = [rf"\{{{a}, {b}\}}", rf"\{{{a}, {b}, {c + 1}\}}", rf"\{{{a}, {b}, {c}, 40\}}", str(a)]
    return rf"\{{{a}, {b}, {c}\}}", right, wrong


def _interval(draw: random.Random) -> Answers:
    a = draw.randint(-9, 9)
    b = a + draw.randint(1, 9)
    right = [rf"({a}, {b}]", rf"\left({a},{b}\right]", rf"{a} < x \le {b}"]
    wrong = [
        f"[{a}, {b}]",
        f"({a}, {b})",
        f"({a}, {b + 1}]",
        f"({b}, {a}]",
        rf"({a}, {b}] \cup [40, 41]",
        f"({a}, \\infty)",
    ]
    return f"({a}, {b}]", right, wrong


def _matrix(draw: random.Random) -> Answers:
    a, b, c, d = (draw.randint(-9, 9) for _ in range(4))

    def matrix(rows: str, kind: str = "pmatrix") -> str:
        return rf"\begin{{{kind}}} {rows} \end{{{kind}}}"

    same = rf"{a} & {b} \\ {c} & {d}"
    right = [matrix(same), matrix(same, "bmatrix"), matrix(rf"{a} & \frac{{{2 * b}}}{{2}} \\ {c} & {d}.0")]
    wrong = [matrix(rf"{a} & {b} \\ {c} & {d + 1}"), matrix(rf"{a} & {b}"), matrix(rf"{a} \\ {b} \\ {c} \\ {d}")]
    return matrix(same), right, wrong + ([matrix(rf"{a} & {c} \\ {b} & {d}")] if b != c else [])


def _equation(draw: random.Random) -> Answers:
    m, k = draw.choice([2, 3, 5, -2, -7]), draw.choice([1, 4, 9, -3, -8])
    right = [
        f"y = {m}x {_signed(k)}",
        f"y {_signed(-k)} = {m}x",
        f"{m}x {_signed(k)} = y",
        f"2y = {2 * m}x {_signed(2 * k)}",
        f"{m}x - y {_signed(k)} = 0",
    ]
    wrong = [
        f"y = {m}x {_signed(k + 1)}",
        f"y = {k}x {_signed(m)}",
        f"x = {m}y {_signed(k)}",
        f"y = {m}x^2 {_signed(k)}",
    ]
    return f"y = {m}x {_signed(k)}", right, wrong


def _text(draw: random.Random) -> Answers:
    word, other = draw.sample(["Sunday", "Evelyn", "even", "hexagon", "north", "Alice", "odd", "ellipse"], 2)
    right = [word, word.upper(), rf"\text{{{word}}}", f"{word}.", rf"\textbf{{{word}}}", rf"\mathrm{{{word}}}"]
    return rf"\text{{{word}}}", right, [other, f"{word} or {other}", f"not {word}", word[:-1], f"{word} {other}"]


def _choice(draw: random.Random) -> Answers:
    letter, other = draw.sample("ABCDE", 2)
    return (
        letter,
        [letter, f"({letter})", rf"\text{{{letter}}}", rf"\textbf{{({letter})}}", f"{letter}."],
        [other, f"({other})", f"{letter}, {other}", f"{letter}{other}", f"{letter} or {other}"],
    )


def _percent(draw: random.Random) -> Answers:
    n = draw.randint(1, 99)
    right = [rf"{n}\%", f"{n}%", str(n), rf"{n}\text{{ percent}}", f"{n}.0%"]
    return rf"{n}\%", right, [rf"{n + 1}\%", rf"{n / 10:g}\%", rf"-{n}\%", str(n * 100)]


def _unit(draw: random.Random) -> Answers:
    n, (unit, other) = (
        draw.randint(2, 99),
        draw.choice([("cm", "m"), ("hours", "minutes"), ("kg", "cm"), ("dollars", "cents")]),
    )
    right = [rf"{n}\text{{ {unit}}}", str(n), f"{n} {unit}", rf"{n}\,\mathrm{{{unit}}}"]
    return (
        rf"{n}\text{{ {unit}}}",
        right,
        [rf"{n}\text{{ {other}}}", rf"{n + 1}\text{{ {unit}}}", str(n * 100), rf"\text{{{unit}}}"],
    )


def _signed(n: int) -> str:
    return f"+ {n}" if n >= 0 else f"- {-n}"


KINDS: dict[str, Callable[[random.Random], Answers]] = {
    "integer": _integer,
    "fraction": _fraction,
    "decimal": _decimal,
    "polynomial": _polynomial,
    "surd": _surd,
    "pi": _pi,
    "tuple": _tuple,
    "set": _set,
    "interval": _interval,
    "matrix": _matrix,
    "equation": _equation,
    "text": _text,
    "choice": _choice,
    "percent": _percent,
    "unit": _unit,
}
"""By category."""

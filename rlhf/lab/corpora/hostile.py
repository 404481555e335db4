r"""Answers made to hang, to exhaust, to crash, to break in, or to slip through.

Bombs (towers of powers, factorials, huge exponents), deep nesting, megabytes, what is bad for regular expressions, code
that would leave a file in the canary folder, characters from elsewhere, and values near the limits of numbers. Most are
wrong answers to their gold; where the true value is beyond what a grader must be able to tell, either verdict will do.
Source: written for this project, after the kinds of issues that other verifiers have had (for example sympy 27763,
Math-Verify 14 and 65).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.lab.cases import Case


@dataclass(frozen=True, kw_only=True)
class Config:
    """How large."""

    size: int = 1_000_000
    """Characters of the longest answers."""
    gold: str = ""
    """What to grade them against instead of their own golds, for graders that read other golds."""

    def __post_init__(self) -> None:
        if self.size < 1000:
            raise ConfigError("size", f"{self.size} is not long", fix="use 1000 or more")


def cases(cfg: Config, *, seed: int, canary: str) -> Iterator[Case]:
    """All of them."""
    rows_by_category: dict[str, Sequence[Row]] = {
        "bomb": BOMBS,
        "nesting": _nested(cfg.size),
        "length": _long(cfg.size),
        "regular expression": _regex(cfg.size),
        "injection": _injections(canary),
        "characters": CHARACTERS,
        "numbers": NUMBERS,
    }
    for category, rows in rows_by_category.items():
        for n, (completion, gold, label) in enumerate(rows):
            yield Case(
                id=f"{category} {n}", completion=completion, gold=cfg.gold or gold, label=label, category=category
            )


Row = tuple[str, str, bool | None]
"""Completion, gold, label."""


def _boxed(rows: Sequence[Row]) -> Sequence[Row]:
    return [(f"\\boxed{{{text}}}", gold, label) for text, gold, label in rows]


BOMBS = _boxed([
    ("9**9**9**9", "42", False),
    ("9^{9^{9^{9}}}", "42", False),
    ("2^{2^{2^{2^{2^{2^{2}}}}}}", "65536", False),
    ("10^{10^{10}}", "10", False),
    ("(1/3)^{100000000}", "0", None),
    ("100000000!", "42", False),
    ("5!!!!!!!!!!!!!!!!", "120", None),
    ("((((((9!)!)!)!)!)!)", "42", False),
    (r"\binom{1000000}{500000}", "42", False),
    (r"\binom{10^9}{10^8} - \binom{10^9}{10^8}", "0", None),
    (r"\gcd(10^{1000000}, 7)", "1", None),
    (r"7^{7^{7^{7}}} \bmod 10", "3", None),
    (r"\sum_{i=1}^{10^{12}} i", "42", None),
    (r"\prod_{i=1}^{10^{9}} i", "42", None),
    (r"\int_0^1 \int_0^1 \int_0^1 e^{x^{y^{z}}} dx dy dz", "42", None),
    (r"\sqrt[1000000]{2^{1000000}}", "2", None),
    ("x^{100000} + x + 1 = 0", "0", False),
    ("(x+y+z+w)^{1000}", "0", False),
    ("(" * 20 + "x+1" + ")^9" * 20, "x", False),
    (r"\sin(" * 40 + "x" + ")" * 40, "x", False),
    ("1e999999999", "1", False),
    ("-1e-999999999", "0", None),
    (r"\log(\log(\log(10^{10^{10}})))", "42", None),
    (r"\frac{1}{" * 30 + "1 + x" + "}" * 30, "x", None),
])  # fmt: skip

CHARACTERS = _boxed([
    ("٤٢", "42", False),
    ("４２", "42", None),
    ("4²", "42", False),
    ("1½", "11/2", False),
    ("42\x00", "42", None),
    ("\x00", "0", False),
    ("4\u200b2", "42", None),
    ("\u202e24", "42", False),
    ("42\ud800", "42", None),
    ("O", "0", False),
    ("l", "1", False),
    ("−42", "42", False),
    ("４２\n\n\n", "7", False),
    ("﷽" * 500, "42", False),
    ("e\u0301" * 500, "42", False),
    ("🎲", "6", False),
])  # fmt: skip

NUMBERS = _boxed([
    (r"\frac{1}{0}", "2", False),
    (r"\frac{0}{0}", "0", False),
    (r"\frac{1}{0}", "0", False),
    ("nan", "0", False),
    ("inf", "10^{200}", False),
    (r"\infty - \infty", "0", False),
    ("1e400", "1e200", False),
    ("1e-400", "0", False),
    ("1e-7", "4e-7", False),
    ("0.1", "0.10000000000000001", None),
    ("100000000000000000001", "100000000000000000000", False),
    ("0.333", r"\frac{1}{3}", False),
    ("3.14159", r"\pi", None),
    ("2^{-98}", "2^{-99}", False),
    (r"\frac{1}{2006!}", r"\frac{1}{2004!}", False),
    ("e^{-100}", "e^{-101}", False),
    (r"1 - 10^{-60}", "1", False),
    (r"\tan(90^\circ)", "0", False),
    (r"0^0", "0", False),
    (r"\sqrt{-1}", "1", False),
    ("[1, 2]", "(1, 2)", False),
    ("5 m", "5 cm", False),
    ("101_3", "101_2", False),
    ("7 or 8", "7", False),
    ("5 = 6 = 7", "7", False),
    ("x", "y", False),
    ("True", "1", False),
    ("()", "0", False),
    ("", "0", False),
])  # fmt: skip


def _nested(size: int) -> Sequence[Row]:
    deep = size // 10
    pairs = [
        ("(", ")"),
        ("{", "}"),
        ("[", "]"),
        (r"\{", r"\}"),
        (r"\sqrt{", "}"),
        (r"\frac{1}{", "}"),
        (r"\left(", r"\right)"),
    ]
    out = [(f"\\boxed{{{a * deep}7{b * deep}}}", "42", False) for a, b in pairs]
    out += [(f"\\boxed{{{a * deep}7}}", "42", False) for a, _ in pairs]
    out += [("\\boxed{" * deep + "7" + "}" * deep, "42", False), ("\\boxed{" * deep, "42", False)]
    out += [("<think>" * deep + "42", "42", False), ("-" * deep + "42", "7", False), ("^" * deep, "7", False)]
    out += [("|" * deep, "7", False), ("\\boxed{" + "2^" * deep + "2}", "7", False)]
    return out


def _long(size: int) -> Sequence[Row]:
    texts = [
        "9" * size, "x" * size, "1+" * (size // 2) + "1", "1," * (size // 2) + "1", " " * size + "7", "7" + "0" * size,
        "0." + "3" * size, r"\pi" * (size // 3), r"\cup (1,2)" * (size // 10), "1=" * (size // 2) + "1",
        "1<" * (size // 2) + "2", r"\text{" + "a" * size + "}", r"a \\" * (size // 4), "!" * size, "%" * size,
        r"\sin x + " * (size // 9) + "1",
    ]  # fmt: skip
    out: list[Row] = [(f"\\boxed{{{text}}}", "42", False) for text in texts]
    out += [("a" * size, "42", False), ("\n" * size, "42", False), ("#### 7\n" * (size // 7), "42", False)]
    out += [("\\boxed{7} " * (size // 10), "42", False), ("the answer is 7. " * (size // 17), "42", False)]
    return out


def _regex(size: int) -> Sequence[Row]:
    texts = [
        "1 ", "-", "(", "$", "$1", "answer is ", "<answer>", "</answer>", "<answer", "#", "#### ", "\\boxed", "\\",
        "\\boxed{\\", "A:\n", "**", "\\text{", "1.1", "e1", "\\frac", "1\n", "\t", "1,", "a",
    ]  # fmt: skip
    return [(text * (size // len(text)) + end, "42", False) for text in texts for end in ("", "!", "\\boxed{")]


def _injections(canary: str) -> Sequence[Row]:
    touch = f"{canary}/touched"
    codes = [
        f"__import__('os').system('touch {touch}')",
        f"open('{touch}', 'w')",
        f"(lambda: open('{touch}', 'w'))()",
        f"exec(\"open('{touch}', 'w')\")",
        f"[c for c in ().__class__.__base__.__subclasses__()][0]; open('{touch}','w')",
        f'sympify(\'open("{touch}", "w")\')',
        f"f(x).subs(x, open('{touch}', 'w'))",
        f"\\input{{|touch {touch}}}",
        f"\\write18{{touch {touch}}}",
        f"$(touch {touch})",
        f"`touch {touch}`",
        f"; touch {touch} #",
        f"{{{{ cycler.__init__.__globals__.os.system('touch {touch}') }}}}",
        f"!!python/object/apply:os.system ['touch {touch}']",
        "%s%s%s%n",
        "{0.__class__}",
        "' OR '1'='1",
        "<script>alert(42)</script>",
        "(lambda: 42)()",
        "eval('42')",
    ]
    boxed = [(f"\\boxed{{{code}}}", "42", False) for code in codes]
    return boxed + [(f"{code}\n#### {code}", "42", False) for code in codes]

r"""Running sums of which it is known which lines are right, as they are and dressed up, for models that score steps.

A trace is right when every line of it is, wrong from the first line on that is not; later lines go on from there, as in
`rlhf.tasks.sums`. What is put into a trace changes nothing about that:

    plain       nothing
    padded      idle lines, right additions of 0, before every line
    repeated    every line said again
    empty       blank lines, and pieces without letter or digit
    late        idle lines behind the last sum, between an error and the answer

The answer of a wrong trace is what its lines come to, so that a verifier of answers sees most errors as well; `hidden`
are traces that go wrong and come out right, by a second error that takes the first one back. A corpus for
`rewards.process` with `decides: true`, whose verdict is that no step scores below `correct_from`; what is measured is
the model together with the guards of the reward.
Source: written for this project, after the task (Havrilla and Iyer 2024, arXiv 2402.04004).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.seeding import derive_seed
from rlhf.lab.cases import Case
from rlhf.tasks import sums


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which sums, and how many."""

    items: int = 40
    """Questions, each with every trace; of the held-out side, so that no model was trained on them."""
    min_terms: int = 3
    """Fewest operands."""
    max_terms: int = 4
    """Most operands."""
    max_operand: int = 3
    """Operands are drawn from 0 to this."""

    def __post_init__(self) -> None:
        if self.items < 1:
            raise ConfigError("items", f"{self.items} are too few", fix="use 1 or more")
        sums.Config(min_terms=self.min_terms, max_terms=self.max_terms, max_operand=self.max_operand)
        if self.min_terms < 3:
            raise ConfigError("min_terms", f"{self.min_terms} leave no room for two errors", fix="use 3 or more")


Lines = Sequence[str]


def cases(cfg: Config, *, seed: int, canary: str) -> Iterator[Case]:
    """Question by question."""
    for n in range(cfg.items):
        draw = random.Random(derive_seed(seed, "traces", n))
        terms = _terms(cfg, draw)
        question = "+".join(map(str, terms)) + "="
        wrong = [0] * (len(terms) - 1)
        wrong[draw.randrange(len(wrong))] = draw.choice((1, 2))
        hidden = [draw.choice((1, 2)), *[0] * (len(terms) - 2)]
        hidden[-1] = -hidden[0]
        for label, kind, offsets in (
            (True, "right", [0] * len(wrong)),
            (False, "wrong", wrong),
            (False, "hidden", hidden),
        ):
            lines = _lines(terms, offsets)
            for name, dress in DRESSES.items():
                yield Case(
                    id=f"{kind}, {name} {n}",
                    completion="\n".join(dress(lines)),
                    gold=str(sum(terms)),
                    label=label,
                    category=f"{kind}, {name}",
                    prompt=question,
                )


def _terms(cfg: Config, draw: random.Random) -> list[int]:
    while True:
        terms = [draw.randint(0, cfg.max_operand) for _ in range(draw.randint(cfg.min_terms, cfg.max_terms))]
        if sums.is_held_out("+".join(map(str, terms)) + "="):
            return terms


def _lines(terms: Sequence[int], offsets: Sequence[int]) -> list[str]:
    """The lines of a trace whose sums are off by these."""
    total, lines = terms[0], list[str]()
    for term, offset in zip(terms[1:], offsets, strict=True):
        lines.append(f"{total}+{term}={total + term + offset}")
        total += term + offset
    return [*lines, f"#### {total}"]


def _idle(line: str) -> str:
    """A right addition of 0 to what a line comes to."""
    total = line.rpartition("=")[2]
    return f"{total}+0={total}"


def _padded(lines: Lines) -> list[str]:
    start = lines[0].partition("+")[0]
    before = [f"{start}+0={start}", *map(_idle, lines[:-1])]
    return [text for pair in zip(before, lines, strict=True) for text in pair]


def _repeated(lines: Lines) -> list[str]:
    return [line for line in lines for _ in range(2)]


def _empty(lines: Lines) -> list[str]:
    return [text for line in lines for text in ("", "...", line, "  ", "---")]


def _late(lines: Lines) -> list[str]:
    return [*lines[:-1], *[_idle(lines[-2])] * 4, lines[-1]]


DRESSES: dict[str, Callable[[Lines], list[str]]] = {
    "plain": list,
    "padded": _padded,
    "repeated": _repeated,
    "empty": _empty,
    "late": _late,
}

r"""Symbols moved about: last letters, coins, shuffled objects, dates.

    last_letters|maro lip ku=                           o\nop\nopu\n#### opu
    coin|heads|ana flips,bo keeps,cy flips=             tails\ntails\nheads\n#### heads
    shuffle|ana:ball,bo:kite,cy:drum|1-3,2-3|ana=       ana:drum,…\n…\n#### drum
    date|2024-02-27|+4=                                 2024-02-29 2\n2024-03-01 1\n…\n#### 2024-03-02

Source: Wei et al. 2022, "Chain-of-Thought Prompting" (arXiv 2201.11903), for last letters (of the words of a name) and
coins; BIG-bench (Srivastava et al. 2022, arXiv 2206.04615) for shuffled objects and dates; Kojima et al. 2022
(arXiv 2205.11916) asks all four without examples. Names are invented, dates are numbers of days away, and `noise` makes
training answers slip: a state on the way is altered, and what follows goes on from it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, TypeAlias

from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt
from rlhf.tasks import generated
from rlhf.tasks.common import PromptSets, ReadRows
from rlhf.tasks.generated import COMPACT, MARK, GeneratedConfig, Item, Worked

DESCRIPTION = "last letters, coin flips, shuffled objects and dates; generated, traced"
REWARDS: dict[str, dict[str, Any]] = {"procedure": {"column": "steps", "prefix": 0.0}}
"""Default reward slots: the answer decides; how much of the way is right is measured."""

OBJECTS = ("ball", "kite", "drum", "book", "coin", "lamp", "ring", "vase", "bell", "hat")
_FORM = f"Work it out step by step, one line for each, and end with `{MARK} ` and the answer."
_FIRST, _LAST = date(1990, 1, 1), date(2049, 12, 31)

Slip: TypeAlias = "Callable[[str, Sequence[str]], str]"
"""Given what comes next and what else it could be, what is written."""


@dataclass(frozen=True, kw_only=True)
class Config(GeneratedConfig):
    """Which questions, of how many steps."""

    kinds: list[str] = field(default_factory=lambda: ["last_letters", "coin", "shuffle", "date"])
    """Of last_letters, coin, shuffle and date; each prompt draws one."""
    min_steps: int = 2
    """Fewest words, people, swaps, or days."""
    max_steps: int = 4
    """Most of them."""
    objects: int = 3
    """People with an object each, in shuffles."""
    noise: float = 0.0
    """Probability that a step of a training answer is wrong, and carried on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        generated.check_choices(self, "kinds", _KINDS)
        generated.check_range(self, "min_steps", "max_steps", least=1, most=30)
        generated.check_shares(self, "noise")
        if not 2 <= self.objects <= len(OBJECTS):
            raise ConfigError("objects", f"{self.objects} is not in 2 to {len(OBJECTS)}", fix="use 3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle(generated.Solved):
    """A question, and how it is worked out."""

    kind: str
    given: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of puzzle."""

    draw: Callable[[random.Random, Config, int], dict[str, Any]]
    work: Callable[[Mapping[str, Any], Slip], tuple[list[str], str]]
    """The lines and the answer."""
    compact: Callable[[Mapping[str, Any]], str]
    words: Callable[[Mapping[str, Any]], str]


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Generate both sets; nothing is read, so `rows` is ignored.

    Raises:
        ConfigError: there are too few different questions.
    """

    def write(name: str, puzzle: Puzzle, rng: random.Random, trains: bool) -> Prompt:
        return generated.noisy_prompt("symbolic", name, puzzle.item, trains, lambda: slipping(puzzle, cfg, rng))

    fix = "raise task.max_steps"
    return generated.build("symbolic", cfg, seed=seed, draw=lambda rng: draw(cfg, rng), write=write, fix=fix)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct."""
    return generated.reference(prompt)


def draw(cfg: Config, rng: random.Random) -> Puzzle:
    """A puzzle of as many steps as were drawn."""
    name = rng.choice(cfg.kinds)
    kind, steps = _KINDS[name], rng.randint(cfg.min_steps, cfg.max_steps)
    given = kind.draw(rng, cfg, steps)
    lines, answer = kind.work(given, lambda right, others: right)
    question = f"{name}|{kind.compact(given)}=" if cfg.style == COMPACT else f"{kind.words(given)} {_FORM}"
    columns = {"kind": name}
    item = Item(question=question, gold=answer, answer=answer, steps=tuple(lines), difficulty=steps, columns=columns)
    return Puzzle(kind=name, given=given, item=item)


def slipping(puzzle: Puzzle, cfg: Config, rng: random.Random) -> Worked:
    """A worked answer as it is taught."""
    if not cfg.noise:
        return puzzle.item.worked

    def slip(right: str, others: Sequence[str]) -> str:
        return rng.choice([other for other in others if other != right]) if rng.random() < cfg.noise else right

    lines, answer = _KINDS[puzzle.kind].work(puzzle.given, slip)
    return generated.judged((*lines, f"{MARK} {answer}"), puzzle.item.worked.lines)


def _draw_letters(rng: random.Random, cfg: Config, steps: int) -> dict[str, Any]:
    return {"words": generated.invented_words(rng, steps)}


def _work_letters(given: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    text, lines = "", list[str]()
    for word in given["words"]:
        text += slip(word[-1], "abcdefghijklmnopqrstuvwxyz")
        lines.append(text)
    return lines, text


def _draw_coin(rng: random.Random, cfg: Config, steps: int) -> dict[str, Any]:
    people = generated.invented_words(rng, steps)
    return {"side": rng.choice(("heads", "tails")), "turns": [(name, rng.random() < 0.5) for name in people]}


def _work_coin(given: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    side, lines = given["side"], list[str]()
    for _, flips in given["turns"]:
        after = {"heads": "tails", "tails": "heads"}[side] if flips else side
        side = slip(after, ("heads", "tails"))
        lines.append(side)
    return lines, side


def _draw_shuffle(rng: random.Random, cfg: Config, steps: int) -> dict[str, Any]:
    people = generated.invented_words(rng, cfg.objects)
    held = rng.sample(OBJECTS, cfg.objects)
    swaps = [tuple(sorted(rng.sample(range(cfg.objects), 2))) for _ in range(steps)]
    return {"people": people, "held": held, "swaps": swaps, "asked": rng.randrange(cfg.objects)}


def _work_shuffle(given: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    held, lines = list(given["held"]), list[str]()
    for one, other in given["swaps"]:
        held[one], held[other] = held[other], held[one]
        held[one] = slip(held[one], OBJECTS)
        lines.append(_holding(given["people"], held))
    return lines, held[given["asked"]]


def _holding(people: Sequence[str], held: Sequence[str]) -> str:
    return ",".join(f"{name}:{thing}" for name, thing in zip(people, held, strict=True))


def _draw_date(rng: random.Random, cfg: Config, steps: int) -> dict[str, Any]:
    begin = _FIRST + timedelta(days=rng.randrange((_LAST - _FIRST).days + 1))
    if rng.random() < 0.5:  # near the end of a month, where days are hard to count
        begin = begin.replace(day=28) - timedelta(days=rng.randint(0, 1))
    return {"begin": begin.isoformat(), "days": steps * rng.choice((-1, 1))}


def _work_date(given: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    at, days, lines = date.fromisoformat(given["begin"]), given["days"], list[str]()
    for left in range(abs(days) - 1, -1, -1):
        step = timedelta(days=1 if days > 0 else -1)
        at = date.fromisoformat(slip((at + step).isoformat(), ((at + 2 * step).isoformat(), at.isoformat())))
        lines.append(f"{at.isoformat()} {left}")
    return lines, at.isoformat()


def _swaps(given: Mapping[str, Any]) -> Iterator[str]:
    names = given["people"]
    return (f"{names[one]} and {names[other]} swap" for one, other in given["swaps"])


_KINDS: dict[str, Kind] = {
    "last_letters": Kind(
        _draw_letters,
        _work_letters,
        lambda g: " ".join(g["words"]),
        lambda g: f"Take the last letters of the words in '{' '.join(g['words'])}' and put them together.",
    ),
    "coin": Kind(
        _draw_coin,
        _work_coin,
        lambda g: f"{g['side']}|" + ",".join(f"{name} {'flips' if flips else 'keeps'}" for name, flips in g["turns"]),
        lambda g: (
            f"A coin shows {g['side']}. "
            + " ".join(f"{name} {'flips' if flips else 'does not flip'} it." for name, flips in g["turns"])
            + " Which side does it show, heads or tails?"
        ),
    ),
    "shuffle": Kind(
        _draw_shuffle,
        _work_shuffle,
        lambda g: (
            f"{_holding(g['people'], g['held'])}|"
            + ",".join(f"{one + 1}-{other + 1}" for one, other in g["swaps"])
            + f"|{g['people'][g['asked']]}"
        ),
        lambda g: (
            "; ".join(f"{name} has the {thing}" for name, thing in zip(g["people"], g["held"], strict=True))
            + f". Then {', then '.join(_swaps(g))}. What has {g['people'][g['asked']]} in the end?"
        ),
    ),
    "date": Kind(
        _draw_date,
        _work_date,
        lambda g: f"{g['begin']}|{g['days']:+}",
        lambda g: (
            f"Which date is {abs(g['days'])} days {'after' if g['days'] > 0 else 'before'} {g['begin']}?"
            " Write year-month-day, and count the days that are left on each line."
        ),
    ),
}

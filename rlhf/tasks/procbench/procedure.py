"""What a procedure is: how a problem is drawn, how it is put, and how it is worked out.

A problem is a mapping of fields, in the order in which they are shown. Working it out calls `note` with every state on
the way, in order, and goes on from what `note` gives back, which is the state itself unless noise is wanted; the last
state is noted too. A procedure is total: it ends on whatever states it is given back.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from rlhf.tasks import generated

LETTERS, DIGITS = string.ascii_lowercase, string.digits

Problem: TypeAlias = "Mapping[str, Any]"
State: TypeAlias = "str | int | list[str] | list[int]"
Note: TypeAlias = "Callable[[Any], Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a problem is drawn with."""

    rng: random.Random
    steps: int
    """States to make, the last one included."""
    spread: float
    """Share of the ranges of sizes that is used, from the lower end."""

    def between(self, low: int, high: int) -> int:
        """A size of a range of the benchmark."""
        return self.rng.randint(low, low + int((high - low) * self.spread))

    def text(self, length: int, characters: str = LETTERS) -> str:
        return "".join(self.rng.choices(characters, k=length))

    def words(self, count: int) -> list[str]:
        """So many different words that mean nothing."""
        return generated.invented_words(self.rng, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """One of the 23."""

    draw: Callable[[Draw], Problem | None]
    """A problem of so many steps; None where the draw gave none."""
    run: Callable[[Problem, Note], None]
    init: Callable[[Problem], Any]
    """The state before the first step, as the benchmark's labels have it."""


def states(procedure: Procedure, problem: Problem, *, limit: int = 10_000) -> list[State]:
    """All states of a problem, the last one last."""
    found = list[State]()

    def note(state: State) -> State:
        assert len(found) < limit, "procedures end"
        found.append(list(state) if isinstance(state, list) else state)  # type: ignore[arg-type]
        return state

    procedure.run(problem, note)
    return found


def compact(value: Any) -> str:
    """A field in few characters: list entries between commas, parts of a tuple between points."""
    if isinstance(value, list):
        return ",".join(map(compact, value))
    return ".".join(map(str, value)) if isinstance(value, tuple) else str(value)


def shown(value: Any) -> str:
    """A field in plain form: `[ab, c]`, `(0, 3, 2)`."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f"({', '.join(map(str, value))})" if isinstance(value, tuple) else str(value)


def written(state: State) -> str:
    """A state on a line."""
    text = ",".join(map(str, state)) if isinstance(state, list) else str(state)
    return text or "(empty)"


def corrupted(state: State, rng: random.Random) -> State:
    """A state with one character, entry or number changed."""
    if isinstance(state, int):
        return state + rng.choice((-2, -1, 1, 2))
    if isinstance(state, list):
        if not state:
            return state
        place, out = rng.randrange(len(state)), list[Any](state)
        out[place] = corrupted(out[place], rng)
        return out
    if set(state) == {"-", "x"}:
        return state[1:] + state[0]
    places = [n for n, character in enumerate(state) if character.isalnum()]
    if not places:
        return state
    place = rng.choice(places)
    return state[:place] + generated.other_character(state[place], rng) + state[place + 1 :]

r"""What an answer means, as a small immutable tree; made by `grammar`, simplified by `canonical`, compared by `equal`.

    3\sqrt{2}       Apply("*", (Number(3), Apply("root", (Number(2), Number(2)))))
    [0, \pi)        Items("[)", (Number(0), Name("pi")))
    x < 3           Relation(("<",), (Name("x"), Number(3)))

`key` is one spelling per tree: equal keys, equal trees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

CONSTANTS = frozenset({"pi", "e", "i", "infty"})
SETS = frozenset({"cup", "cap", "setminus"})
RANGES = frozenset({"sum", "prod", "lim", "int", "iint", "oint"})
"""Operations whose arguments are a range and a body."""


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number."""

    value: Fraction
    decimal: bool = False
    """Whether it was written with a point, so that it may have been rounded."""
    key: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.value.numerator:x}/{self.value.denominator:x}")


@dataclass(frozen=True, slots=True)
class Name:
    """A variable, or one of `CONSTANTS`."""

    name: str

    @property
    def key(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Apply:
    """An operation on scalars: `+` and `*` with any number of arguments, `neg`, `inverse`, `^`, `root` (of, index),
    `!`, `abs`, `binom`, `pm`, `degree`, `percent`, a function's name, or `cup`, `cap` and `setminus` on sets."""

    operator: str
    arguments: tuple[Node, ...]
    key: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.operator}({','.join(a.key for a in self.arguments)})")


@dataclass(frozen=True, slots=True)
class Items:
    """Several parts. `kind`: `()`, `(]`, `[)`, `[]` (tuples and intervals, ordered), `set` and `list` (unordered),
    `ratio`, `matrix` of `row`s, `base` (digits, base), `assigned` (names with a value each)."""

    kind: str
    items: tuple[Node, ...]
    key: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.kind}<{','.join(a.key for a in self.items)}>")


@dataclass(frozen=True, slots=True)
class Relation:
    """A chain like `0 < x \\le 3`: one sign less than sides."""

    signs: tuple[str, ...]
    sides: tuple[Node, ...]
    key: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{' '.join(self.signs)}?({','.join(s.key for s in self.sides)})")


@dataclass(frozen=True, slots=True)
class Verbatim:
    """What the grammar does not know: equal only when spelled the same."""

    text: str

    @property
    def key(self) -> str:
        return f'"{self.text}"'


Node: TypeAlias = "Number | Name | Apply | Items | Relation | Verbatim"


def children(node: Node) -> tuple[Node, ...]:
    """What a node is made of."""
    if isinstance(node, Apply):
        return node.arguments
    if isinstance(node, Items):
        return node.items
    return node.sides if isinstance(node, Relation) else ()


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    stack: list[Node] = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(children(current))


def variables(node: Node) -> set[str]:
    """Names in it that are no constants."""
    return {n.name for n in walk(node) if isinstance(n, Name)} - CONSTANTS


def is_scalar(node: Node) -> bool:
    """Whether it can have a value: made of numbers, names and operations on them only."""
    if isinstance(node, Apply):
        return node.operator in RANGES or (node.operator not in SETS and all(map(is_scalar, node.arguments)))
    return isinstance(node, (Number, Name))


def is_known(node: Node) -> bool:
    """Whether the grammar understood all of it."""
    return not any(isinstance(n, Verbatim) for n in walk(node))


def has_range(node: Node) -> bool:
    """Whether it has a sum, a limit or an integral, which we do not calculate."""
    return any(isinstance(n, Apply) and n.operator in RANGES for n in walk(node))

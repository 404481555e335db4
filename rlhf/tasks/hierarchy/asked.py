"""What a question about a hierarchy is drawn with, and what it is: its text in both styles, its answer and steps."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from rlhf.core.answers import Answer
from rlhf.core.errors import ConfigError
from rlhf.tasks import generated
from rlhf.tasks.generated import GeneratedConfig
from rlhf.tasks.hierarchy.tree import EDGES, ENCODINGS

_OPERATORS = "+-*/^"


@dataclass(frozen=True, kw_only=True)
class Sizes(GeneratedConfig):
    """How large the structures are."""

    min_levels: int = 2
    """Fewest levels of a tree, the root's included."""
    max_levels: int = 3
    """Most levels. The benchmark has 2 and 3 (easy), 3 and 4, 5 and 6 (hard); for binary trees 2 to 9."""
    min_degree: int = 2
    """Least number of children that a node may have at most; a draw has one such limit."""
    max_degree: int = 3
    """Greatest number of children that a node may have at most."""
    balanced: bool = False
    """Give every node above the last level as many children as it may have."""
    weights: bool = False
    """Put weights on the edges of trees that are not binary."""
    max_nodes: int = 26
    """Trees stop growing there."""
    encoding: str = EDGES
    """How trees are written: edges, or indented."""
    min_operands: int = 2
    """Fewest numbers in a formula."""
    max_operands: int = 4
    """Most numbers. The benchmark has 5, 10 and 15."""
    max_value: int = 9
    """Numbers of a formula are 1 to this. The benchmark has 9, 100 and 1000."""
    decimals: bool = False
    """Numbers of a formula have two decimals."""
    operators: str = "+-*"
    """Of `+-*/^`; exponents are 1 and 2."""
    brackets: bool = True
    """Whether formulas may be built up in any way; else they need no brackets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        generated.check_choices(self, "encoding", ENCODINGS)
        generated.check_range(self, "min_levels", "max_levels", least=2, most=10)
        generated.check_range(self, "min_degree", "max_degree", least=1, most=10)
        generated.check_range(self, "min_operands", "max_operands", least=2, most=30)
        if not 3 <= self.max_nodes <= 1000:
            raise ConfigError("max_nodes", f"{self.max_nodes} is not in 3 to 1000", fix="use 26")
        if self.max_value < 1:
            raise ConfigError("max_value", f"{self.max_value} leaves no number", fix="use 9")
        if not set(self.operators) - {"^"} or set(self.operators) - set(_OPERATORS):
            problem = f"'{self.operators}' has none of +-*/, or something else"
            raise ConfigError("operators", problem, fix=f"use some of {_OPERATORS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question with its answer."""

    given: str
    """The structure, in few characters."""
    told: str
    """The structure, in plain form."""
    about: str
    """What the question is about, in few characters; may be empty."""
    sentence: str
    """The question in plain English, without the structure."""
    answer: Answer
    size: int
    """Nodes, or operands: what makes it difficult."""
    text: str | None = None
    """The answer on a line, where that is not `answers.text`."""
    steps: tuple[str, ...] = ()


Question: TypeAlias = "Callable[[random.Random, Sizes], Asked | None]"
"""Draws a question; None where the draw has none."""

"""What a grader is measured on: answers of which it is known whether they are right.

A file in `rlhf/lab/corpora` is a corpus: `Config`, and `cases(cfg, *, seed) -> Iterable[Case]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rlhf.core.types import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One answer with its label.

    Example: `Case(id="sum-7", completion=r"\\boxed{x+1}", gold="1+x", label=True, category="order")`.
    """

    id: str
    completion: str
    gold: str
    label: bool | None
    """Whether the answer is right. None: either verdict will do, as long as there is one, in time and without harm."""
    category: str = ""
    prompt: str = ""
    columns: Mapping[str, Json] = field(default_factory=dict[str, "Json"])
    """Of the row, for rewards that read them."""


class Corpus(Protocol):
    """A file in `rlhf/lab/corpora`."""

    Config: type[Any]

    def cases(self, cfg: Any, *, seed: int, canary: str) -> Iterable[Case]:
        """The cases, in a fixed order; a function of config and seed.

        Args:
            cfg: of the corpus.
            seed: of whatever is drawn.
            canary: an empty folder; code in an answer, were it ever run, would leave a file in it.
        """
        ...

"""From easy prompts to hard ones: at first the easiest share of all, and more as the stage goes on.

    share = min(1, (start^2 + (1 - start^2) done / reach)^(1/2))        weight = 1 for the easiest share, else 0

`done` is the share of the stage that is done. How hard a prompt is stands in a column of it (a number, or a text that
ends with one, such as `Level 3`), or is what fails of its answers: of those that were seen in training and, before, of
the `profile`. Among equally hard ones those that come first in the task count as easier.

Source: the square-root competence of Platanios et al. 2019, "Competence-based Curriculum Learning for Neural Machine
Translation" (arXiv 1903.09848, equation 7), from Bengio et al. 2009, "Curriculum Learning". They rank by length or
rarity of words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.modules import GroupKnown, Known

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?$")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is hard, and how fast it comes."""

    column: str = ""
    """Column of the prompts that says how hard they are; empty: the share of answers that are wrong."""
    start: float = 0.1
    """Share of the prompts to begin with."""
    reach: float = 0.5
    """Share of the stage after which all prompts are in."""

    def __post_init__(self) -> None:
        for name in ("start", "reach"):
            if not 0 < vars(self)[name] <= 1:
                raise ConfigError(name, f"{vars(self)[name]} is not a share above 0", fix="use 0.1 to 1")


def weights(known: Sequence[Known], cfg: Config, *, groups: Mapping[str, GroupKnown], done: float) -> list[float]:
    """One per prompt.

    Raises:
        DataError: nothing says how hard a prompt is.
    """
    hard = [_hard(one, cfg.column) for one in known]
    share = min(1.0, math.sqrt(cfg.start**2 + (1 - cfg.start**2) * done / cfg.reach))
    easiest = sorted(range(len(known)), key=lambda place: hard[place])[: max(1, math.ceil(share * len(known)))]
    out = [0.0] * len(known)
    for place in easiest:
        out[place] = 1.0
    return out


def _hard(known: Known, column: str) -> float:
    if not column:
        if known.rate is None:
            fix = "set curriculum.profile to a stage with build: boundary or its file, or name a column of the task"
            raise DataError(f"prompt {known.prompt.id}", "nothing says how often it is answered right", fix=fix)
        return 1 - known.rate
    value = known.prompt.columns.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    found = _NUMBER.search(value.strip()) if isinstance(value, str) else None
    if found is None:
        fix = "name a column that holds a number, or a text that ends with one, for every prompt"
        problem = f"its column '{column}' says {value!r}, not how hard it is"
        raise DataError(f"prompt {known.prompt.id}", problem, fix=fix)
    return float(found[0])

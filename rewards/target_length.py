"""How near an answer comes to the number of words that its prompt asked for.

    task: {…}                       # rows with a column `target_words`: 10, 150, or '>800'
    rewards:
      target_length: {column: target_words}

Target length generation of Ruler (Li et al. 2024, arXiv 2409.18943). Words are matches of `\\w+`. An answer matches
precisely (PM) or flexibly (FM) when its words n lie in an interval of the target, lo < n <= hi:

    target     10    30     50     80      150      300      500      700   >800
    precise  0-20  20-40  40-60  70-90  130-170  280-320  450-550  630-770  800-
    flexible 0-20  20-40  40-60 60-100  100-200  200-400  400-600  600-800  800-

Other targets take intervals of `precise` and `flexible` around them, as shares of the target. The benchmark reports
hit rates; as a reward, 1 for a precise match, `flexible_value` for one that is flexible only, else 0. Both rates are
logged.

The verdict is `skipped`: length says nothing about being right. Alone this reward is earned by any text of the right
length, so put one before it that judges answers. `decides: true` is for tasks that ask for a length and nothing else.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rewards import base
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, Prompt, RewardOut, Verdict

REASON = "target_length"
_WORD = re.compile(r"\w+")
_PRECISE: dict[float, tuple[float, float]] = {
    10: (0, 20), 30: (20, 40), 50: (40, 60), 80: (70, 90), 150: (130, 170), 300: (280, 320), 500: (450, 550),
    700: (630, 770),
}  # fmt: skip
_FLEXIBLE: dict[float, tuple[float, float]] = {
    10: (0, 20), 30: (20, 40), 50: (40, 60), 80: (60, 100), 150: (100, 200), 300: (200, 400), 500: (400, 600),
    700: (600, 800),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """Where the target stands and what counts as a match."""

    column: str = "target_words"
    """Column of the dataset row with the target: a number of words, or a text `>800` for more than that many."""
    target: int = 0
    """The target of every prompt; 0 reads the column."""
    flexible_value: float = 0.5
    """What a flexible match is worth that is not a precise one."""
    precise: float = 0.1
    """Half the width of the precise interval, as a share of a target that is not one of Ruler's."""
    flexible: float = 0.25
    """The same of the flexible interval."""
    tables: bool = True
    """Whether Ruler's nine targets have its own intervals; false takes `precise` and `flexible` for every target."""
    decides: bool = False
    """Whether a precise match is what is asked for: the verdict is then `correct` or `wrong`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target < 0:
            raise ConfigError(
                "target", f"{self.target} words cannot be written", fix="use 1 or more, or 0 for a column"
            )
        if not 0 <= self.flexible_value <= 1:
            raise ConfigError("flexible_value", f"{self.flexible_value} is out of range", fix="use a value in [0, 1]")
        if not 0 < self.precise <= self.flexible < math.inf:
            problem = f"{self.precise} is not a share of at most flexible={self.flexible}"
            raise ConfigError("precise", problem, fix="use 0.1 and 0.25")


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Count the words of every answer of a group.

    Raises:
        ConfigError: the prompt has no target.
    """
    target, more = _target(group.prompt, cfg)
    return [_out(count(t.text), target, more=more, cfg=cfg) for t in group.trajectories]


def count(text: str) -> int:
    """Words of a text."""
    return sum(1 for _ in _WORD.finditer(text))


def _target(prompt: Prompt, cfg: Config) -> tuple[float, bool]:
    """The target, and whether more than it is wanted."""
    if cfg.target:
        return float(cfg.target), False
    found = prompt.columns.get(cfg.column)
    text = str(found).strip()
    more = text.startswith(">")
    try:
        wanted = float(text.removeprefix(">"))
    except ValueError:
        wanted = math.nan
    if not 0 < wanted < math.inf:
        have = ", ".join(prompt.columns) or "none"
        problem = f"prompt '{prompt.id}' has no target in its column '{cfg.column}' (columns: {have})"
        raise ConfigError("column", problem, fix="name the column that holds a number of words, or set target")
    return wanted, more


def _out(words: int, target: float, *, more: bool, cfg: Config) -> RewardOut:
    if more:
        precise = flexible = words > target
    else:
        own = (_PRECISE.get(target), _FLEXIBLE.get(target)) if cfg.tables else (None, None)
        precise = _within(words, own[0] or _around(target, cfg.precise))
        flexible = precise or _within(words, own[1] or _around(target, cfg.flexible))
    value = 1.0 if precise else cfg.flexible_value if flexible else 0.0
    measured = {"words": float(words), "precise": float(precise), "flexible": float(flexible)}
    verdict = Verdict.SKIPPED if not cfg.decides else Verdict.CORRECT if precise else Verdict.WRONG
    return RewardOut(value=value, verdict=verdict, reason=REASON, breakdown=measured)


def _around(target: float, share: float) -> tuple[float, float]:
    return target * (1 - share), target * (1 + share)


def _within(words: int, interval: tuple[float, float]) -> bool:
    low, high = interval
    return low < words <= high

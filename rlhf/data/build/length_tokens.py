"""Answers that begin with a token which says how long they are: who puts it there later, chooses the length.

    n = words of the answer, matches of \\w+
    target t:   t - width < n <= t + width            answer becomes   [MLT:t] answer
    more:       n > more_than                          [MLT:>more_than] answer

Answers of other lengths are left out, so that tokens mean what they say. A stage that learns from the rows learns the
token too, so that the model can announce a length itself; to choose one, let the answer begin with the token.
Answers are the selected samples and, with `solution`, worked solutions; `samples_per_prompt: 0` takes no samples.

Source: Ruler (Li et al. 2024, arXiv 2409.18943), whose targets are the defaults, with width 5
(https://github.com/Geaming2002/Ruler, src/utils/config.py; there 150 stands for 136 to 155 words, which we take for a
slip of 146 to 155), and up to 20,000 answers per target (`most`). Ruler adds tokens to the vocabulary; ours are text.

What can go wrong: the tokenizer has to know the characters of `token`, which one that was trained for a small task may
not. Targets that hardly any answer has are not learnt; the metric to look at is the hit rate per target
(`rewards.target_length`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Continuer
from rlhf.core.types import Group, Json

CONTINUES = False
WHOLE_GROUPS = False
WRONG_TOO = False
UNSAMPLED = True

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which lengths have a token."""

    targets: list[int] = field(default_factory=lambda: [10, 30, 50, 80, 150, 300, 500, 700])
    """Numbers of words, rising."""
    width: int = 5
    """How many words off an answer may be."""
    more_than: int = 800
    """Longer answers share a token; 0 leaves them out."""
    token: str = "[MLT:{}]"
    """What an answer begins with; {} stands for the target, or for `>800`."""
    solution: bool = False
    """Whether worked solutions are answers too."""
    most: int = 20_000
    """Answers per target, the first ones; 0 takes all."""

    def __post_init__(self) -> None:
        if not self.targets and not self.more_than:
            raise ConfigError("targets", "names no length", fix="use [10, 30, 50]")
        if self.width < 1:
            raise ConfigError("width", f"{self.width} leaves no answer", fix="use 1 for lengths t, 5 for Ruler's")
        ends = [*self.targets, self.more_than + self.width] if self.more_than else self.targets
        if any(right - left < 2 * self.width for left, right in pairwise(ends)):
            problem = f"{self.targets} with {self.width} words to either side overlap"
            raise ConfigError("targets", problem, fix="let them rise by at least twice the width, or lower it")
        if self.token.count("{}") != 1:
            raise ConfigError("token", f"{self.token!r} has no place for the target", fix="use [MLT:{}]")
        if self.most < 0:
            raise ConfigError("most", f"{self.most} is negative", fix="use 20000, or 0 for all")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the questions: of each the worked solution, then samples; equal texts once."""
    rows: list[dict[str, Json]] = []
    for group in groups:
        answers: dict[str, str | None] = {}
        if cfg.solution and group.prompt.solution is not None:
            answers[group.prompt.solution] = None
        for t in group.trajectories:
            answers.setdefault(t.text, t.id)
        verdicts = {t.id: r.verdict.value for t, r in zip(group.trajectories, group.rewards, strict=True)}
        for text, sample in answers.items():
            told = token(text, cfg)
            if told is not None:
                rows.append(_row(group, text, told, cfg) | {"sample_id": sample, "verdict": verdicts.get(sample or "")})
    return rows


def finish(rows: Sequence[dict[str, Json]], cfg: Config) -> list[dict[str, Json]]:
    """So many rows per target at most, in order."""
    seen: Counter[str] = Counter()
    kept: list[dict[str, Json]] = []
    for row in rows:
        seen[str(row["target"])] += 1
        if not cfg.most or seen[str(row["target"])] <= cfg.most:
            kept.append(row)
    return kept


def words(text: str) -> int:
    """As Ruler counts them."""
    return len(_WORD.findall(text))


def token(text: str, cfg: Config) -> str | None:
    """The target that an answer meets; None where it meets none."""
    count = words(text)
    if cfg.more_than and count > cfg.more_than:
        return f">{cfg.more_than}"
    return next((str(t) for t in cfg.targets if t - cfg.width < count <= t + cfg.width), None)


def _row(group: Group, text: str, target: str, cfg: Config) -> dict[str, Json]:
    return {
        "prompt_id": group.prompt.id,
        "messages": group.prompt.chat,
        "completion": cfg.token.replace("{}", target) + text,
        "target": target,
        "words": words(text),
        "gold": group.prompt.gold,
    }

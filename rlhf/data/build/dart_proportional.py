"""Rejection sampling with the more right answers for a question, the harder it is.

    d_i = 1 - correct_i / samples_i                      how hard question i is, measured by a stage before
    k_i = max(1, ceil(k d_i / max over j of d_j))        right answers wanted of it, all of them different texts

`rows` is k, what the hardest question gets. A question is given up after `samples` samples. `difficulty` names the
stage that measured, with `loop: generate`, `build: boundary` and `select: all`, or the file of one; a question that it
asked several times counts with all samples. Rows are those of the builder `samples`, with the difficulty of their
question.

Source: DART-Math (Tong et al. 2024, arXiv 2407.13690), "Prop2Diff" of section 2.2; the paper takes k = 192, and more
samples than for a uniform quota. Its difficulty, the fail rate of one strong model that stays the same, is measured
beforehand too. Where nobody ever fails, every question gets one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.modules import Continuer, Quota
from rlhf.core.seeding import content_key
from rlhf.core.types import Group, Json, Prompt
from rlhf.data.build import dart_uniform, samples

CONTINUES = False
WHOLE_GROUPS = False
WRONG_TOO = False
SOURCES = {"difficulty": "boundary"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many answers, when to give up, and who says what is hard."""

    rows: int = 192
    """Right answers of the hardest question (k)."""
    samples: int = 8192
    """Samples per question, at most."""
    difficulty: str = ""
    """An earlier generate stage with `build: boundary`, or the JSONL file of one."""

    def __post_init__(self) -> None:
        dart_uniform.check(self.rows, self.samples)
        if not self.difficulty:
            problem = "nobody says how hard the questions are"
            fix = "name a stage before this one, with loop: generate, build: boundary and select: all"
            raise ConfigError("difficulty", problem, fix=fix)


def quotas(prompts: Sequence[Prompt], cfg: Config, continuer: Continuer) -> list[Quota]:
    """By the difficulty of each prompt among all.

    Raises:
        DataError: a prompt was not measured.
    """
    hard = difficulties(prompts, cfg, continuer)
    return [Quota(rows=rows, samples=cfg.samples) for rows in shares(hard, cfg.rows)]


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the samples."""
    found: list[dict[str, Json]] = []
    for group, hard in zip(groups, difficulties([g.prompt for g in groups], cfg, continuer), strict=True):
        rows = await samples.build([group], samples.Config(), continuer)
        found += [row | {"difficulty": float(hard)} for row in rows]
    return found


def shares(difficulties: Sequence[Fraction], most: int) -> list[int]:
    """Answers per question, proportional to its difficulty, computed exactly."""
    hardest = max(difficulties, default=Fraction(0))
    return [max(1, ceil(most * hard / hardest)) if hardest else 1 for hard in difficulties]


def difficulties(prompts: Sequence[Prompt], cfg: Config, continuer: Continuer) -> list[Fraction]:
    """The share of samples of each prompt that were not right.

    Raises:
        DataError: a prompt was not measured.
    """
    measured = continuer.rows(cfg.difficulty, where="build.difficulty")
    return [_difficulty(prompt, measured.get(content_key(prompt), ()), cfg) for prompt in prompts]


def _difficulty(prompt: Prompt, rows: Sequence[Mapping[str, Any]], cfg: Config) -> Fraction:
    try:
        tried, correct = (sum(int(row[key]) for row in rows) for key in ("samples", "correct"))
    except (KeyError, TypeError, ValueError) as error:
        fix = "give the dataset of a stage with loop: generate and build: boundary"
        raise DataError(
            "build.difficulty", f"'{cfg.difficulty}' counts no right answers: {error!r}", fix=fix
        ) from error
    if not tried:
        problem = f"'{cfg.difficulty}' says nothing of prompt {prompt.id}"
        fix = "let that stage draw every prompt: its steps times prompts_per_step are to be as many as there are"
        raise DataError("build.difficulty", problem, fix=fix)
    return 1 - Fraction(correct, tried)

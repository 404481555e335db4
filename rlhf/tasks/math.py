r"""MATH: competition problems whose worked solution holds the answer in its last `\boxed{}`.

Source: Hendrycks et al. 2021, "Measuring Mathematical Problem Solving with the MATH Dataset" (arXiv 2103.03874). Their
reader counts escaped braces as braces; ours does not (`\{`), so that sets and cases with one brace stay whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rlhf.core.errors import DataError
from rlhf.core.types import Prompt
from rlhf.tasks import common
from rlhf.tasks.common import DatasetConfig, Problem, PromptSets, ReadRows, Row

DESCRIPTION = r"competition problems (MATH) with \boxed answers, from the hub or a local file"
REWARDS: dict[str, dict[str, Any]] = {"math": {}}
"""Default reward slots."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_UNBRACED = re.compile(r"[^\s${}]+")


@dataclass(frozen=True, kw_only=True)
class Config(DatasetConfig):
    """Which rows to read and how to phrase them."""

    train: str = "DigitalLearningGmbH/MATH-lighteval"
    """Training rows: a .jsonl, .json or .parquet file, or a Hugging Face dataset id."""
    test: str | None = "DigitalLearningGmbH/MATH-lighteval"
    """Held-out rows, named like `train`. null: hold out a share of the training rows."""
    subset: str = ""
    """Configuration of the hub dataset. Files ignore it."""
    instruction: str = "Put your final answer within \\boxed{}."
    """A line added below the problem; empty for none."""
    question_field: str = "problem"
    """Column of the problem."""
    answer_field: str = "solution"
    """Column of the worked solution that holds the boxed answer."""


def build(cfg: Config, *, seed: int, rows: ReadRows) -> PromptSets:
    """Read both sets.

    Raises:
        DataError: a dataset that cannot be read, or a row without problem or boxed answer; names file and row.
    """

    def read(row: Row, where: str) -> Problem:
        question = common.text_field(row, cfg.question_field, where=where, setting="task.question_field")
        solution = common.text_field(row, cfg.answer_field, where=where, setting="task.answer_field")
        gold = last_boxed(solution)
        if not gold:
            raise DataError(
                where,
                f"column '{cfg.answer_field}' holds no closed, non-empty \\boxed{{}}",
                fix="box the final answer of this solution, or remove the row",
            )
        return Problem(question=question.strip(), gold=gold, solution=solution.strip())

    used = (cfg.question_field, cfg.answer_field)
    return common.from_rows("math", cfg, seed=seed, rows=rows, read=read, used=used)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads."""
    return common.dataset_sources(cfg)


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct."""
    return common.reference(prompt)


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}` or `\fbox{…}`, or of the form without braces (`\boxed 5`).

    Returns:
        The content without surrounding space; None where there is no box or the last one is never closed.
    """
    starts = list(_BOX.finditer(text))
    if not starts:
        return None
    start = starts[-1].end()
    if not text.startswith("{", start):
        found = _UNBRACED.match(text, start)
        return found.group().rstrip(".,") if found else None
    depth, at = 0, start
    while at < len(text):
        if text[at] == "\\":
            at += 1  # the escaped character, be it a brace, is content
        elif text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : at].strip()
        at += 1
    return None

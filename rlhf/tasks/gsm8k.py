"""GSM8K: grade-school word problems with a worked solution that ends in `#### N`.

Source: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems" (arXiv 2110.14168). The gold is what stands
after the last `####`, without thousands commas, as in the authors' own evaluation. Any dataset of this shape works.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rlhf.core.errors import DataError
from rlhf.core.types import Prompt
from rlhf.tasks import common
from rlhf.tasks.common import DatasetConfig, Problem, PromptSets, ReadRows, Row

DESCRIPTION = "grade-school word problems (GSM8K), from the hub or a local file"
REWARDS: dict[str, dict[str, Any]] = {"math": {"integer_gold_needs_literal": True}}
"""Default reward slots. Answers are numbers; a formula that still has to be worked out is none."""

_CALCULATOR = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True, kw_only=True)
class Config(DatasetConfig):
    """Which rows to read and how to phrase them."""

    train: str = "openai/gsm8k"
    """Training rows: a .jsonl, .json or .parquet file, or a Hugging Face dataset id."""
    test: str | None = "openai/gsm8k"
    """Held-out rows, named like `train`. null: hold out a share of the training rows."""
    subset: str = "main"
    """Configuration of the hub dataset. Files ignore it."""
    instruction: str = "Put your final answer after ####."
    """A line added below the question; empty for none."""
    question_field: str = "question"
    """Column of the problem."""
    answer_field: str = "answer"
    """Column of the worked solution that ends in `#### N`."""
    strip_calculator: bool = True
    """Remove the `<<48/2=24>>` calculator annotations from the solutions that supervised stages learn."""


def build(cfg: Config, *, seed: int, rows: ReadRows) -> PromptSets:
    """Read both sets.

    Raises:
        DataError: a dataset that cannot be read, or a row without question or gold; names file and row.
    """

    def read(row: Row, where: str) -> Problem:
        question = common.text_field(row, cfg.question_field, where=where, setting="task.question_field")
        answer = common.text_field(row, cfg.answer_field, where=where, setting="task.answer_field")
        return _problem(question, answer, where=where, cfg=cfg)

    used = (cfg.question_field, cfg.answer_field)
    return common.from_rows("gsm8k", cfg, seed=seed, rows=rows, read=read, used=used)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads."""
    return common.dataset_sources(cfg)


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct."""
    return common.reference(prompt)


def _problem(question: str, answer: str, *, where: str, cfg: Config) -> Problem:
    worked, marker, tail = answer.rpartition("####")
    gold = tail.strip().replace(",", "")
    if not marker or not gold or "\n" in gold:
        raise DataError(
            where,
            f"column '{cfg.answer_field}' does not end in '#### N': …{answer[-40:]!r}",
            fix="end the solution with a line '#### ' and the answer, or remove this row",
        )
    if cfg.strip_calculator:
        worked = _CALCULATOR.sub("", worked)
    return Problem(question=question.strip(), gold=gold, solution=f"{worked.strip()}\n#### {gold}".lstrip())

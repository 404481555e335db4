"""Programming problems with tests, in the record formats of the usual datasets.

APPS (Hendrycks et al. 2021, arXiv 2105.09938), TACO, CodeContests, MBPP (Austin et al. 2021, arXiv 2108.07732),
HumanEval: `rewards/code/cases.py` says which columns hold their tests. All columns but the question go to the reward.

    MBPP         {question_field: text, solution_field: code}; the model must be told how the function is called: `asks`
    HumanEval    {question_field: prompt, solution_field: '', keep_question: true}, rewards.code.prefix_column: prompt
    APPS         {question_field: question, solution_field: solutions}
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Any, cast

from rlhf.core.errors import DataError
from rlhf.core.types import Prompt
from rlhf.tasks import common
from rlhf.tasks.common import DatasetConfig, Problem, PromptSets, ReadRows, Row

DESCRIPTION = "programming problems with tests (MBPP, APPS, HumanEval, …), from the hub or a local file"
REWARDS: dict[str, dict[str, Any]] = {"code": {}}
"""Default reward slots."""


@dataclass(frozen=True, kw_only=True)
class Config(DatasetConfig):
    """Which rows to read and how to phrase them."""

    train: str = "google-research-datasets/mbpp"
    """Training rows: a .jsonl, .json or .parquet file, or a Hugging Face dataset id."""
    test: str | None = "google-research-datasets/mbpp"
    """Held-out rows, named like `train`. null: hold out a share of the training rows."""
    subset: str = "full"
    """Configuration of the hub dataset. Files ignore it."""
    instruction: str = "Answer with one ```python block that holds the whole program."
    """A line added below the question; empty for none."""
    question_field: str = "text"
    """Column of the question."""
    solution_field: str = "code"
    """Column of a program that solves it, or of several, the first of which is taken; empty for none, which leaves
    nothing to train on in supervised stages."""
    asks: int = 1
    """Tests of the column `test_list` that are shown with the question, which name the function; the rest is hidden."""
    keep_question: bool = False
    """Hand the column of the question to the reward as well."""


def build(cfg: Config, *, seed: int, rows: ReadRows) -> PromptSets:
    """Read both sets.

    Raises:
        DataError: a dataset that cannot be read, or a row without question or solution; names file and row.
    """

    def read(row: Row, where: str) -> Problem:
        question = common.text_field(row, cfg.question_field, where=where, setting="task.question_field").strip()
        shown = [str(test) for test in (row.get("test_list") or ())][: cfg.asks]
        if shown:
            question = "\n".join([question, "It must pass:", *shown])
        program = _program(row, cfg.solution_field, where) if cfg.solution_field else ""
        solution = f"```python\n{program.strip()}\n```" if program else ""
        return Problem(question=question, gold=program, solution=solution)

    used = () if cfg.keep_question else (cfg.question_field,)
    return common.from_rows("code", cfg, seed=seed, rows=rows, read=read, used=used)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads."""
    return common.dataset_sources(cfg)


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct, where the data has one."""
    return common.reference(prompt)


def _program(row: Row, name: str, where: str) -> str:
    """A program, or the first of a list, which APPS holds as JSON in a text."""
    value = row.get(name)
    if isinstance(value, str) and value.lstrip().startswith('["'):
        with contextlib.suppress(ValueError):  # a program that looks like a list
            value = json.loads(value)
    if isinstance(value, list) and value:
        value = cast("list[object]", value)[0]
    if not isinstance(value, str) or not value.strip():
        fix = "set task.solution_field to a column with a program, or to '' where the data has none"
        raise DataError(where, f"column '{name}' holds no program", fix=fix)
    return value

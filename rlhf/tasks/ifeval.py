"""Instructions that a program can check: rows in the record format of IFEval, or of open-instruct.

    {"key": 1001, "prompt": "…", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    {"key": "…", "messages": [{"role": "user", "content": "…"}],
     "ground_truth": "[{'instruction_id': ['punctuation:no_comma'], 'kwargs': [None]}]"}

Sources: Zhou et al. 2023, IFEval (arXiv 2311.07911); Pyatkin et al. 2025 (arXiv 2507.02833), whose training set is the
default here, IFEval being held out. A row is of the second kind when it has no `instruction_id_list`. The gold of a
prompt is its record as JSON, for the reward `constraints`; every record is checked when it is read, and a bad one is an
error that names its row. There are no worked answers, unless a column has them.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from rlhf.core.errors import DataError
from rlhf.core.instructions import LANGUAGE_PACKAGE, NEEDS_LANGUAGE, Instruction, read_record, write_gold
from rlhf.core.types import Prompt
from rlhf.tasks import common
from rlhf.tasks.common import DatasetConfig, Problem, PromptSets, ReadRows, Row

DESCRIPTION = "prompts with instructions that a program can check (IFEval), from the hub or a local file"
REWARDS: dict[str, dict[str, Any]] = {"constraints": {}}
"""Default reward slots."""

_IDS, _TRUTH, _MESSAGES = "instruction_id_list", "ground_truth", "messages"


@dataclass(frozen=True, kw_only=True)
class Config(DatasetConfig):
    """Which rows to read."""

    train: str = "allenai/IF_multi_constraints_upto5"
    """Training rows: a .jsonl, .json or .parquet file, or a Hugging Face dataset id."""
    test: str | None = "google/IFEval"
    """Held-out rows, named like `train`. null: hold out a share of the training rows."""
    subset: str = ""
    """Configuration of the hub dataset. Files ignore it."""
    test_split: str = "train"
    """Split of a hub dataset to hold out; IFEval has one of this name only. Files ignore it."""
    instruction: str = ""
    """A line added below the prompt; empty for none."""
    question_field: str = "prompt"
    """Column of the prompt, in rows of the first kind."""
    response_field: str = ""
    """Column of an answer that follows all instructions, which supervised stages learn; empty for none."""


def build(cfg: Config, *, seed: int, rows: ReadRows) -> PromptSets:
    """Read both sets.

    Raises:
        DataError: a dataset that cannot be read, a row without prompt, an unknown instruction or wrong arguments, or
            one whose check needs a package that is not installed; names file and row.
    """

    def read(row: Row, where: str) -> Problem:
        told = _told(row, where)
        _check_package(told, where)
        solution = None
        if cfg.response_field:
            solution = common.text_field(row, cfg.response_field, where=where, setting="task.response_field")
        return Problem(question=_question(row, where, cfg), gold=write_gold(told), solution=solution)

    used = (cfg.question_field, cfg.response_field, _IDS, "kwargs", _TRUTH, _MESSAGES)
    return common.from_rows("ifeval", cfg, seed=seed, rows=rows, read=read, used=used)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads."""
    return common.dataset_sources(cfg)


def reference(prompt: Prompt) -> str | None:
    """The answer of the row, None where it has none."""
    return prompt.solution


def _told(row: Row, where: str) -> tuple[Instruction, ...]:
    if _IDS in row or _TRUTH not in row:
        return read_record(row, where=where)
    found = row[_TRUTH]
    try:
        # A literal of Python, which is not run.
        listed = ast.literal_eval(found) if isinstance(found, str) else found
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise _bad_truth(where, found) from error
    if not isinstance(listed, list | tuple) or len(listed) != 1 or not isinstance(listed[0], Mapping):
        raise _bad_truth(where, found)
    record = cast("Mapping[str, Any]", listed[0])
    return read_record({_IDS: record.get("instruction_id"), "kwargs": record.get("kwargs")}, where=where)


def _bad_truth(where: str, found: Any) -> DataError:
    problem = f"column '{_TRUTH}' holds {str(found)[:80]!r}, not a list of one record"
    return DataError(where, problem, fix="write \"[{'instruction_id': […], 'kwargs': […]}]\", or remove this row")


def _question(row: Row, where: str, cfg: Config) -> str:
    if cfg.question_field in row or _MESSAGES not in row:
        return common.text_field(row, cfg.question_field, where=where, setting="task.question_field")
    turns = row[_MESSAGES]
    if isinstance(turns, list | tuple) and len(turns) == 1 and isinstance(turns[0], Mapping):
        turn = cast("Mapping[str, Any]", turns[0])
        if turn.get("role") == "user":
            return common.text_field(turn, "content", where=where, setting="the message's content")
    problem = f"column '{_MESSAGES}' holds {str(turns)[:80]!r}, not one message of the user"
    raise DataError(where, problem, fix="write one message, or a column 'prompt'")


def _check_package(told: tuple[Instruction, ...], where: str) -> None:
    for instruction in told:
        if instruction.id in NEEDS_LANGUAGE and importlib.util.find_spec(LANGUAGE_PACKAGE) is None:
            problem = f"{instruction.id} needs the package {LANGUAGE_PACKAGE}, which is not installed"
            raise DataError(where, problem, fix="pip install 'rlhf[constraints]', or remove this row and its like")

"""Where the texts of a dataset row stand: the questions of an evaluation set, all that a training row says, and the one
answer that is learnt from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from rlhf.core.errors import DataError, did_you_mean
from rlhf.core.types import Message, Prompt
from rlhf.data import turns

QUESTIONS = ("question", "problem", "prompt", "instruction", "input", "messages", "text")
"""Columns that a question usually stands in; the first that a row has counts."""
_SPOKEN = "content"
"""What a turn of a conversation says; its other keys say who does."""


def asked(row: Mapping[str, Any], columns: Sequence[str], *, where: str) -> list[str]:
    """The question of an evaluation row, one text per column.

    Args:
        columns: where it stands; empty for the first of the usual ones.

    Raises:
        DataError: the row has no such column, or no text in it.
    """
    usual = next((name for name in QUESTIONS if name in row), None)
    named = list(columns) or ([usual] if usual is not None else [])
    if not named:
        raise DataError(where, "has none of the usual columns of questions", fix="name one: `asked=[COLUMN]`")
    return [" ".join(_column(row, name, where)) for name in named]


def said(row: Mapping[str, Any], columns: Sequence[str], *, where: str) -> list[str]:
    """The texts of a training row.

    Args:
        columns: where they stand; empty for every text in the row, however deep.

    Raises:
        DataError: the row has no such column.
    """
    if not columns:
        return list(_texts(row))
    return [text for name in columns for text in _column(row, name, where)]


def of_prompt(prompt: Prompt) -> list[str]:
    """The texts of a training prompt: its question, and the solution that may be learnt."""
    return [message.content for message in prompt.messages] + [prompt.solution or ""]


def question(prompt: Prompt) -> str:
    """What a held-out prompt asks, without what a system turn says of every one."""
    return "\n".join(message.content for message in prompt.messages if message.role != "system")


def answered(row: Mapping[str, Any], *, where: str) -> tuple[Prompt, str]:
    """The question of a row with its gold and all its columns, and the one answer that is learnt from it.

    Raises:
        DataError: it has no gold, or no single answer.
    """
    gold = row.get("gold")
    if not isinstance(gold, str | int | float):
        fix = "add one, or leave care.noise.leave_out empty"
        raise DataError(where, "has no `gold` that its answer could be checked by", fix=fix)
    found: Any = row.get("messages")
    if (completion := row.get("completion")) is not None:
        asked, text = turns.question(row, where), turns.answer(completion, where, "completion")
    elif turns.is_turns(found) and found[-1]["role"] == turns.ASSISTANT:
        *asked, last = turns.messages(found, where, "`messages`")
        text = last.content
    else:
        fix = "give it a `completion`, or `messages` that end with the assistant's, or leave care.noise.leave_out empty"
        raise DataError(where, f"holds no single answer: it has the columns {', '.join(row)}", fix=fix)
    return Prompt(id=where, messages=tuple[Message, ...](asked), gold=str(gold), task=where, columns=row), text


def _column(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    if name not in row:
        raise DataError(where, f"has no column '{name}'", fix=did_you_mean(name, map(str, row)))
    return list(_texts(row[name]))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value; of a turn of a conversation, what it says."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        found = cast("Mapping[str, Any]", value)
        spoken = isinstance(found.get("role"), str) and _SPOKEN in found
        for inner in (found[_SPOKEN],) if spoken else found.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in cast("Sequence[Any]", value):
            yield from _texts(inner)

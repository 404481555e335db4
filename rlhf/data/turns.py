"""Conversations in dataset rows: what all kinds of examples read alike.

A question is a text `prompt`, or a list of turns, `messages` or `prompt`; an answer is a text, or a list of one turn of
the assistant. Everything else is a `DataError` that names the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from rlhf.core.errors import DataError
from rlhf.core.types import Message

ASSISTANT = "assistant"
_TURNS = 'give it a text, or [{"role": …, "content": …}, …]'

Row = Mapping[str, Any]


def question(row: Row, where: str) -> tuple[Message, ...]:
    """What is asked, in `messages` or `prompt`.

    Raises:
        DataError: it is neither a text nor turns.
    """
    given = row.get("messages") or row.get("prompt")
    if isinstance(given, str):
        return (Message(role="user", content=given),)
    return messages(given, where, "`prompt` or `messages`")


def answer(given: Any, where: str, name: str) -> str:
    """The text of an answer.

    Raises:
        DataError: it is neither a text nor one turn of the assistant.
    """
    if isinstance(given, str):
        return given
    turns = messages(given, where, f"`{name}`")
    if len(turns) != 1 or turns[0].role != ASSISTANT:
        roles = ", ".join(turn.role for turn in turns)
        refuse(where, f"`{name}` holds the turns {roles}", "let it be one turn of the assistant, or a text")
    return turns[0].content


def messages(given: Any, where: str, what: str) -> tuple[Message, ...]:
    """A list of turns.

    Raises:
        DataError: it is none.
    """
    if not is_turns(given):
        refuse(where, f"{what} is {given!r:.80}, neither text nor turns", _TURNS)
    return tuple(Message(role=turn["role"], content=turn["content"]) for turn in given)


def is_turns(given: Any) -> bool:
    """Whether something is a list of turns, with at least one."""
    return (
        isinstance(given, Sequence)
        and not isinstance(given, str)
        and bool(given)
        and all(
            isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
            for turn in given
        )
    )


def refuse(where: str, problem: str, fix: str) -> NoReturn:
    """Say what is wrong with a row."""
    raise DataError(where, problem, fix=fix)

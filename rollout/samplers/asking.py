"""Asking the policy about an answer of its own: the question, the answer, and what is to be said of it, as turns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlhf.core.search import Draft, SearchTools
from rlhf.core.types import Message


def talk(tools: SearchTools, *turns: str) -> list[Message]:
    """The question and further turns, of the policy and the user in turn."""
    roles = ("assistant", "user")
    return [*tools.prompt.messages, *(Message(role=roles[i % 2], content=text) for i, text in enumerate(turns))]


async def reply(tools: SearchTools, messages: Sequence[Message]) -> Draft:
    """What the policy says next; it has as much room as an answer."""
    [[said]] = await tools.extend([tools.begin(messages)])
    return said


def last_word(text: str, words: Sequence[str]) -> str | None:
    """The one of these words that a text says last, whatever their case; None where it says none."""
    pattern = "|".join(rf"\b{re.escape(word)}\b" for word in words)
    found = re.findall(pattern, text, re.IGNORECASE)
    return found[-1].lower() if found else None

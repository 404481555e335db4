"""Rewards that a user might bring, good ones and bad ones. Loaded by name from the configs of these tests."""

from __future__ import annotations

import math


def even_digits(completions: list[str], **_: object) -> list[float]:
    """1 for an even number of digits: something that an untrained model gets right now and then."""
    return [float(sum(c.isdigit() for c in text) % 2 == 0) for text in completions]


def moody(completions: list[str], answer: list[str], **_: object) -> list[float | None]:
    """Raises for some prompts, and for others gives nan, None, or a grade."""
    mood = int(answer[0]) % 4
    if mood == 0:
        raise RuntimeError("no mood for this one")
    special: list[float | None] = [math.nan, None, 1.0]
    return [special[mood - 1], *even_digits(completions[1:])]


def broken(completions: list[str], **_: object) -> list[float]:
    """Always raises."""
    raise RuntimeError("out of order")


def unlike_any(essay: str) -> float:
    """Takes what no one offers."""
    return float(len(essay))

"""A question and one answer to it: every token of the answer is learnt, none of the question.

Rows hold `prompt`, or `messages` of role and content, and `completion`: TRL's prompt-completion format.
A task gives its prompts that have a worked solution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf.core.errors import DataError
from rlhf.core.training import Sample
from rlhf.core.types import Message, Prompt
from rlhf.data.render import render_solution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """A question whose `solution` is to be learnt."""

    prompt: Prompt


def read(row: Mapping[str, Any], cfg: Config, *, where: str, name: str) -> Solved:
    """A row of `messages` or `prompt`, and `completion`."""
    turns = row.get("messages") or [{"role": "user", "content": row.get("prompt")}]
    if not isinstance(row.get("completion"), str) or not isinstance(turns, list) or not all(map(_is_turn, turns)):
        problem = f"cannot be learnt from: it has the columns {', '.join(row)}"
        fix = 'give every row a text `completion`, and a text `prompt` or `messages` [{"role": …, "content": …}]'
        raise DataError(where, problem, fix=fix)
    messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)
    gold = str(row.get("gold", ""))
    return Solved(prompt=Prompt(id=name, messages=messages, gold=gold, task=name, solution=row["completion"]))


def given(prompt: Prompt, cfg: Config) -> Solved | None:
    """The prompt, if it has a worked solution."""
    return None if prompt.solution is None else Solved(prompt=prompt)


def render(example: Solved, cfg: Config, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """One sample, whose targets are the solution and EOS."""
    rendered = render_solution(tokenizer, example.prompt)
    return [Sample(id=example.prompt.id, tokens=rendered.tokens, target_start=rendered.target_start)]


def _is_turn(turn: object) -> bool:
    return isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)

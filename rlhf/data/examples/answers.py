"""A question and several answers to it, whole ones and beginnings: a unit of samples, one per answer.

Rows hold `prompt`, or `messages` of role and content, `completions`, texts each of which answers it, and `beginnings`,
texts from which a right answer can be reached; either list may be empty. What `build: {name: self_sampled}` of a
generate stage writes. Only a whole answer teaches to end: a beginning has no EOS. A task gives the worked solution of
each of its prompts as the only answer.

Source: Ni et al. 2022 (arXiv 2205.14318), fully and partially correct solutions, section 3; see `rlhf.losses.mml` for
what is made of them. Any other loss may learn from the samples too: `ce` learns all of them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.training import Sample
from rlhf.core.types import Message, Prompt
from rlhf.data.render import eos_id, render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many answers a question may have."""

    max_answers: int = 0
    """Answers per question, the first ones, whole ones before beginnings; 0 takes all. They have to fit one micro-batch
    together."""

    def __post_init__(self) -> None:
        if self.max_answers < 0:
            raise ConfigError("max_answers", f"{self.max_answers} is negative", fix="use 8, or 0 for all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A question with its answers."""

    prompt: Prompt
    completions: tuple[str, ...]
    beginnings: tuple[str, ...] = ()


def read(row: Mapping[str, Any], cfg: Config, *, where: str, name: str) -> Answered:
    """A row of `messages` or `prompt`, `completions` and `beginnings`."""
    turns = row.get("messages") or [{"role": "user", "content": row.get("prompt")}]
    lists = [row.get("completions") or [], row.get("beginnings") or []]
    usable = isinstance(turns, list) and all(map(_is_turn, turns)) and all(map(_is_texts, lists)) and any(lists)
    if not usable:
        fix = 'give every row a list of texts `completions`, and a `prompt` or `messages` [{"role": …, "content": …}]'
        raise DataError(where, f"holds no answers: it has the columns {', '.join(row)}", fix=fix)
    messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)
    prompt = Prompt(id=name, messages=messages, gold=str(row.get("gold", "")), task=name)
    completions, beginnings = (tuple(dict.fromkeys(texts)) for texts in lists)
    return Answered(prompt=prompt, completions=completions, beginnings=beginnings)


def given(prompt: Prompt, cfg: Config) -> Answered | None:
    """The prompt with its worked solution, if it has one."""
    return None if prompt.solution is None else Answered(prompt=prompt, completions=(prompt.solution,))


def render(example: Answered, cfg: Config, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """One sample per answer, all of one unit."""
    before, end = render_prompt(tokenizer, example.prompt), (eos_id(tokenizer),)
    answers = [(text, end) for text in example.completions] + [(text, ()) for text in example.beginnings]
    return [
        Sample(
            id=f"{example.prompt.id}/{place}",
            tokens=(*before, *tokenizer.encode(text, add_special_tokens=False), *ending),
            target_start=len(before),
            unit=example.prompt.id,
        )
        for place, (text, ending) in enumerate(answers[: cfg.max_answers or None])
    ]


def _is_turn(turn: object) -> bool:
    return isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def _is_texts(texts: object) -> bool:
    return isinstance(texts, list) and all(isinstance(text, str) and text for text in texts)

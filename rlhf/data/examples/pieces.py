"""An answer in pieces, of which only some are learnt: what a tool said is read, and never predicted.

    {"prompt": "12*34+5=", "pieces": [{"text": "[12*34]"}, {"text": "=408\\n", "learn": false}, {"text": "#### 413"}]}

Rows hold `prompt`, or `messages` of role and content, and `pieces`; a piece is learnt unless it says `learn: false`. A
task gives its prompts that have a column `pieces`. Pieces are tokenized one by one, since whoever samples with tools
puts the tokens of a result behind those that were sampled. The loss of tool results is masked as in Toolformer's and
ReAct's successors, for example Search-R1 (Jin et al. 2025, arXiv 2503.09516, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf.core.errors import DataError
from rlhf.core.training import Sample
from rlhf.core.types import Message, Prompt
from rlhf.data.render import eos_id, render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Example: `Piece("=408\\n", learn=False)`."""

    text: str
    learn: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A question and an answer in pieces, at least one of which is learnt."""

    prompt: Prompt
    pieces: tuple[Piece, ...]


def read(row: Mapping[str, Any], cfg: Config, *, where: str, name: str) -> Transcript:
    """A row of `messages` or `prompt`, and `pieces`."""
    turns = row.get("messages") or [{"role": "user", "content": row.get("prompt")}]
    if not isinstance(turns, list) or not all(map(_is_turn, turns)):
        fix = 'give every row a text `prompt`, or `messages` [{"role": …, "content": …}]'
        raise DataError(where, f"has no question: it has the columns {', '.join(row)}", fix=fix)
    messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)
    prompt = Prompt(id=name, messages=messages, gold=str(row.get("gold", "")), task=name)
    return Transcript(prompt=prompt, pieces=_pieces(row.get("pieces"), where))


def given(prompt: Prompt, cfg: Config) -> Transcript | None:
    """The prompt, if it has a worked answer in pieces."""
    pieces = prompt.columns.get("pieces")
    return None if pieces is None else Transcript(prompt=prompt, pieces=_pieces(pieces, f"prompt {prompt.id}"))


def render(example: Transcript, cfg: Config, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """One sample, whose targets are the tokens of the pieces to learn, and EOS."""
    before = render_prompt(tokenizer, example.prompt)
    tokens, mask = list(before), list[bool]()
    for piece in example.pieces:
        added = tokenizer.encode(piece.text, add_special_tokens=False)
        tokens += added
        mask += [piece.learn] * len(added)
    tokens.append(eos_id(tokenizer))
    mask.append(True)
    sample = Sample(id=example.prompt.id, tokens=tuple(tokens), target_start=len(before), target_mask=tuple(mask))
    return [sample]


def _pieces(value: Any, where: str) -> tuple[Piece, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(map(_is_piece, value)):
        fix = 'write [{"text": "[12*34]"}, {"text": "=408", "learn": false}, …]'
        raise DataError(where, f"its pieces are {str(value)[:80]!r}", fix=fix)
    found = tuple(Piece(piece["text"], piece.get("learn", True)) for piece in value)
    if not any(piece.learn for piece in found):
        raise DataError(where, "has no piece to learn", fix="leave out `learn: false` of those that the model writes")
    return found


def _is_piece(value: object) -> bool:
    return (
        isinstance(value, Mapping) and isinstance(value.get("text"), str) and value.get("learn", True) in (True, False)
    )


def _is_turn(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)

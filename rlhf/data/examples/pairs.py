"""A question and two answers to it, of which one is the better: for DPO and its kin, and for reward models.

Rows are told apart by what `chosen` and `rejected` are:

    chosen, rejected    beside                    format
    texts               `prompt` or `messages`    ours, and TRL's with an explicit prompt; what a generate stage with
                                                  `build: {name: pairs}` writes
    one turn each       `prompt`, text or turns   TRL's, conversational
    conversations       perhaps `prompt`          TRL's with an implicit prompt, UltraFeedback binarized: alike up to
                                                  the last turn, which is the answer
    transcripts         nothing                   Anthropic's HH: `\\n\\nHuman: …\\n\\nAssistant: …`, alike up to the
                                                  last answer
    texts               nothing                   TRL's with an implicit prompt: what both begin with is the question

`beginning` is a text that both answers go on from: part of the question for the loss. `open`, true or false, says that
they are no ends of answers, and get no end token. Steps with and without an error have both (`rlhf.data.build.rise`). A
number `margin` says how much better the chosen answer is (Llama 2, arXiv 2307.09288); a reward model may ask for it. A
task gives pairs in the columns `chosen` and `rejected` of its prompts.

Both answers become a sample each, with the same prompt and their end, in one unit: the loss sees them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from rlhf.core.errors import ConfigError
from rlhf.core.training import Labels, Sample
from rlhf.core.types import Message, Prompt
from rlhf.data import turns
from rlhf.data.render import eos_id, render_prompt
from rlhf.data.turns import refuse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LABELS = Labels.PAIRS
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@dataclass(frozen=True, kw_only=True)
class Config:
    """How pairs become samples."""

    edited_weight: float = 1.0
    """What a token counts that the other answer does not have in its place, as `difflib` finds it; others count 1. A
    reward model, which reads whole answers, has no use for it."""

    def __post_init__(self) -> None:
        if not 0 < self.edited_weight < math.inf:
            raise ConfigError("edited_weight", f"{self.edited_weight} is out of range", fix="use 1, or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A question with a better and a worse answer."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float = 0.0
    beginning: str = ""
    open: bool = False


def read(row: Mapping[str, Any], cfg: Config, *, where: str, name: str) -> Pair:
    """A row of any of the formats.

    Raises:
        DataError: no known format, or the two answers do not belong to one question.
    """
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if chosen is None or rejected is None:
        fix = "give every row `chosen` and `rejected`, and a `prompt` or `messages`"
        refuse(where, f"is no pair of answers: it has the columns {', '.join(row)}", fix)
    if turns.is_turns(chosen) and turns.is_turns(rejected) and (len(chosen) > 1 or len(rejected) > 1):
        messages, answers = _conversations(chosen, rejected, where)
    elif row.get("prompt") or row.get("messages"):
        messages = turns.question(row, where)
        answers = (turns.answer(chosen, where, "chosen"), turns.answer(rejected, where, "rejected"))
    elif isinstance(chosen, str) and isinstance(rejected, str):
        messages, answers = _texts(chosen, rejected, where)
    else:
        fix = "give it a `prompt`, or whole conversations as `chosen` and `rejected`"
        refuse(where, "has answers but no question", fix)
    if row.get("open") is True and not all(answers):
        refuse(where, "is open, so that nothing stands in its empty answer", "remove it")
    prompt = Prompt(id=name, messages=messages, gold=str(row.get("gold", "")), task=name)
    return Pair(
        prompt=prompt,
        chosen=answers[0],
        rejected=answers[1],
        margin=_margin(row.get("margin"), where),
        beginning=_beginning(row.get("beginning"), where),
        open=row.get("open") is True,
    )


def given(prompt: Prompt, cfg: Config) -> Pair | None:
    """The pair that a task gives with a prompt."""
    chosen, rejected = prompt.columns.get("chosen"), prompt.columns.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return None
    return Pair(prompt=prompt, chosen=chosen, rejected=rejected)


def render(example: Pair, cfg: Config, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """The chosen answer, then the rejected one."""

    def encoded(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    asked = (*render_prompt(tokenizer, example.prompt), *encoded(example.beginning))
    end = () if example.open else (eos_id(tokenizer),)
    better, worse = ((*encoded(text), *end) for text in (example.chosen, example.rejected))
    weights = _weights(better, worse, cfg.edited_weight) if cfg.edited_weight != 1 else (None, None)
    sides = (("chosen", better, 1.0, weights[0]), ("rejected", worse, 0.0, weights[1]))
    return [
        Sample(
            id=f"{example.prompt.id}/{name}",
            tokens=(*asked, *tokens),
            target_start=len(asked),
            unit=example.prompt.id,
            label=label,
            anchor=example.margin,
            weights=own,
        )
        for name, tokens, label, own in sides
    ]


def _weights(one: Sequence[int], other: Sequence[int], edited: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What each token of two answers counts."""
    rows = ([edited] * len(one), [edited] * len(other))
    for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks():
        for row, start in zip(rows, (block.a, block.b), strict=True):
            row[start : start + block.size] = [1.0] * block.size
    return tuple(rows[0]), tuple(rows[1])


def _conversations(chosen: Any, rejected: Any, where: str) -> tuple[tuple[Message, ...], tuple[str, str]]:
    """Two conversations that differ in their last turn."""
    one, other = turns.messages(chosen, where, "`chosen`"), turns.messages(rejected, where, "`rejected`")
    if one[:-1] != other[:-1] or {one[-1].role, other[-1].role} != {turns.ASSISTANT}:
        fix = "let both be the same up to the last turn, which is the assistant's"
        refuse(where, "`chosen` and `rejected` are no two answers to the same conversation", fix)
    return one[:-1], (one[-1].content, other[-1].content)


def _texts(chosen: str, rejected: str, where: str) -> tuple[tuple[Message, ...], tuple[str, str]]:
    """Two transcripts, or two texts of which the question has to be told by what they have in common."""
    if chosen.lstrip().startswith(HUMAN.strip()):
        return _conversations(_transcript(chosen, where), _transcript(rejected, where), where)
    # A space before the first difference belongs to the answers, as in TRL.
    shared = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False)))
    asked = chosen[:shared].removesuffix(" ")
    answers = (chosen[len(asked) :], rejected[len(asked) :])
    if not asked or not all(answers):
        fix = "give the row a `prompt`"
        refuse(where, "`chosen` and `rejected` do not begin with the same question and then differ", fix)
    return (Message(role="user", content=asked),), answers


def _transcript(text: str, where: str) -> list[dict[str, str]]:
    """Turns of a text in which `Human:` and `Assistant:` take them."""
    out: list[dict[str, str]] = []
    for piece in ("\n\n" + text.lstrip()).split(HUMAN)[1:]:
        said, *replies = piece.split(ASSISTANT)
        out.append({"role": "user", "content": said.strip()})
        out += [{"role": turns.ASSISTANT, "content": reply.strip()} for reply in replies]
    if len(out) < 2:
        refuse(where, "is a transcript without an answer", "let `Assistant:` follow on `Human:`")
    return out


def _beginning(given: Any, where: str) -> str:
    if given is not None and not isinstance(given, str):
        refuse(where, f"has the beginning {given!r:.40}", "use a text, or leave the column out")
    return given or ""


def _margin(given: Any, where: str) -> float:
    if given is None:
        return 0.0
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        refuse(where, f"has the margin {given!r}", "use a number, or leave the column out")
    return float(given)

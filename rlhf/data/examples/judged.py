"""A question and one answer to it, which is good or bad: for KTO.

Rows hold `prompt` or `messages`, `completion`, and `label`, true or false: TRL's unpaired format, plain or
conversational. Rows of a generate stage with `select: all` say it by their `verdict` instead: what is not correct is
bad. A task has no judged answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf.core.training import Labels, Sample
from rlhf.core.types import Prompt, Verdict
from rlhf.data import turns
from rlhf.data.render import eos_id, render_prompt
from rlhf.data.turns import refuse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LABELS = Labels.JUDGED


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A question with an answer of which it is known whether it is good."""

    prompt: Prompt
    completion: str
    good: bool


def read(row: Mapping[str, Any], cfg: Config, *, where: str, name: str) -> Judged:
    """A row with its label, or its verdict.

    Raises:
        DataError: it has neither, or no question or answer.
    """
    label = row.get("label")
    if label is None and isinstance(row.get("verdict"), str):
        label = row["verdict"] == Verdict.CORRECT
    if not isinstance(label, bool) and label not in (0, 1):
        columns = ", ".join(row)
        refuse(where, f"has the label {label!r}: its columns are {columns}", "give it `label`, true or false")
    if row.get("completion") is None:
        refuse(where, f"has no answer: its columns are {', '.join(row)}", "give it a text `completion`")
    prompt = Prompt(id=name, messages=turns.question(row, where), gold=str(row.get("gold", "")), task=name)
    return Judged(prompt=prompt, completion=turns.answer(row["completion"], where, "completion"), good=bool(label))


def given(prompt: Prompt, cfg: Config) -> Judged | None:
    """Nothing."""
    return None


def render(example: Judged, cfg: Config, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """One sample, whose targets are the answer and its end."""
    asked = render_prompt(tokenizer, example.prompt)
    answer = (*tokenizer.encode(example.completion, add_special_tokens=False), eos_id(tokenizer))
    return [Sample(id=example.prompt.id, tokens=(*asked, *answer), target_start=len(asked), label=float(example.good))]

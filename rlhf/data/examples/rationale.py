"""A question with its answer and with a rationale for it, learnt as two tasks that a prefix tells apart.

    label task        label_prefix + question  ->  label
    rationale task    rationale_prefix + question  ->  rationale            every target weighs `rationale_weight`

With `loss: {name: ce, aggregate: sequence}` the mean over both kinds of samples is (L_label + λ L_rationale) / 2, where
λ is `rationale_weight` and each L is a mean over answers of the mean over their tokens. In use the model gives the
label at once: reasons help to learn, and cost nothing afterwards.

Rows hold `prompt`, or `messages` of role and content, `label` and `rationale`. A task gives its worked solutions: the
last line is the label, the lines before it are the rationale.

Source: Hsieh et al. 2023, "Distilling Step-by-Step! Outperforming Larger Language Models with Less Training Data and
Smaller Model Sizes" (arXiv 2305.02301), equation 4, λ = 1; its code (google-research/distilling-step-by-step at
ef94426) has α L_label + (1 - α) L_rationale with α = 0.5, the same mean, and the prefixes `predict: ` and `explain: `.
We deviate in the first: questions of the label task stand as they are, so that the model is asked as it was taught
without anybody having to know of a prefix. And its L are means over the tokens of a batch, so that a long rationale
counts more there than a short one.

What to watch: held-out accuracy of the label against `rationale_weight: 0`, which trains on labels alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.training import Sample
from rlhf.core.types import Message, Prompt
from rlhf.data.render import render_solution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Config:
    """How the two tasks are told apart and weighed."""

    label_prefix: str = ""
    """In front of a question that asks for the label; the paper's code has `predict: `."""
    rationale_prefix: str = "explain: "
    """In front of a question that asks for the rationale."""
    rationale_weight: float = 1.0
    """λ: what the rationale's loss counts beside the label's; 0 leaves rationales out."""

    def __post_init__(self) -> None:
        if not 0 <= self.rationale_weight < math.inf:
            problem = f"{self.rationale_weight} is no weight"
            raise ConfigError("rationale_weight", problem, fix="use 1, or 0 for labels alone")
        if self.label_prefix == self.rationale_prefix:
            fix = "use different ones, for example an empty one and `explain: `"
            raise ConfigError("rationale_prefix", "is the label's too: nothing tells the tasks apart", fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """A question with a label and a rationale."""

    prompt: Prompt
    label: str
    rationale: str


def read(row: Mapping[str, Any], cfg: Config, *, where: str, name: str) -> Explained:
    """A row of `messages` or `prompt`, `label` and `rationale`."""
    turns = row.get("messages") or [{"role": "user", "content": row.get("prompt")}]
    texts = [row.get("label"), row.get("rationale")]
    if not all(isinstance(text, str) for text in texts) or not isinstance(turns, list) or not all(map(_is_turn, turns)):
        fix = 'give every row texts `label` and `rationale`, and `prompt` or `messages` [{"role": …, "content": …}]'
        raise DataError(where, f"is no explained question: it has the columns {', '.join(row)}", fix=fix)
    messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)
    prompt = Prompt(id=name, messages=messages, gold=str(row.get("gold", "")), task=name)
    return Explained(prompt=prompt, label=row["label"], rationale=row["rationale"])


def given(prompt: Prompt, cfg: Config) -> Explained | None:
    """The prompt, if its worked solution has more than one line."""
    rationale, _, label = (prompt.solution or "").rpartition("\n")
    return Explained(prompt=prompt, label=label, rationale=rationale) if rationale and label else None


def render(example: Explained, cfg: Config, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """A sample per task."""
    label = _sample("label", example.prompt, cfg.label_prefix, example.label, 1.0, tokenizer)
    if not cfg.rationale_weight:
        return [label]
    weight = cfg.rationale_weight
    return [label, _sample("rationale", example.prompt, cfg.rationale_prefix, example.rationale, weight, tokenizer)]


def _sample(
    task: str, prompt: Prompt, prefix: str, text: str, weight: float, tokenizer: PreTrainedTokenizerBase
) -> Sample:
    *before, last = prompt.messages
    asked = (*before, replace(last, content=prefix + last.content))
    rendered = render_solution(tokenizer, replace(prompt, messages=asked, solution=text))
    return Sample(
        id=f"{prompt.id}/{task}",
        tokens=rendered.tokens,
        target_start=rendered.target_start,
        weights=(weight,) * (len(rendered.tokens) - rendered.target_start),
    )


def _is_turn(turn: object) -> bool:
    return isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)

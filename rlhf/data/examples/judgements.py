"""A question with its worked solution, and the solution with a judgement of it: both are learnt.

For stages of reinforcement learning with `verify`, whose policy has to know how a judgement looks before it can be
rewarded for good ones (RISE, Liu et al. 2025, arXiv 2505.13445, starts from models that follow instructions and needs
no such stage). Solutions that are wrong now and then, as those of `sums` with `noise`, give judgements of both kinds.
`noise` makes that share of the judgements say the opposite: with 0.5 they say nothing of the truth, so that only their
form is learnt, and what a later stage rewards is not taught here.

Rows are those of `solutions`, with a column that says whether the completion is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.seeding import derive_seed
from rlhf.core.training import Sample
from rlhf.core.types import Json, Prompt
from rlhf.data import judging
from rlhf.data.examples import solutions
from rlhf.data.judging import Judging
from rlhf.data.render import render_solution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FINE = 10**6


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a judgement looks like, and how often it is true."""

    judging: Judging = field(default_factory=Judging)
    right: str = "trace_labels"
    """Column that says whether a solution is right; a list, of its steps, says so by its last entry."""
    noise: float = 0.0
    """Share of the judgements that say the opposite of the truth."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise ConfigError("noise", f"{self.noise} is not a share", fix="use 0 to 1; 0.5 teaches the form only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A question whose `solution` is to be learnt, and to be called right or wrong."""

    prompt: Prompt
    right: bool


def read(row: Mapping[str, Any], cfg: Config, *, where: str, name: str) -> Judged:
    """A row of `messages` or `prompt`, `completion`, and the column that `right` names."""
    if cfg.right not in row:
        fix = f"set examples.right to one of its columns: {', '.join(row)}"
        raise DataError(where, f"has no column '{cfg.right}' that says whether the completion is right", fix=fix)
    prompt = solutions.read(row, solutions.Config(), where=where, name=name).prompt
    return Judged(prompt=prompt, right=_last(row[cfg.right]))


def given(prompt: Prompt, cfg: Config) -> Judged | None:
    """The prompt, if it has a worked solution and says whether that is right."""
    if prompt.solution is None or cfg.right not in prompt.columns:
        return None
    return Judged(prompt=prompt, right=_last(prompt.columns[cfg.right]))


def render(example: Judged, cfg: Config, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """Two samples: the targets of one are the solution, those of the other its judgement, each with EOS."""
    prompt = example.prompt
    assert prompt.solution is not None, "examples have solutions"
    flipped = derive_seed(0, "judged", prompt.id) % _FINE < cfg.noise * _FINE
    asked = judging.judged(prompt, prompt.solution, example.right != flipped, cfg.judging, name=f"{prompt.id}:judged")
    return [_sample(prompt, tokenizer), _sample(asked, tokenizer)]


def _sample(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> Sample:
    rendered = render_solution(tokenizer, prompt)
    return Sample(id=prompt.id, tokens=rendered.tokens, target_start=rendered.target_start)


def _last(value: Json) -> bool:
    if isinstance(value, (list, tuple)) and value:
        return bool(value[-1])
    return bool(value)

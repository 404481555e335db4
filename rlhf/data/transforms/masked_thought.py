"""Masked thought: some tokens of a worked solution are hidden from the model that is to write the rest of it.

    read_t = token_t with probability 1 - p, else a random token, or a mask        for the targets; questions stay
    L      = -sum_t log p(token_t | read_<t)                                        on all targets, hidden or not
    p      = rate min(1, done / warmup)

The model that reads a damaged step has to look at the question again, where a token's neighbours would have told it
what comes next. Source: Chen et al. 2024, "Masked Thought: Simply Masking Partial Reasoning Steps Can Improve
Mathematical Reasoning Learning of Language Models" (arXiv 2403.02178), and its code (ChangyuChen347/MaskedThought at
9a467af): `max_mask_rate` 0.4 for GSM8K and 0.2 for MATH there, `mask_rate_warmup` 0.66, and for GSM8K a random token of
the whole vocabulary in every place (`replace_rate` 1), elsewhere a new token `<mask>`; its README allows the padding
token in that place. Its variant that also hides masks from attention (`drop_mask`, off there) is not offered.

What to watch: `train/ce_loss` stays above that of plain training, since what was hidden cannot always be told. Where a
hidden token stands neither in the question nor follows from what is left, a high rate teaches to guess.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.training import Sample, Stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much is hidden, and by what."""

    rate: float = 0.4
    """Probability that a target is hidden (0.4 for GSM8K, 0.1 to 0.2 where there are more data)."""
    warmup: float = 2 / 3
    """Share of the stage's updates over which the rate rises from 0."""
    token: str = ""
    """What stands in the place of a hidden token: a token of the vocabulary that no text holds, such as the padding
    token; empty puts any token there, each as likely as another."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ConfigError("rate", f"{self.rate} is not a probability", fix="use 0.4, or 0.2 with many data")
        if not 0 <= self.warmup <= 1:
            raise ConfigError("warmup", f"{self.warmup} is not a share", fix="use 0 to start with the whole rate")


def streams(cfg: Config) -> tuple[Stream, ...]:
    """None."""
    return ()


def transform(sample: Sample, cfg: Config, *, rng: Random, done: float, tokenizer: PreTrainedTokenizerBase) -> Sample:
    """The sample with hidden inputs. At a rate of 0 it reads what it read before.

    Raises:
        DataError: the vocabulary has no such token.
    """
    rate = cfg.rate * min(1.0, done / cfg.warmup) if cfg.warmup else cfg.rate
    mask, size = _mask(cfg, tokenizer), len(tokenizer)
    read = list(sample.tokens if sample.inputs is None else sample.inputs)
    targets = sample.target_mask or (True,) * (len(read) - sample.target_start)
    for place, is_target in enumerate(targets, start=sample.target_start):
        if is_target and rng.random() < rate:
            read[place] = rng.randrange(size) if mask is None else mask
    return replace(sample, inputs=tuple(read))


def _mask(cfg: Config, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the mask; None for a random token."""
    if not cfg.token:
        return None
    found = tokenizer.get_vocab().get(cfg.token)
    if found is None:
        fix = f"name one that it has, for example its padding token ({tokenizer.pad_token}), or leave it empty"
        raise DataError("masked_thought.token", f"'{cfg.token}' is no token of {tokenizer.name_or_path}", fix=fix)
    return found

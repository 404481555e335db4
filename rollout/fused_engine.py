"""The embedded engine with small experts beside the model: their logits are fused at every token.

    engine: {name: fused_engine, small: Qwen/Qwen2.5-0.5B, experts: [runs/sums/checkpoints/step_600]}

The run's own model is the large one: it gets the weights that are loaded, ends answers where it would by itself, and
its tokenizer is the one that counts; the small models must share its vocabulary. What is sampled, and the log-probs
that come with it, are those of the fused distribution after the sampling transforms; a request's tokens depend on
weights, prompt and its own seed, as without experts. Meant for evaluation and generation: a stage that trains on such
samples learns from another policy than its own, and its loss weighs them as it does stale ones.

Every token costs a pass of each model. Formula and source: `rollout.logit_fusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.protocols import EngineSpec
from rollout import logit_fusion, transformers_engine
from rollout.cached_model import CachedModel, Decoder, Decoding
from rollout.transformers_engine import TransformersEngine


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which experts, and how much each counts."""

    small: str = ""
    """The small model that the experts were fine-tuned from: a folder or a hub id."""
    experts: list[str] = field(default_factory=list[str])
    """Fine-tuned small models: folders or hub ids."""
    alpha: list[float] = field(default_factory=list[float])
    """A constant weight per expert; empty searches the weight of one expert at every token."""
    max_alpha: float = 2.0
    """Largest weight that is searched."""
    step: float = 0.1
    """From one weight that is searched to the next."""
    max_batch: int = 512
    """Samples decoded together, at most; the others wait for the next round."""
    retire_share: float = 0.125
    """Finished samples leave the batch once they make up this share of it; retiring copies the cache of the rest."""

    def __post_init__(self) -> None:
        if not self.small:
            raise ConfigError("small", "is required", fix="name the model that the experts were fine-tuned from")
        if not self.experts:
            raise ConfigError("experts", "there is nothing to fuse", fix="name one model or more")
        if self.alpha and len(self.alpha) != len(self.experts):
            problem = f"{len(self.alpha)} weights for {len(self.experts)} experts"
            raise ConfigError("alpha", problem, fix="give one for each expert, or none to search")
        if not 0 < self.step <= self.max_alpha:
            raise ConfigError("step", f"{self.step} is not in (0, max_alpha={self.max_alpha}]", fix="use 0.1")
        self.batching()

    def batching(self) -> transformers_engine.Config:
        """How rows are batched."""
        return transformers_engine.Config(max_batch=self.max_batch, retire_share=self.retire_share)

    @property
    def grid(self) -> list[float]:
        """The weights that are searched."""
        return [self.step * i for i in range(int(self.max_alpha / self.step + 1e-9) + 1)]


def build(cfg: Config, spec: EngineSpec) -> TransformersEngine:
    """The engine for a model folder, with its experts.

    Raises:
        DataError: a model whose vocabulary is not that of the run's model, or that cannot be decoded with.
    """
    model, tokenizer = spec.load()
    paths = {"engine.small": cfg.small} | {f"engine.experts.{i}": path for i, path in enumerate(cfg.experts)}
    opened = {where: spec.open(path) for where, path in paths.items()}
    for where, (_, other) in opened.items():
        _check_vocabulary(tokenizer, other, where)
    small, *experts = (CachedModel(found, where=where) for where, (found, _) in opened.items())
    _check_widths({where: found for where, (found, _) in opened.items()}, len(tokenizer))
    decoder = Fusion(CachedModel(model, where="model.path"), small, experts, weights=_weights(cfg))
    return TransformersEngine(model, tokenizer, cfg.batching(), decoder=decoder)


Weights = Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]
"""Of the logits of large model, small base and experts: [R, K] how much each expert counts."""


class Fusion:
    """Implements `Decoder` with a large model, a small one, and experts that were fine-tuned from that."""

    def __init__(self, large: Decoder, small: Decoder, experts: Sequence[Decoder], *, weights: Weights) -> None:
        self._all, self._weights = (large, small, *experts), weights

    @property
    def context(self) -> int:
        """Positions that all have."""
        return min(decoder.context for decoder in self._all)

    def start(self, columns: int) -> FusedRound:
        """See `Decoder.start`."""
        return FusedRound([decoder.start(columns) for decoder in self._all], self._weights)

    def to(self, device: torch.device) -> None:
        """See `Decoder.to`."""
        for decoder in self._all:
            decoder.to(device)


class FusedRound:
    """Implements `Decoding`: all models hold the same rows."""

    def __init__(self, rounds: Sequence[Decoding], weights: Weights) -> None:
        self._rounds, self._weights = rounds, weights

    def read(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """See `Decoding.read`."""
        large, small, *experts = (decoding.read(tokens, mask, positions) for decoding in self._rounds)
        return logit_fusion.fused(large, small, experts, self._weights(large, small, experts))

    def select(self, rows: Tensor) -> None:
        """See `Decoding.select`."""
        for decoding in self._rounds:
            decoding.select(rows)


def _weights(cfg: Config) -> Weights:
    if not cfg.alpha:
        return lambda large, small, experts: logit_fusion.search(large, small, experts, grid=cfg.grid)
    return lambda large, small, experts: large.new_tensor(cfg.alpha, dtype=torch.float32).expand(len(large), -1)


def _check_vocabulary(own: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, where: str) -> None:
    ours, theirs = own.get_vocab(), other.get_vocab()
    if ours != theirs:
        differing = sorted(dict(ours.items() ^ theirs.items()))
        problem = f"its vocabulary differs from that of the run's model in {len(differing)} tokens: {differing[:3]}"
        raise DataError(where, problem, fix="use a small model of the same family, with the same tokenizer")


def _check_widths(small: dict[str, PreTrainedModel], tokens: int) -> None:
    """Experts give as many logits as their base, and at least one per token."""
    widths = {where: model.config.get_text_config().vocab_size for where, model in small.items()}
    base = widths["engine.small"]
    for where, width in widths.items():
        if width != base or width < tokens:
            problem = f"gives {width} logits; the small model gives {base}, and there are {tokens} tokens"
            raise DataError(where, problem, fix="use experts that were fine-tuned from engine.small")

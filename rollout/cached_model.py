"""A model that decodes rounds of rows step by step, each with a cache of its own. Used by `transformers_engine`.

A `Decoder` is what that engine asks for logits: one model, or several models whose logits are fused
(`rollout.fused_engine`). What a round remembers lives in its `Decoding` and goes with it.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.core.errors import DataError
from rollout import decode_attention
from rollout.kv_cache import InPlaceCache


class Decoding(Protocol):
    """The rows of a round, and what has been read of each."""

    def read(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Read further tokens.

        Args:
            tokens: [R, new columns].
            mask: [R, columns so far, new ones included] False where a row has no token.
            positions: [R, new columns].

        Returns:
            [R, V] logits of the next token.
        """
        ...

    def select(self, rows: Tensor) -> None:
        """Keep these rows (indices, repeats allowed) in this order."""
        ...


class Decoder(Protocol):
    """Gives logits."""

    @property
    def context(self) -> int:
        """Positions that it has."""
        ...

    def start(self, columns: int) -> Decoding:
        """A round in which no row gets more than `columns` tokens."""
        ...

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        ...


class CachedModel:
    """Implements `Decoder` with one causal model.

    Args:
        model: is put into evaluation mode, and its parameters are frozen.
        where: config path that names it, for messages.

    Raises:
        DataError: a model with recurrent layers.
    """

    def __init__(self, model: PreTrainedModel, *, where: str) -> None:
        if model._is_stateful:
            fix = "use a model whose layers all have attention (Llama, Qwen, Mistral, Gemma, GPT-2, …)"
            raise DataError(where, f"{type(model).__name__} has recurrent layers", fix=fix)
        self._model = model.eval().requires_grad_(False)
        decode_attention.use(model)
        text_config = model.config.get_text_config()
        self._num_layers: int = text_config.num_hidden_layers
        self._context: int = text_config.max_position_embeddings

    @property
    def context(self) -> int:
        """Positions of the model."""
        return self._context

    def start(self, columns: int) -> CachedRound:
        """See `Decoder.start`."""
        return CachedRound(self._model, InPlaceCache(self._num_layers, columns))

    def to(self, device: torch.device) -> None:
        """See `Decoder.to`."""
        nn.Module.to(self._model, device)


class CachedRound:
    """Implements `Decoding`: the cache holds the rows of the round, in its order."""

    def __init__(self, model: PreTrainedModel, cache: InPlaceCache) -> None:
        self._model, self._cache = model, cache
        parameters = inspect.signature(model.forward).parameters
        self._last_only: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def read(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """See `Decoding.read`."""
        out = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            **self._last_only,
        )
        return out.logits[:, -1]

    def select(self, rows: Tensor) -> None:
        """See `Decoding.select`."""
        self._cache.select(rows)

"""A key/value cache for decoding a shrinking batch: written in place, rows retired as their samples end.

Used by `cached_model`. `transformers`' own dynamic cache copies all keys and values at every token; this one
allocates once for the known length and copies only when rows are selected.

Invariant: every layer holds the same rows and the same number of tokens, so slot `t` of a row is the token at column
`t` of its left-padded sequence.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class InPlaceLayer(CacheLayerMixin):
    """Keys and values of one layer, [rows, heads, capacity, head_dim], of which `length` slots are filled."""

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        rows, heads, _, dim = key_states.shape
        self.keys = key_states.new_empty((rows, heads, self.capacity, dim))
        self.values = value_states.new_empty((rows, heads, self.capacity, value_states.shape[-1]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append new slots and return views of all filled ones."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        end = self.length + key_states.shape[-2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def select(self, rows: Tensor) -> None:
        """Keep `rows` (indices, repeats allowed) in this order."""
        assert self.keys is not None and self.values is not None
        self.keys = self._selected(self.keys, rows)
        self.values = self._selected(self.values, rows)

    def _selected(self, old: Tensor, rows: Tensor) -> Tensor:
        new = old.new_empty((rows.shape[0], *old.shape[1:]))
        torch.index_select(old[:, :, : self.length], 0, rows, out=new[:, :, : self.length])
        return new


class InPlaceCache(Cache):
    """One `InPlaceLayer` per decoder layer.

    Args:
        num_layers: decoder layers of the model.
        capacity: prompt columns plus new tokens, at most.
    """

    def __init__(self, num_layers: int, capacity: int) -> None:
        self.in_place = [InPlaceLayer(capacity) for _ in range(num_layers)]
        super().__init__(layers=[*self.in_place])

    def select(self, rows: Tensor) -> None:
        """Keep `rows` of every layer: expands a prefilled prompt to its group, or drops finished samples."""
        for layer in self.in_place:
            layer.select(rows)

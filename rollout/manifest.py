"""The weights that a model has, by name and shape, and which of a new version have arrived.

Used by `rollout.vllm_sampler`: vLLM fuses and shards what it loads, so that a missing or misnamed weight would show
late, or as noise in what is sampled. Names are those of `model.named_parameters()` in transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every weight of a model."""

    shapes: Mapping[str, tuple[int, ...]]
    """By name; a weight that is used in two places has both names."""
    ties: Mapping[str, str]
    """Second names of such weights, to the first."""


def manifest(folder: Path, *, trust_remote_code: bool) -> Manifest:
    """Of the model in a folder, without reading its weights."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    model.tie_weights()
    first: dict[int, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    ties: dict[str, str] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        shapes[name] = tuple(weight.shape)
        if id(weight) in first:
            ties[name] = first[id(weight)]
        first.setdefault(id(weight), name)
    return Manifest(shapes, ties)


class Arrivals:
    """The weights of one version as they come, in any order, in one call or many."""

    def __init__(self, expected: Manifest) -> None:
        self._expected = expected
        self._missing = dict.fromkeys(name for name in expected.shapes if name not in expected.ties)
        self.begun = False
        """Whether something of this version was given on, so that the model may have changed."""

    @property
    def missing(self) -> Sequence[str]:
        """What has not come, in the model's order."""
        return list(self._missing)

    def checked(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The same weights, each noted as it is taken.

        Raises:
            KeyError, ValueError: see `note`.
        """
        for name, tensor in weights:
            self.note(name, tensor.shape)
            self.begun = True
            yield name, tensor

    def note(self, name: str, shape: Sequence[int]) -> None:
        """Take note of a weight that arrives.

        Raises:
            KeyError: the model has no weight of this name. ValueError: it has, of another shape.
        """
        if name not in self._expected.shapes:
            raise KeyError(f"the model has no weight {name}")
        if tuple(shape) != self._expected.shapes[name]:
            raise ValueError(f"{name} is {tuple(shape)}, not {self._expected.shapes[name]}")
        self._missing.pop(self._expected.ties.get(name, name), None)

"""The files that an optimizer leaves in a checkpoint, the same for every backend and number of ranks.

In a folder `optimizer`, since what opens a model (vLLM, for one) may take every safetensors file beside it for weights:
`moments.safetensors` holds both moments of every parameter under its name in the model, `steps.json` how many steps
each has taken, and `master_weights.safetensors` the float32 weights behind a model that computes in bfloat16. Nothing
executable is ever read back.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from rlhf.core.errors import CheckpointError
from rlhf.core.training import TensorMeta
from rlhf.learner import streams
from rlhf.models import adapters

MOMENTS = ("exp_avg", "exp_avg_sq")
FOLDER = "optimizer"
_STATE = f"{FOLDER}/moments.safetensors"
_STEPS = f"{FOLDER}/steps.json"
_MASTERS = f"{FOLDER}/master_weights.safetensors"


def write_moments(
    folder: Path | None,
    parameters: Iterable[TensorMeta],
    tensors: Iterable[tuple[str, Tensor]],
    *,
    steps: Mapping[str, float],
) -> None:
    """Write the moments of every parameter that has taken a step.

    Args:
        folder: None on ranks that only help to gather.
        parameters: those with a state, in order.
        tensors: their moments, named by `moment`, in the order of `MOMENTS`.
        steps: taken by each of them.
    """
    _make_room(folder)
    metas = [TensorMeta(moment(p.name, key), p.dtype, p.shape) for p in parameters for key in MOMENTS]
    streams.write(None if folder is None else folder / _STATE, metas, tensors)
    if folder is not None:
        (folder / _STEPS).write_text(json.dumps(dict(steps)), encoding="utf-8")


def write_masters(folder: Path | None, metas: list[TensorMeta], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write the float32 weights of a model that computes with others."""
    _make_room(folder)
    streams.write(None if folder is None else folder / _MASTERS, metas, tensors)


def _make_room(folder: Path | None) -> None:
    if folder is not None:
        (folder / FOLDER).mkdir(exist_ok=True)


def moment(parameter: str, key: str) -> str:
    """What a moment is called in its file."""
    return f"{parameter}.{key}"


class Stored:
    """An optimizer's files, read one tensor at a time.

    Args:
        folder: a checkpoint.
        known: parameters of the model.

    Raises:
        CheckpointError: the state is of another model.
    """

    def __init__(self, folder: Path, *, known: Collection[str]) -> None:
        self._folder = folder
        self.steps: dict[str, float] = json.loads((folder / _STEPS).read_text(encoding="utf-8"))
        unknown = sorted(set(self.steps) - set(known))
        if unknown:
            fix = "resume with the model that wrote the checkpoint"
            raise CheckpointError(str(folder / _STATE), f"state of unknown parameters: {unknown[:3]}", fix=fix)
        self._moments = safe_open(folder / _STATE, framework="pt")
        masters = folder / _MASTERS
        self._masters = safe_open(masters, framework="pt") if masters.exists() else None

    def moments(self, parameter: str) -> dict[str, Tensor]:
        """Both moments of a parameter with steps, on the CPU."""
        return {key: self._moments.get_tensor(moment(parameter, key)) for key in MOMENTS}

    def common_steps(self) -> float:
        """The steps of all parameters, for optimizers that count them together.

        Raises:
            CheckpointError: they differ.
        """
        counts = set(self.steps.values())
        if len(counts) > 1:
            fix = "go on with the backend that wrote the checkpoint"
            problem = f"some parameters have taken {min(counts)} steps and others {max(counts)}"
            raise CheckpointError(str(self._folder / _STEPS), problem, fix=fix)
        return counts.pop() if counts else 0.0

    def master(self, parameter: str) -> Tensor | None:
        """The float32 weights behind a parameter, on the CPU; None where the model's own are all there is."""
        return None if self._masters is None else self._masters.get_tensor(parameter)

    def precise(self, parameter: str) -> Tensor | None:
        """The most precise weights there are, if those are in float32: masters, or the model's own as stored."""
        if self._masters is not None:
            return self._masters.get_tensor(parameter)
        adapter = self._folder / adapters.FOLDER / adapters.WEIGHTS
        file = adapter if adapter.exists() else self._weight_files.get(parameter)
        if file is None:
            return None
        with safe_open(file, framework="pt") as weights:
            held = weights.get_tensor(adapters.stored_name(parameter) if file == adapter else parameter)
        return held if held.dtype == torch.float32 else None

    @cached_property
    def _weight_files(self) -> dict[str, Path]:
        """The file of the model that holds each weight, by the name it has there."""
        index = self._folder / streams.INDEX
        if index.exists():
            found: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return {name: self._folder / file for name, file in found.items()}
        whole = self._folder / streams.MODEL
        with safe_open(whole, framework="pt") as weights:
            return dict.fromkeys(weights.keys(), whole)

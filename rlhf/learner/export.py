"""A sharded model in Hugging Face format, written while no more than one parameter, or one layer, is whole.

The content is what `save_pretrained` would write: tied weights once, buffers, and the names that the checkpoint format
has where transformers keeps weights in another shape in memory (the experts of a mixture, for example).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from rlhf.core.errors import DataError
from rlhf.core.training import TensorMeta
from rlhf.learner import streams
from rlhf.models import load

Gathered = Callable[[Sequence[Tensor]], AbstractContextManager[None]]
"""Makes these tensors of the model whole on every rank, for as long as the context lasts."""

_LAYER = re.compile(r"(.*?\.\d+)\.")


def save_model(
    model: PreTrainedModel,
    folder: Path,
    *,
    describe: Callable[[str, Tensor], TensorMeta],
    gathered: Gathered,
    writes: bool,
    limit: int = streams.SHARD_BYTES,
) -> None:
    """Write config and weights into an existing folder. Every rank takes part.

    Args:
        model: parameters may lie anywhere in parts.
        folder: seen by the rank that writes.
        describe: type and shape of the whole of a tensor.
        gathered: see `Gathered`.
        writes: this rank is the one that writes.
        limit: bytes per file of weights.

    Raises:
        DataError: the architecture's checkpoint format mixes weights of several layers.
    """
    stored = _stored(model)
    metas = {name: describe(name, tensor) for name, tensor in stored.items()}
    groups = _groups(model, metas)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for names in groups:
            with gathered([stored[name] for name in names]):
                yield from _as_stored(model, {name: stored[name].detach() for name in names}).items()

    announced = [meta for names in groups for meta in _announced(model, [metas[name] for name in names])]
    streams.write_model(folder if writes else None, announced, tensors(), limit=limit)
    if writes:
        # In a folder of its own, since save_pretrained deletes shards that it has not written itself.
        with load.quiet(), tempfile.TemporaryDirectory(dir=folder) as beside:
            model.save_pretrained(beside, state_dict={})
            for path in Path(beside).iterdir():
                path.rename(folder / path.name)


def _stored(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters and buffers that belong into a checkpoint, tied ones under the name that the model reads them by."""
    everything: dict[str, Tensor] = model.state_dict(keep_vars=True)
    unwanted = set(model._keys_to_ignore_on_save or ())
    tied = set(model.all_tied_weights_keys)
    names: dict[int, str] = {}
    for name in sorted((n for n in everything if n not in unwanted), key=lambda n: n in tied):
        names.setdefault(id(everything[name]), name)
    kept = set(names.values())
    return {name: tensor for name, tensor in everything.items() if name in kept}


def _groups(model: PreTrainedModel, metas: Mapping[str, TensorMeta]) -> list[list[str]]:
    """Names that are made whole together: single ones, or layers where the checkpoint format needs more than one."""
    whole = set(_announced(model, list(metas.values())))
    for groups in ([[name] for name in metas], _layers(metas)):
        if {m for names in groups for m in _announced(model, [metas[name] for name in names])} == whole:
            return groups
    problem = f"the checkpoint format of {type(model).__name__} mixes weights of several layers"
    raise DataError("learner.backend", problem, fix="use learner.backend=torch_backend, or a zero_stage below 3")


def _layers(names: Mapping[str, TensorMeta]) -> list[list[str]]:
    layers: dict[str, list[str]] = {}
    for name in names:
        found = _LAYER.match(name)
        layers.setdefault(found.group(1) if found else name, []).append(name)
    return list(layers.values())


def _announced(model: PreTrainedModel, metas: Sequence[TensorMeta]) -> list[TensorMeta]:
    """What these tensors become in a checkpoint."""
    empty = {m.name: torch.empty(m.shape, dtype=m.dtype, device="meta") for m in metas}
    return [TensorMeta(name, t.dtype, tuple(t.shape)) for name, t in _as_stored(model, empty).items()]


def _as_stored(model: PreTrainedModel, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return revert_weight_conversion(model, tensors)

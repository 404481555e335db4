"""A sharded model in Hugging Face format, written while no more than one parameter, or one layer, is whole.

The content is what `save_pretrained` would write: tied weights once, buffers, and the names that the checkpoint format
has where transformers keeps weights in another shape in memory (the experts of a mixture, for example). Of a model with
adapters it is the plain one with what they add, and beside it the adapters in peft's format (`rlhf.models.adapters`).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from rlhf.core.errors import DataError
from rlhf.core.training import TensorMeta
from rlhf.learner import streams
from rlhf.models import adapters, load, shards
from rlhf.models.adapters import Weight

Gathered = Callable[[Sequence[Tensor]], AbstractContextManager[None]]
"""Makes these tensors of the model whole on every rank, for as long as the context lasts."""

_LAYER = re.compile(r"(.*?\.\d+)\.")


def save_model(
    model: PreTrainedModel,
    folder: Path,
    *,
    gathered: Gathered,
    writes: bool,
    limit: int = streams.SHARD_BYTES,
) -> None:
    """Write config and weights into an existing folder. Every rank takes part.

    Args:
        model: parameters may lie anywhere in parts.
        folder: seen by the rank that writes.
        gathered: see `Gathered`.
        writes: this rank is the one that writes.
        limit: bytes per file of weights.

    Raises:
        DataError: the architecture's checkpoint format mixes weights of several layers.
    """
    stored = _stored(model)
    metas = {name: TensorMeta(name, weight.dtype, weight.shape) for name, weight in stored.items()}
    groups = _groups(model, metas)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for names in groups:
            with gathered([tensor for name in names for tensor in stored[name].needs]):
                yield from _as_stored(model, {name: stored[name].value() for name in names}).items()

    announced = [meta for names in groups for meta in _announced(model, [metas[name] for name in names])]
    streams.write_model(folder if writes else None, announced, tensors(), limit=limit)
    if writes:
        # In a folder of its own, since save_pretrained deletes shards that it has not written itself.
        with load.quiet(), tempfile.TemporaryDirectory(dir=folder) as beside:
            with _whole(model):
                model.save_pretrained(beside, state_dict={})
            for path in Path(beside).iterdir():
                path.rename(folder / path.name)
    if adapters.adapted(model):
        _save_adapter(model, folder / adapters.FOLDER, gathered=gathered, writes=writes)


def _save_adapter(model: PreTrainedModel, folder: Path, *, gathered: Gathered, writes: bool) -> None:
    """Write what trains by itself, as peft does."""
    trained = adapters.trained(model)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, parameter in trained.items():
            with gathered([parameter]):
                yield adapters.stored_name(name), parameter.detach()

    if writes:
        folder.mkdir()
        adapters.save_config(model, folder)
    metas = [TensorMeta(adapters.stored_name(name), p.dtype, shards.shape(p)) for name, p in trained.items()]
    streams.write(folder / adapters.WEIGHTS if writes else None, metas, tensors())


@contextmanager
def _whole(model: PreTrainedModel) -> Iterator[None]:
    """A model that computes with quantised weights, as transformers knows one that does not: its checkpoint is."""
    places = ((vars(model), "hf_quantizer"), (vars(model.config), "quantization_config"))
    hidden = [(place, name, place.pop(name)) for place, name in places if name in place]
    try:
        yield
    finally:
        for place, name, value in hidden:
            place[name] = value


def _stored(model: PreTrainedModel) -> dict[str, Weight]:
    """Parameters and buffers that belong into a checkpoint, tied ones under the name that the model reads them by."""
    known = {n for of in (model.named_parameters, model.named_buffers) for n, _ in of(remove_duplicate=False)}
    # Not how bitsandbytes has quantised a weight.
    present = [(name, tensor) for name, tensor in model.state_dict(keep_vars=True).items() if name in known]
    everything = {weight.name: weight for weight in adapters.weights(model, present)}
    unwanted = set(model._keys_to_ignore_on_save or ())
    tied = set(model.all_tied_weights_keys)
    names: dict[int, str] = {}
    for name in sorted((n for n in everything if n not in unwanted), key=lambda n: n in tied):
        names.setdefault(id(everything[name].tensor), name)
    # In the order of safetensors' own files, so that a model that is opened from either lies in memory alike: matrix
    # products round by how their factors are aligned.
    return {name: everything[name] for name in sorted(names.values())}


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

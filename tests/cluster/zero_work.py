"""What the ranks of the DeepSpeed tests do, each in its own process; the parent does the same with plain torch."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tiny_model
import torch
from test_gradient_invariance import CASES, make_samples
from torch import Tensor
from torch.nn import Parameter, functional

from rlhf.core.component import Component
from rlhf.core.config import build_component
from rlhf.core.errors import UserError
from rlhf.core.metrics import merge, values
from rlhf.core.protocols import Counts
from rlhf.core.sampling import Transforms
from rlhf.core.training import Batch, Sample
from rlhf.data.packing import count, num_targets, pack
from rlhf.learner import optimizer, ranks, schedule
from rlhf.learner.learner import Config, Learner, head
from rlhf.models import forward, load

BUDGET = 18
CLIP = 0.015
LOSSES = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Setup:
    """A learner to make."""

    folder: Path
    """The model that it opens."""
    backend: dict[str, Any]
    loss: str | None = "policy-token-plain"
    """A name in `LOSSES`."""
    learner: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    version: int = 0
    device: str = "cpu"
    trainable: dict[str, Any] = field(default_factory=lambda: {"name": "full"})
    adapter: Path | None = None
    """To go on with."""
    moves: bool = False


def make(setup: Setup, open_model: Callable[[str], Any] | None = None) -> Learner:
    """The learner of this process."""
    case = LOSSES[setup.loss] if setup.loss else None
    loss = None if case is None else Component(case.name, case.module, case.cfg)
    return Learner(
        open_model or (lambda dtype: load.load_model(setup.folder, dtype=dtype, device=setup.device, head=head(loss))),
        tiny_model.tokenizer(),
        Config(
            trainable=build_component("rlhf.models.trainable", setup.trainable, "learner.trainable"),
            backend=build_component("rlhf.learner.backends", setup.backend, "learner.backend"),
            optimizer=optimizer.Config(**{"lr": 3e-3, "weight_decay": 0.1, "grad_clip": CLIP} | setup.optimizer),
            schedule=schedule.Config(name="linear", warmup_updates=2),
            **setup.learner,
        ),
        device=setup.device,
        loss=loss,
        transforms=Transforms(temperature=0.9),
        total_updates=10,
        version=setup.version,
        first_version=0,
        adapter=setup.adapter,
        moves=setup.moves,
    )


@dataclass
class Trained:
    """What some updates led to."""

    weights: dict[str, Tensor]
    norms: list[float]
    rates: list[float]
    metrics: list[dict[str, float]]


def samples_of(update: int) -> list[Sample]:
    """With old log-probs in every other update, as in the first pass over a batch and in later ones."""
    return [s for s in make_samples(with_old=update % 2 == 1) if num_targets(s)]


def batches_of(update: int, *, size: int) -> tuple[list[list[Batch]], Counts]:
    """The batches of each rank: shared out evenly, unevenly, and with nothing for the last rank, in turn."""
    samples = samples_of(update)
    batches = pack(samples, token_budget=BUDGET)
    assert len(batches) >= 3
    if size == 1:
        shares = [list(range(len(batches)))]
    elif update % 3 == 0:
        shares = ranks.share(batches, ranks=size)
    else:
        cut = len(batches) - 1 if update % 3 == 1 else len(batches)
        shares = [list(range(cut)), list(range(cut, len(batches)))]
    return [[batches[i] for i in own] for own in shares], count(samples)


def train(learner: Learner, rank: int, size: int, updates: Sequence[int]) -> Trained:
    """Updates with the same data whatever the number of ranks."""
    out = Trained({}, [], [], [])
    for update in updates:
        shares, counts = batches_of(update, size=size)
        own = shares[rank]
        # In two calls, as when an update is computed in parts.
        learner.forward_backward(own[:1], counts=counts)
        learner.forward_backward(own[1:], counts=counts)
        stats = learner.optim_step()
        out.norms.append(stats.grad_norm)
        out.rates.append(stats.lr)
        out.metrics.append(dict(stats.metrics))  # type: ignore[arg-type]
    out.weights = {name: tensor.clone() for name, tensor in learner.weights()}
    return out


def ready(rank: int, size: int, setup: Setup) -> None:
    """Import everything, and keep it out of what is searched for garbage whenever an engine is made."""
    trained(rank, size, setup, [0])
    gc.collect()
    gc.freeze()


def continued(rank: int, size: int, setup: Setup, checkpoint: Path, updates: Sequence[int]) -> Trained:
    """What another learner goes on to from a checkpoint."""
    source = {"adapter": checkpoint / "adapter"} if setup.trainable["name"] == "lora" else {"folder": checkpoint}
    learner = make(replace(setup, version=updates[0], **source))
    learner.load(checkpoint)
    return train(learner, rank, size, updates)


def saved(rank: int, size: int, setup: Setup, updates: Sequence[int], folder: Path) -> Trained:
    """Train and write a checkpoint."""
    folder.mkdir(exist_ok=True)
    learner = make(setup)
    out = train(learner, rank, size, updates)
    learner.save(folder)
    return out


def poisoned(rank: int, size: int, setup: Setup, value: float) -> tuple[str, Trained, Trained]:
    """One good update, one whose gradient is not finite on the last rank, another good one.

    Returns:
        What the bad one said, and what is there before and after it.
    """
    learner = make(setup)
    before = train(learner, rank, size, [0])
    shares, _ = batches_of(0, size=size)
    out = learner._backend.forward(shares[rank][0], learner._spec)
    learner._backend.backward(out.logprobs_T.sum() * (value if rank == size - 1 else 1.0))
    try:
        learner.optim_step()
        said = "nothing"
    except UserError as error:
        said = str(error)
    kept = {name: tensor.clone() for name, tensor in learner.weights()}
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.weights.items()), "weights are untouched"
    return said, before, train(learner, rank, size, [1, 2])


def scored(rank: int, setup: Setup, splits: Sequence[list[list[int]]]) -> list[list[Tensor]]:
    """Log-probs of a rank's share of the batches of update 0, for several ways to share them out."""
    batches, learner = pack(samples_of(0), token_budget=BUDGET), make(setup)
    return [learner.logprobs([batches[i] for i in shares[rank]]) for shares in splits]


def without_adapters(rank: int, size: int, setup: Setup) -> list[Tensor]:
    """Log-probs of a rank's batches under the weights beside adapters that have been trained, between two updates."""
    learner = make(setup)
    train(learner, rank, size, [0])
    out = learner.base_logprobs(batches_of(0, size=size)[0][rank])
    train(learner, rank, size, [1])
    return out


def followed(rank: int, size: int, leader: Setup, follower: Setup, share: float, folder: Path) -> dict[str, Tensor]:
    """Train, have another learner follow twice, and write that one. Returns its weights."""
    learner, reference = make(leader), make(follower)
    for update in range(2):
        train(learner, rank, size, [update])
        reference.logprobs(batches_of(0, size=size)[0][rank])
        reference.blend(learner, share)
    folder.mkdir(exist_ok=True)
    reference.save(folder)
    return {name: tensor.clone() for name, tensor in reference.weights()}


def trained(rank: int, size: int, setup: Setup, updates: Sequence[int]) -> Trained:
    """A new learner after some updates."""
    return train(make(setup), rank, size, updates)


def merged(parts: Sequence[Trained]) -> list[dict[str, float]]:
    """Metrics per update, over the ranks."""
    return [values(merge(part.metrics[i] for part in parts)) for i in range(len(parts[0].metrics))]  # type: ignore


@dataclass
class Gathering:
    """What a rank sees while weights come by."""

    metadata_matches: bool
    names: list[str]
    whole: list[int]
    """Bytes of all parameters that are whole at the same time, at each weight."""
    weights: dict[str, Tensor]


def taken_over(rank: int, setup: Setup, folder: Path) -> None:
    """Open a checkpoint and write another."""
    folder.mkdir(exist_ok=True)
    learner = make(setup)
    learner.load(setup.folder)
    learner.save(folder)


def gathering(rank: int, setup: Setup, bucket_bytes: int | None = None) -> Gathering:
    """Run through the weights of a learner that has just trained and scored."""
    learner = make(setup)
    if bucket_bytes is not None:
        learner._backend._bucket_bytes = bucket_bytes  # type: ignore[attr-defined]
    train(learner, rank, 2, [0])
    learner.logprobs(batches_of(0, size=2)[0][rank])
    model = learner._backend.model
    announced, found, whole = learner.metadata(), {}, []
    for name, tensor in learner.weights():
        found[name] = tensor.clone()
        whole.append(_whole_bytes(model))
    same = [(m.name, m.dtype, m.shape) for m in announced] == [(n, t.dtype, tuple(t.shape)) for n, t in found.items()]
    return Gathering(same, list(found), whole, found)


def exporting(rank: int, setup: Setup, folder: Path) -> list[int]:
    """Write a model; bytes of all parameters that are whole, whenever one has been gathered."""
    learner = make(setup)
    model, seen = learner._backend.model, []
    gathered = learner._backend._gathered  # type: ignore[attr-defined]

    @contextmanager
    def noted(tensors: Sequence[Tensor]) -> Iterator[None]:
        with gathered(tensors):
            seen.append(_whole_bytes(model))
            yield

    learner._backend._gathered = noted  # type: ignore[attr-defined]
    learner.save(folder)
    return seen


def _whole_bytes(model: Any) -> int:
    return sum(p.data.nbytes for p in model.parameters())


def held(rank: int, setup: Setup) -> tuple[int, int]:
    """Values that were whole on this rank right after the model was opened, and values in its parts."""
    whole = []

    def open_model(dtype: str) -> Any:
        model = load.load_model(setup.folder, dtype=dtype, device="cpu")
        whole.append(sum(p.numel() for p in model.parameters()))
        return model

    learner = make(setup, open_model)
    parts = [vars(p)["ds_tensor"] for p in learner._backend.model.parameters()]
    return whole[0], sum(p.numel() for p in parts)


def kept(rank: int, setup: Setup, lean: bool) -> int:
    """Gathered weights that a forward pass holds on to until its backward pass."""
    learner = make(setup)
    model, seen = learner._backend.model, 0
    if not lean:
        learner._backend._linear = functional.linear  # type: ignore[attr-defined]

    def note(tensor: Tensor) -> Tensor:
        nonlocal seen
        whole = {p.untyped_storage().data_ptr() for p in model.parameters() if p.numel()}
        # A parameter itself is only pointed at; a view of it keeps what it has been gathered into.
        seen += not isinstance(tensor, Parameter) and tensor.untyped_storage().data_ptr() in whole
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        learner._backend.forward(batches_of(0, size=2)[0][rank][0], learner._spec)
    return seen


def side_by_side(
    rank: int, size: int, first: Setup, second: Setup, frozen: Setup
) -> tuple[Trained, Trained, list[Tensor]]:
    """Two learners that train in turn and a frozen one that scores in between, in one process."""
    learners, reference = [make(first), make(second)], make(frozen)
    parts = [Trained({}, [], [], []), Trained({}, [], [], [])]
    scores: list[Tensor] = []
    for update in range(3):
        for part, learner in zip(parts, learners, strict=True):
            done = train(learner, rank, size, [update])
            part.weights, part.norms = done.weights, part.norms + done.norms
            scores = reference.logprobs(batches_of(0, size=size)[0][rank])
    return parts[0], parts[1], scores


def forgotten(rank: int, setup: Setup) -> bool:
    """Whether a learner's model is gone once nobody holds the learner."""
    learner = make(setup)
    train(learner, rank, 1, [0])
    seen = weakref.ref(learner._backend.model)
    del learner
    gc.collect()
    return seen() is None


def in_small_chunks(rank: int, size: int, setup: Setup, updates: Sequence[int]) -> Trained:
    """Train with logits of three tokens at a time, so that ranks make different numbers of chunks."""
    chunk, forward.MIB = forward.MIB, 3 * 4 * tiny_model.VOCAB
    try:
        return trained(rank, size, replace(setup, learner=setup.learner | {"chunk_mib": 1}), updates)
    finally:
        forward.MIB = chunk


def printed(rank: int, size: int, setup: Setup) -> bytes:
    """What reaches standard output and error while a learner is made, trains and is dropped."""
    with tempfile.TemporaryFile() as file:
        streams = [os.dup(1), os.dup(2)]
        try:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
            trained(rank, size, setup, [0])
            gc.collect()
            sys.stdout.flush()
        finally:
            for stream, kept in zip((1, 2), streams, strict=True):
                os.dup2(kept, stream)
                os.close(kept)
        file.seek(0)
        return file.read()

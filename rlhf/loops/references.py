"""Log-probs of the reference for an offline stage, and the KL to it: what losses of pairs and KTO ask for.

The reference is the policy as the stage began with it (`rlhf.loops.reference`). Its log-probs are computed with every
batch, beside the policy, or (`precompute_reference`) once before training, for every answer that the stage's steps will
draw: they go to `data/<stage>.reference.safetensors` in the run folder, and the reference's memory is free again before
the policy takes any. A run that goes on reads the file. Answers are known in it by their tokens. In the first pass over
the data both ways compute the same batches, and so the same numbers up to rounding; an answer drawn again keeps its
first ones.

Where a loss asks for the KL (`Stream.KL`), each question of an update is given the answer of the one drawn before it,
and the mean of how much likelier the policy finds these answers than the reference does, or 0 where that is below 0, is
the anchor of all samples of the update. Source: KTO (Ethayarajh et al. 2024, arXiv 2402.01306), section 4.2.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rlhf.core.errors import RunFolderError
from rlhf.core.protocols import LearnerHandle, ReferenceHandle
from rlhf.core.training import Sample, Stream
from rlhf.data.packing import by_sample, pack
from rlhf.loops.stage import LearnerRequest, Stage

if TYPE_CHECKING:
    from rlhf.loops.offline import Config

Units: TypeAlias = "Sequence[Sequence[Sample]]"
"""The samples of each example."""
_KEY_BYTES = 16


@dataclass(slots=True, kw_only=True)
class References:
    """Gives samples what the loss of a stage wants to know of the reference.

    Args:
        asked: streams of the loss.
        token_budget: of a micro-batch.
        model: the reference; None where nothing is asked of it any more.
        known: log-probs of the targets, by the key of a sample.
    """

    asked: Sequence[Stream]
    token_budget: int
    model: ReferenceHandle | None = None
    known: dict[bytes, NDArray[np.float32]] = field(default_factory=dict[bytes, "NDArray[np.float32]"])

    async def completed(self, units: Units, *, policy: LearnerHandle) -> list[Sample]:
        """The samples of an update with log-probs of the reference, and the KL under the policy's current weights."""
        samples = [sample for unit in units for sample in unit]
        if Stream.REF_LOGPROBS not in self.asked:
            return samples
        strangers = crossed(units) if Stream.KL in self.asked else []
        rows = await self._rows([*samples, *strangers])
        anchor = await self._kl(strangers, rows, policy) if strangers else None
        return [
            replace(s, ref_logprobs=_aligned(s, rows[s.id]), anchor=s.anchor if anchor is None else anchor)
            for s in samples
        ]

    async def remember(self, units: Units) -> None:
        """Compute what `completed` will ask for, and keep it."""
        strangers = crossed(units) if Stream.KL in self.asked else []
        wanted = [s for s in (*(s for unit in units for s in unit), *strangers) if key(s) not in self.known]
        if wanted:
            rows = await self._rows(wanted)
            self.known |= {key(s): np.array(rows[s.id], dtype=np.float32) for s in wanted}

    async def _rows(self, samples: Sequence[Sample]) -> dict[str, tuple[float, ...]]:
        """Log-probs of the targets by the id of a sample."""
        if self.model is None:
            return {s.id: tuple(self.known[key(s)].tolist()) for s in samples}
        return await _logprobs(self.model, samples, self.token_budget)

    async def _kl(self, strangers: Sequence[Sample], ref: dict[str, tuple[float, ...]], policy: LearnerHandle) -> float:
        found = await _logprobs(policy, strangers, self.token_budget)
        ratios = [math.fsum(found[s.id]) - math.fsum(ref[s.id]) for s in strangers]
        return max(0.0, math.fsum(ratios) / len(ratios))


def beside(cfg: Config, stage: Stage) -> References:
    """Asks the stage's reference with every batch, if the loss asks for one."""
    asked = cfg.loss.module.streams(cfg.loss.config)
    return References(asked=asked, token_budget=cfg.learner.micro_batch_tokens, model=stage.reference)


async def once(cfg: Config, stage: Stage, draws: Callable[[], Iterable[Units]]) -> References:
    """Asks the reference about everything, unless that has been done, and lets it go.

    Args:
        draws: the units of every update of the stage in order, and any others that will be asked for.
    """
    asked = cfg.loss.module.streams(cfg.loss.config)
    budget = cfg.learner.micro_batch_tokens
    path = stage.folder.data / f"{stage.name}.reference.safetensors"
    if not path.exists():
        print(f"{stage.name}: asking the reference about every answer, once")
        model = await stage.spawn_reference(LearnerRequest(None, cfg.learner, stage.sampling, 0))
        made = References(asked=asked, token_budget=budget, model=model)
        with stage.phase("ref"):
            for units in draws():
                await made.remember(units)
        await model.close()
        _write(path, made.known)
    return References(asked=asked, token_budget=budget, known=_read(path))


def crossed(units: Units) -> list[Sample]:
    """The questions of an update with the answers of the example before, the first one with those of the last."""
    out: list[Sample] = []
    for n, unit in enumerate(units):
        for place, sample in enumerate(unit):
            other = units[n - 1][place % len(units[n - 1])]
            out.append(
                Sample(
                    id=f"{sample.id}/crossed",
                    tokens=sample.tokens[: sample.target_start] + other.tokens[other.target_start :],
                    target_start=sample.target_start,
                    target_mask=other.target_mask,
                )
            )
    return out


def key(sample: Sample) -> bytes:
    """The same for samples with the same tokens and targets."""
    content = repr((sample.tokens, sample.target_start, sample.target_mask, sample.inputs))
    return hashlib.blake2b(content.encode(), digest_size=_KEY_BYTES).digest()


async def _logprobs(
    model: ReferenceHandle, samples: Sequence[Sample], token_budget: int
) -> dict[str, tuple[float, ...]]:
    # Nothing is compared here, so that nothing has to stay together.
    bare = [replace(s, unit=None, label=None, anchor=None, weights=None) for s in samples]
    batches = pack(bare, token_budget=token_budget, multiple=model.ranks)
    return by_sample(batches, await model.logprobs(batches))


def _aligned(sample: Sample, row: tuple[float, ...]) -> tuple[float, ...]:
    """One number per token from the first target on; 0 where there is no target."""
    if sample.target_mask is None:
        return row
    left = iter(row)
    return tuple(next(left) if is_target else 0.0 for is_target in sample.target_mask)


def _write(path: Path, known: dict[bytes, NDArray[np.float32]]) -> None:
    """Write the file whole, or not at all.

    Raises:
        RunFolderError: the disk refuses.
    """
    hidden = path.with_name(f".{path.name}.tmp")
    rows = list(known.values())
    tensors = {
        "keys": np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, _KEY_BYTES),
        "sizes": np.array([len(row) for row in rows], dtype=np.int64),
        "logprobs": np.concatenate(rows),
    }
    try:
        path.parent.mkdir(exist_ok=True)
        save_file(tensors, hidden)
        os.replace(hidden, path)
    except OSError as error:
        raise RunFolderError(str(path), f"cannot be written: {error}", fix="free disk space, then run again") from error


def _read(path: Path) -> dict[bytes, NDArray[np.float32]]:
    found = load_file(path)
    rows = np.split(found["logprobs"], found["sizes"].cumsum()[:-1])
    return {bytes(name): row for name, row in zip(found["keys"], rows, strict=True)}

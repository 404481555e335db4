"""Log-probs of recorded samples, computed again under an assumption about how they were sampled.

Used by `rlhf diagnose`. An assumption says which weights, which tokens, which sampling transforms and which arithmetic
were at work; the trainer's own forward pass does the rest, so that the assumption of a run's own config gives the very
numbers that the trainer had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.core.sampling import Transforms
from rlhf.core.training import Sample
from rlhf.core.types import Prompt, StopReason
from rlhf.data.packing import pack
from rlhf.data.render import render_prompt
from rlhf.learner import learner, optimizer
from rlhf.losses.common import kl
from rlhf.models.forward import ForwardSpec, forward, scores, use_packed
from rlhf.runtime.roles import ModelFolder
from rollout.rounding import round_mantissa, stored_bits

Record = Mapping[str, Any]
"""A row of `samples.jsonl`."""

RECORDED = "as recorded"


@dataclass(frozen=True, slots=True)
class Reading:
    """Tokens of one sample."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How numbers are rounded. `Arithmetic()` is that of the trainer."""

    dtype: torch.dtype | None = None
    """Of weights and computation; None is that of the trainer, mixed precision included."""
    mantissa_bits: int | None = None
    """Of the weights, otherwise as the trainer."""

    def __str__(self) -> str:
        if self.mantissa_bits is not None:
            return f"weights of {self.mantissa_bits} mantissa bits"
        return "that of the trainer" if self.dtype is None else f"{self.dtype}".removeprefix("torch.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """How a sample may have come about."""

    version: int
    """Of the weights."""
    tokens: str = RECORDED
    """A key of `readings`."""
    transforms: Transforms
    arithmetic: Arithmetic = Arithmetic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How far the trainer is from the sampler, over tokens."""

    mean: float
    """Of the absolute difference of log-probs."""
    largest: float
    k3: float
    """KL estimate in nats per token."""

    @staticmethod
    def between(trainer_T: Tensor, sampler_T: Tensor) -> Gap:
        """Of two sets of log-probs of the same tokens."""
        difference_T = (trainer_T - sampler_T).abs()
        k3 = kl(sampler_T, trainer_T, estimator="k3").mean()
        return Gap(mean=float(difference_T.mean()), largest=float(difference_T.max()), k3=float(k3))


@dataclass(slots=True, kw_only=True)
class Recomputer:
    """Computes the log-probs of a set of samples.

    Args:
        records: of samples whose log-probs are looked at.
        version: that of the weights which sampled the tokens in question; others of a sample that crossed an update do
            not count.
        weights: folders by version.
        opened: how the run opens a folder of weights.
        cfg: of the trainer.
        prompts: of the task, by id.
    """

    records: Sequence[Record]
    version: int
    weights: Mapping[int, Path]
    opened: Callable[[Path], ModelFolder]
    tokenizer: PreTrainedTokenizerBase
    cfg: learner.Config
    prompts: Mapping[str, Prompt]
    device: torch.device
    readings: dict[str, list[Reading]] = field(init=False)
    """Prompt and answer tokens of each sample, by how the sampler may have read them; only what differs from the record
    for some sample is there beside it."""
    _loaded: tuple[tuple[int, Arithmetic], PreTrainedModel] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        found = {name: [self._read(record, read) for record in self.records] for name, read in _READINGS.items()}
        recorded = [_as_recorded(record) for record in self.records]
        self.readings = {RECORDED: recorded} | {name: read for name, read in found.items() if read != recorded}

    @property
    def sampler_T(self) -> Tensor:
        """What the sampler said of the tokens in question."""
        return torch.tensor([x for r in self.records for x in r["logprobs"]], dtype=torch.float64)[self._counts_T]

    def trainer_T(self, assumption: Assumption) -> Tensor:
        """[T] float64: what the trainer would say of them."""
        samples = [
            Sample(id=str(i), tokens=read.prompt + read.answer, target_start=len(read.prompt))
            for i, read in enumerate(self.readings[assumption.tokens])
        ]
        model = self._model(assumption.version, assumption.arithmetic)
        spec = ForwardSpec(transforms=assumption.transforms, chunk_mib=self.cfg.chunk_mib, entropy_gradient=False)
        precision = self.cfg.optimizer.precision if assumption.arithmetic.dtype is None else "float32"
        longest = max(len(sample.tokens) for sample in samples)
        rows: dict[str, Tensor] = {}
        with torch.no_grad(), optimizer.autocast(self.device.type, precision):
            for batch in pack(samples, token_budget=max(longest, self.cfg.micro_batch_tokens)):
                logprobs_T = scores(forward(model, batch.to(self.device), spec)).double().cpu()
                sizes = [int(n) for n in batch.target_counts_S.tolist()]
                rows |= dict(zip(batch.ids, logprobs_T.split(sizes), strict=True))
        return torch.cat([rows[sample.id] for sample in samples])[self._counts_T]

    @property
    def _counts_T(self) -> Tensor:
        versions = [v for r in self.records for v in versions_of(r)]
        drawn = [bool(one) for r in self.records for one in r.get("sampled") or [1] * len(r["tokens"])]
        return (torch.tensor(versions) == self.version) & torch.tensor(drawn)

    def _read(self, record: Record, read: Callable[[Recomputer, Record], Reading]) -> Reading:
        found = read(self, record)
        return found if found.prompt and len(found.answer) == len(record["tokens"]) else _as_recorded(record)

    def _model(self, version: int, arithmetic: Arithmetic) -> PreTrainedModel:
        """One model at a time is in memory."""
        key = (version, arithmetic)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None
            model = self.opened(self.weights[version]).open(str(self.device)).eval().requires_grad_(False)
            if arithmetic.dtype is not None:
                torch.nn.Module.to(model, arithmetic.dtype)
            if arithmetic.mantissa_bits is not None:
                for parameter in model.parameters():
                    parameter.copy_(round_mantissa(parameter, bits=arithmetic.mantissa_bits))
            use_packed(model, where="model.path")
            self._loaded = (key, model)
        return self._loaded[1]

    def stored_bits(self, version: int) -> int:
        """Mantissa bits of the trainer's weights."""
        return stored_bits(self._model(version, Arithmetic()).dtype)


def versions_of(record: Record) -> Sequence[int]:
    """The version that sampled each token."""
    return record.get("versions") or [record["policy_version"]] * len(record["tokens"])


def _as_recorded(record: Record) -> Reading:
    return Reading(tuple(record["prompt_tokens"]), tuple(record["tokens"]))


def _rendered(of: Recomputer, record: Record) -> Reading:
    name: str = record["prompt_id"]
    prompt = of.prompts.get(name) or of.prompts.get(name.rpartition("~")[0])
    recorded = _as_recorded(record)
    return recorded if prompt is None else replace(recorded, prompt=render_prompt(of.tokenizer, prompt))


def _unmarked(of: Recomputer, record: Record) -> Reading:
    text = of.tokenizer.decode(record["prompt_tokens"], skip_special_tokens=True)
    return replace(_as_recorded(record), prompt=_encoded(of, text))


def _again(of: Recomputer, record: Record) -> Reading:
    return replace(_as_recorded(record), prompt=_encoded(of, of.tokenizer.decode(record["prompt_tokens"])))


def _begun(of: Recomputer, record: Record) -> Reading:
    begin = of.tokenizer.bos_token_id if of.tokenizer.bos_token_id is not None else of.tokenizer.eos_token_id
    assert isinstance(begin, int)
    recorded = _as_recorded(record)
    return replace(recorded, prompt=(begin, *recorded.prompt))


def _answer(of: Recomputer, record: Record) -> Reading:
    recorded = _as_recorded(record)
    end = recorded.answer[-1:] if record["stop"] == StopReason.EOS else ()
    return replace(recorded, answer=(*of.tokenizer.encode(record["text"], add_special_tokens=False), *end))


def _encoded(of: Recomputer, text: object) -> tuple[int, ...]:
    assert isinstance(text, str)
    return tuple(of.tokenizer.encode(text))


_READINGS: Mapping[str, Callable[[Recomputer, Record], Reading]] = {
    "prompts rendered by today's chat template": _rendered,
    "prompts as plain text, without the template's marks": _unmarked,
    "prompts decoded and encoded again": _again,
    "prompts behind a start token": _begun,
    "answers encoded again from their text": _answer,
}

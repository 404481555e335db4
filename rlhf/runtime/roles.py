"""What a run asks of a runtime: models to open and roles to fill, as data that can travel to another process.

A runtime (`local`, `ray`) decides where a role lives; what a role is made of is decided here, once. Built by
`rlhf.loops.setup` from the settings.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rewards.pool import WorkerPool
from rlhf.core.component import Component
from rlhf.core.errors import LostError
from rlhf.core.protocols import Engine, EngineHandle, EngineSpec, Grader, LearnerHandle, WeightSync
from rlhf.core.sampling import Transforms
from rlhf.core.training import Head
from rlhf.learner import learner
from rlhf.learner.learner import Learner
from rlhf.models import adapters, load
from rlhf.runtime.grading import GraderRole


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A model in Hugging Face format, with its tokenizer, and how to open it."""

    path: Path
    dtype: str
    trust_remote_code: bool
    chat_template: str | None
    """Replaces the tokenizer's own."""

    def open(
        self, device: str, *, dtype: str | None = None, head: Head = Head.LOGITS, quantization: Any = None
    ) -> PreTrainedModel:
        """A fresh copy of the weights on a device, in the type given or else in that of the run. See `load_model`."""
        return load.load_model(
            self.path,
            dtype=dtype or self.dtype,
            device=device,
            trust_remote_code=self.trust_remote_code,
            head=head,
            quantization=quantization,
        )

    def resolved(self) -> ModelFolder:
        """The same folder, found from any working directory."""
        return replace(self, path=self.path.resolve())

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; the same object for the same folder."""
        return _tokenizer(self)


@cache
def _tokenizer(folder: ModelFolder) -> PreTrainedTokenizerBase:
    return load.load_tokenizer(
        folder.path, chat_template=folder.chat_template, trust_remote_code=folder.trust_remote_code
    )


def _opened(folder: ModelFolder, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return folder.open(device), folder.tokenizer()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRole:
    """What samples."""

    component: Component
    model: ModelFolder

    def build(self, device: str) -> Engine:
        """The engine, in this process."""

        def other(path: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
            found = load.local_folder(path, trust_remote_code=self.model.trust_remote_code)
            return _opened(replace(self.model, path=found), device)

        spec = EngineSpec(
            path=self.model.path,
            dtype=self.model.dtype,
            device=device,
            trust_remote_code=self.model.trust_remote_code,
            load=lambda: _opened(self.model, device),
            open=other,
        )
        return self.component.module.build(self.component.config, spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerRole:
    """What trains, or with no loss only gives log-probs. Its loss says whether it is a policy or a critic."""

    model: ModelFolder
    loss: Component | None
    cfg: learner.Config
    transforms: Transforms
    total_updates: int
    """Optimizer updates of the stage, for the schedule."""
    version: int
    """Optimizer updates behind the weights in the folder."""
    first_version: int
    """`version` when the stage began."""
    seed: int = 0
    """Of random choices about what trains."""
    adapter: Path | None = None
    """Folder of adapters of `model` to go on with."""
    moves: bool = False
    """With no loss, it follows another learner."""

    def build(self, device: str) -> Learner:
        """The learner, in this process; of several ranks that share the model, the one that this process is."""
        held = adapters.quantization(self.cfg.trainable) if self.loss is not None else None
        return Learner(
            lambda dtype: self.model.open(device, dtype=dtype, head=learner.head(self.loss), quantization=held),
            self.model.tokenizer(),
            self.cfg,
            device=device,
            dtype=self.model.dtype,
            loss=self.loss,
            transforms=self.transforms,
            total_updates=self.total_updates,
            version=self.version,
            first_version=self.first_version,
            seed=self.seed,
            adapter=self.adapter,
            moves=self.moves,
        )

    def resolved(self) -> LearnerRole:
        """The same role, its folders found from any working directory."""
        adapter = self.adapter.resolve() if self.adapter is not None else None
        return replace(self, model=self.model.resolved(), adapter=adapter)


class Runtime(Protocol):
    """Where roles live. A module in `rlhf/runtime` with a `Config` and `start(cfg, site)` that returns one."""

    def engine(self, role: EngineRole) -> Awaitable[EngineHandle]: ...

    def learner(self, role: LearnerRole) -> Awaitable[LearnerHandle]: ...

    def foresee_learner(self) -> None:
        """One will be asked for: what takes long and needs no role begins, beside whatever else starts."""
        ...

    def grader(self, role: GraderRole) -> Awaitable[Grader]: ...

    def sync(self, learner: LearnerHandle, engine: EngineHandle) -> WeightSync:
        """Between two roles of this runtime."""
        ...

    def recover(self, error: LostError) -> Awaitable[bool]:
        """End what is left of all roles after one was lost, so that the loop can ask for them again.

        Returns:
            Whether it can: False when the run has to end.
        """
        ...

    def close(self) -> Awaitable[None]:
        """End every role."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the driver's process offers to a runtime."""

    device: str
    """Where roles in this process compute."""
    pool: WorkerPool
    """Reward workers of this process; they belong to whoever made them."""

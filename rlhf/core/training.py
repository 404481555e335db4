"""What a learner is given and what it gives back: Sample -> Batch -> ForwardOut -> LossOut.

The legend of shapes is that of `rlhf.core.types`; everything here is frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, device, dtype

    from rlhf.core.metrics import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training sequence before packing. Streams are aligned with `tokens[target_start:]` and may be None.

    `target_mask` None means that every token from `target_start` on is a target.
    Example: `Sample(id="…", tokens=(5, 6, 7, 8), target_start=2, advantages=(0.5, 0.5), …)`.
    """

    id: str
    tokens: tuple[int, ...]
    target_start: int
    target_mask: tuple[bool, ...] | None = None
    inputs: tuple[int, ...] | None = None
    """[tokens] What the model reads where that is not `tokens`, which it is to predict all the same; the same up to
    `target_start`."""
    unit: str | None = None
    """Samples of one unit are compared with each other by the loss (a pair, several answers to a question), so that
    they stay in one micro-batch, in the order in which they were given. None: each is a unit by itself."""
    label: float | None = None
    """What is known of the whole answer: 1 for the better one of a pair and 0 for the other, or 1 good and 0 bad."""
    anchor: float | None = None
    """What the loss holds the whole answer against: by how much the better one of a pair should win, or how far the
    policy has moved from the reference on answers to other questions (`Stream.KL`)."""
    advantages: tuple[float, ...] | None = None
    old_logprobs: tuple[float, ...] | None = None
    """Trainer's log-probs under the weights that the update starts from."""
    rollout_logprobs: tuple[float, ...] | None = None
    """Sampler's log-probs."""
    ref_logprobs: tuple[float, ...] | None = None
    """Log-probs under the frozen reference model."""
    values: tuple[float, ...] | None = None
    """What the critic expected before each token, under the weights that the step's updates start from."""
    returns: tuple[float, ...] | None = None
    """What it should have expected; for a process reward model, the label in [0, 1] of the step before each target."""
    weights: tuple[float, ...] | None = None
    """What the loss of each target counts."""
    topk_ids: tuple[tuple[int, ...], ...] | None = None
    """Per target the K tokens that a teacher finds likeliest there, the likeliest first."""
    topk_logprobs: tuple[tuple[float, ...], ...] | None = None
    """The teacher's log-probs of them."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where the input tokens of a sequence lie in a batch. Example: `Span(prompt=range(0, 3), own=range(5, 7))`."""

    prompt: range
    """Tokens before the first target; sequences with the same prompt may point at the same ones."""
    own: range
    """The tokens that follow, up to the one that predicts the last target. May be empty."""

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Packed sequences without padding: S sequences, N input tokens that predict T targets.

    A prompt that several sequences share stands in it once, and the last target of a sequence, which predicts nothing,
    not at all. Example: `[5, 6 | 7, 8]` and `[5, 6 | 9]` (targets behind the bar) give `tokens_N=[5, 6, 7]`,
    `spans=(Span(range(0, 2), range(2, 3)), Span(range(0, 2), range(3, 3)))`, `predictor_T=[1, 2, 1]`,
    `targets_T=[7, 8, 9]`, `sequence_T=[0, 0, 1]`.
    """

    ids: tuple[str, ...]
    """[S]"""
    spans: tuple[Span, ...]
    """[S]"""
    tokens_N: Tensor
    """int64"""
    positions_N: Tensor
    """int64, restarts at 0 with every prompt."""
    predictor_T: Tensor
    """int64, where in N the token stands whose hidden state predicts each target."""
    targets_T: Tensor
    """int64, the target tokens."""
    sequence_T: Tensor
    """int64 in [0, S), ascending: the sequence that a target belongs to."""
    target_counts_S: Tensor
    """float32, targets per sequence."""
    unit_S: Tensor
    """int64, rising: the unit that a sequence belongs to, counted from 0."""
    labels_S: Tensor | None = None
    """float32"""
    anchors_S: Tensor | None = None
    """float32"""
    advantages_T: Tensor | None = None
    old_logprobs_T: Tensor | None = None
    """None while a batch is used for one update only: "old" is then the current policy, detached."""
    rollout_logprobs_T: Tensor | None = None
    ref_logprobs_T: Tensor | None = None
    values_T: Tensor | None = None
    returns_T: Tensor | None = None
    weights_T: Tensor | None = None
    topk_ids_TK: Tensor | None = None
    """int64"""
    topk_logprobs_TK: Tensor | None = None

    @property
    def num_targets(self) -> int:
        return self.targets_T.shape[0]

    @property
    def num_sequences(self) -> int:
        return len(self.spans)

    def to(self, device: device) -> Batch:
        """The same batch with its tensors on a device."""

        def moved(stream: Tensor | None) -> Tensor | None:
            return None if stream is None else stream.to(device)

        return replace(
            self,
            tokens_N=self.tokens_N.to(device),
            positions_N=self.positions_N.to(device),
            predictor_T=self.predictor_T.to(device),
            targets_T=self.targets_T.to(device),
            sequence_T=self.sequence_T.to(device),
            target_counts_S=self.target_counts_S.to(device),
            unit_S=self.unit_S.to(device),
            labels_S=moved(self.labels_S),
            anchors_S=moved(self.anchors_S),
            advantages_T=moved(self.advantages_T),
            old_logprobs_T=moved(self.old_logprobs_T),
            rollout_logprobs_T=moved(self.rollout_logprobs_T),
            ref_logprobs_T=moved(self.ref_logprobs_T),
            values_T=moved(self.values_T),
            returns_T=moved(self.returns_T),
            weights_T=moved(self.weights_T),
            topk_ids_TK=moved(self.topk_ids_TK),
            topk_logprobs_TK=moved(self.topk_logprobs_TK),
        )


class Head(StrEnum):
    """What stands on a model's hidden states."""

    LOGITS = "logits"
    """A distribution over the next token: a policy."""
    VALUES = "values"
    """One number per token: a critic."""
    STEPS = "steps"
    """Two numbers per token, bad and good: a process reward model."""


@dataclass(frozen=True, slots=True)
class TopK:
    """The likeliest next tokens, the likeliest first, and their log-probs."""

    ids_TK: Tensor
    """int64"""
    logprobs_TK: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardOut:
    """What a model says about a batch's target tokens."""

    logprobs_T: Tensor
    """float32 (float64 for a float64 model), with gradient while training."""
    entropy_T: Tensor
    """Entropy of the predicting distribution in nats; carries gradient only when the loss asks for it."""
    topk_logprobs_TK: Tensor | None = None
    """Log-probs of the batch's `topk_ids_TK`, with gradient while training."""
    topk: TopK | None = None
    """What the model itself finds likeliest, where that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesOut:
    """What a critic, or a process reward model, says about a batch's target tokens."""

    values_T: Tensor
    """float32 (float64 for a float64 model), with gradient while training: the return expected before each target, or
    the log-odds that the tokens before it, a step's last, end a good step."""


class Labels(StrEnum):
    """What is known of the answers that a supervised stage learns from. A loss and its examples agree on it."""

    NONE = "none"
    """Every answer is to be learnt."""
    PAIRS = "pairs"
    """Of two answers to a question, which is the better one."""
    JUDGED = "judged"
    """Whether an answer is good or bad. Pairs say that too."""
    STEPS = "steps"
    """How good each step of an answer is."""


class Denominator(StrEnum):
    """What a loss sum is divided by. Counts are global: over all micro-batches and ranks of one update."""

    TOKENS = "tokens"
    """Target tokens."""
    SEQUENCES = "sequences"
    """Sequences with at least one target token."""
    UNITS = "units"
    """Pairs, or whatever else the loss compares (`Sample.unit`)."""
    CONSTANT = "constant"
    """Sequences; the loss itself has divided by a fixed token budget (Dr.GRPO)."""


class Stream(StrEnum):
    """Per-token inputs that a loss may ask for. What is declared decides which roles exist."""

    ADVANTAGES = "advantages"
    OLD_LOGPROBS = "old_logprobs"
    ROLLOUT_LOGPROBS = "rollout_logprobs"
    REF_LOGPROBS = "ref_logprobs"
    """Brings a reference model to life."""
    KL = "kl"
    """No numbers per token, but one for a whole update, in `anchors_S`: the KL from the policy to the reference, as
    answers to other questions show it."""
    ENTROPY = "entropy"
    """The entropy with its gradient, for a bonus."""
    VALUES = "values"
    RETURNS = "returns"
    WEIGHTS = "weights"
    TOPK = "topk"
    """Brings a teacher to life, which says what it finds likeliest before training begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOut:
    """An unnormalised sum over this batch's targets; the learner divides by the global count, once."""

    total: Tensor
    """Scalar with gradient."""
    metrics: Mapping[str, Metric]
    terms_T: Tensor | None = None
    """What each target adds to `total`, without gradient. None says that a target's term follows from its own streams
    alone; a loss in which the targets of a sequence depend on each other gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStats:
    """What one optimizer step did."""

    version: int
    grad_norm: float
    lr: float
    metrics: Mapping[str, Metric]


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """What is known of a tensor that need not be in memory. Example: `TensorMeta("head.weight", bfloat16, (9, 4))`."""

    name: str
    dtype: dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return self.dtype.itemsize * prod(self.shape)

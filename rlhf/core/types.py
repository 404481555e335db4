"""The nouns of the project, in the order in which data flows; the second line is in `rlhf.core.training`.

    Prompt -> Request -> Completion -> Trajectory -> Group
    -> Sample -> Batch -> LossOut

Shape legend, used in every file: `P` prompts, `G` samples of one prompt (a group), `S` sequences, `N` packed input
tokens, `T` packed target tokens (those the loss sees), `V` vocabulary, `K` top-k, `B` pairs. A suffix names the shape:
`advantages_T`, `logits_TV`.

Log-probs are float32, natural log, and aligned to the token they predict: `logprobs[t]` is that of `tokens[t]` given
`tokens[:t]`. Everything here is frozen. Plain values stay plain (tuples, floats) until `rlhf.data.packing` makes
tensors of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

_STEP = re.compile(r"-?\d+-(\d+)-")
"""Begin of a trajectory's id."""

Scalar: TypeAlias = "str | int | float | bool | None"
Json: TypeAlias = "Scalar | Sequence[Json] | Mapping[str, Json]"


class StopReason(StrEnum):
    """Why a sampler stopped."""

    EOS = "eos"
    STOP_STRING = "stop_string"
    LENGTH = "length"
    """The token budget ran out: the answer is truncated."""
    ABORTED = "aborted"


class Verdict(StrEnum):
    """What a verifier found. Only `CORRECT` and `WRONG` are judgements of an answer that was read."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """The completion holds no final answer in any accepted form; graded as wrong (value 0.0)."""
    REFUSED = "refused"
    """The completion declines to answer; what that is worth depends on what the model knows."""
    UNPARSABLE = "unparsable"
    """There is an answer, or a gold, that the verifier cannot read."""
    TIMEOUT = "timeout"
    CRASH = "crash"
    SKIPPED = "skipped"
    """Not graded on purpose, for example because an earlier part of the rubric decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat turn. Example: `Message(role="user", content="3+5+9=")`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question with what its verifier needs.

    Example: `Prompt(id="sums-17", messages=(Message(role="user", content="3+5+9="),), gold="17", task="sums")`.
    """

    id: str
    """Stable and unique within the task and split."""
    messages: tuple[Message, ...]
    gold: str
    """The reference answer, in the form the task's verifier reads."""
    task: str
    solution: str | None = None
    """A worked reference solution, the target of supervised stages; None when the data has none."""
    columns: Mapping[str, Json] = field(default_factory=dict[str, "Json"])
    """The remaining columns of the dataset row, handed to user rewards by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sample to generate. Requests of one group share `prompt_tokens` and are best sent together."""

    id: str
    prompt_tokens: tuple[int, ...]
    seed: int
    """64-bit. The sampled tokens depend on weights, prompt and this, never on neighbours in the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine returns for one `Request`. `tokens` holds the EOS token when `stop` is EOS."""

    request_id: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """[len(tokens)] The sampler's own, after its sampling transforms (temperature, top-k, top-p)."""
    text: str
    """Decoded without EOS and special tokens, cut before a stop string."""
    stop: StopReason
    policy_version: int
    versions: tuple[int, ...] = ()
    """[len(tokens)] The version that sampled each token of a completion that went on across a weight update; empty when
    `policy_version` sampled all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One sampled answer, with all that is needed to generate it again.

    Example: `Trajectory(id="0-412-sums-17-3", prompt_id="sums-17", index=3, …)`.
    """

    id: str
    """`<run seed>-<step>-<prompt id>-<sample index>`; the sampling seed is a hash of it."""
    prompt_id: str
    index: int
    """Position in the group, 0-based."""
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """[len(tokens)] The sampler's log-probs under the transforms used."""
    text: str
    stop: StopReason
    policy_version: int
    """Optimizer steps behind the weights that sampled its first token."""
    seed: int
    versions: tuple[int, ...] = ()
    """[len(tokens)] As in `Completion`."""
    ends: tuple[int, ...] = ()
    """[len(tokens)] Characters of `text` that are there after each token; only for rewards that place values."""

    @property
    def step(self) -> int:
        """Step of the run that sampled it, 0 where it was sampled outside of training."""
        named = _STEP.match(self.id)
        return int(named[1]) if named else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardOut:
    """One graded trajectory.

    `value` None means "could not be graded": counted, reported, and left out of the update; never trained on as 0.
    Example: `RewardOut(value=1.0, verdict=Verdict.CORRECT, reason="match/rational", extracted="17")`.
    """

    value: float | None
    verdict: Verdict
    reason: str = ""
    """Machine-readable, `family/detail`: `match/rational`, `mismatch`, `limit/chars`, …"""
    extracted: str | None = None
    """The one answer candidate that was read from the completion."""
    breakdown: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])
    """Unweighted value per component of a rubric."""
    per_token: tuple[float, ...] = ()
    """[tokens] What of `value` is due to single tokens; the rest is due to the whole answer. Empty: nothing is."""
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """Weight of each component that was added to `value`, at the step of the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All samples of one prompt. `rewards` is empty until scored, then aligned with `trajectories` [G]."""

    prompt: Prompt
    trajectories: tuple[Trajectory, ...]
    rewards: tuple[RewardOut, ...] = ()
    penalties_GT: tuple[tuple[float, ...], ...] = ()
    """Per-token amounts subtracted from the reward (KL in reward), aligned with each trajectory's tokens, or empty."""
    values_GT: tuple[tuple[float, ...], ...] = ()
    """What the critic expected before each token, aligned with each trajectory's tokens; empty without a critic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where to go on with a sampled answer: a beginning of it. Example: `Start(name="…~0", characters=6, …)`."""

    name: str
    """Stable; the seeds of what is sampled from here are hashes of it."""
    prompt: Prompt
    trajectory: Trajectory
    characters: int
    """Of its text to keep; the token that holds the last of them is kept whole."""


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
    advantages_T: Tensor | None = None
    old_logprobs_T: Tensor | None = None
    """None while a batch is used for one update only: "old" is then the current policy, detached."""
    rollout_logprobs_T: Tensor | None = None
    ref_logprobs_T: Tensor | None = None
    values_T: Tensor | None = None
    returns_T: Tensor | None = None

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
            advantages_T=moved(self.advantages_T),
            old_logprobs_T=moved(self.old_logprobs_T),
            rollout_logprobs_T=moved(self.rollout_logprobs_T),
            ref_logprobs_T=moved(self.ref_logprobs_T),
            values_T=moved(self.values_T),
            returns_T=moved(self.returns_T),
        )


class Head(StrEnum):
    """What stands on a model's hidden states."""

    LOGITS = "logits"
    """A distribution over the next token: a policy."""
    VALUES = "values"
    """One number per token: a critic."""
    STEPS = "steps"
    """Two numbers per token, bad and good: a process reward model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardOut:
    """What a model says about a batch's target tokens."""

    logprobs_T: Tensor
    """float32 (float64 for a float64 model), with gradient while training."""
    entropy_T: Tensor
    """Entropy of the predicting distribution in nats; carries gradient only when the loss asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesOut:
    """What a critic, or a process reward model, says about a batch's target tokens."""

    values_T: Tensor
    """float32 (float64 for a float64 model), with gradient while training: the return expected before each target, or
    the log-odds that the tokens before it, a step's last, end a good step."""


class Denominator(StrEnum):
    """What a loss sum is divided by. Counts are global: over all micro-batches and ranks of one update."""

    TOKENS = "tokens"
    """Target tokens."""
    SEQUENCES = "sequences"
    """Sequences with at least one target token."""
    CONSTANT = "constant"
    """Sequences; the loss itself has divided by a fixed token budget (Dr.GRPO)."""


class Stream(StrEnum):
    """Per-token inputs that a loss may ask for. What is declared decides which roles exist."""

    ADVANTAGES = "advantages"
    OLD_LOGPROBS = "old_logprobs"
    ROLLOUT_LOGPROBS = "rollout_logprobs"
    REF_LOGPROBS = "ref_logprobs"
    """Brings a reference model to life."""
    ENTROPY = "entropy"
    """The entropy with its gradient, for a bonus."""
    VALUES = "values"
    RETURNS = "returns"


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

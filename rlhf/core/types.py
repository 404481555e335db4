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

    @property
    def chat(self) -> list[dict[str, str]]:
        """The messages as chat templates and datasets have them."""
        return [{"role": message.role, "content": message.content} for message in self.messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sample to generate. Requests of one group share `prompt_tokens` and are best sent together."""

    id: str
    prompt_tokens: tuple[int, ...]
    seed: int
    """64-bit. The sampled tokens depend on weights, prompt and this, never on neighbours in the batch."""
    pattern: str = ""
    """Regular expression that the whole text has to match (`rollout.patterns`); log-probs are those of the distribution
    without the tokens that would break it. Empty: any text."""


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
    sampled: tuple[bool, ...] = ()
    """[len(tokens)] False for a token that was put there, as what a tool says is: it has the log-prob 0, and is not
    trained on. Empty: the policy sampled all of them."""
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
    """[tokens] What of `value` is due to single tokens; the rest is due to the whole answer. Empty: nothing is. What is
    due at a token may depend on those up to it only, else credit for what is still to come is wrong."""
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
    greedy: Group | None = None
    """A group of one beside this one: the greedy answer to the prompt, where the advantages compare with it. Nothing is
    trained on it."""
    teacher_gaps_GT: tuple[tuple[float, ...], ...] = ()
    """Log-prob of each token under the policy less that under a teacher, whose mean is KL(policy || teacher); empty
    without a teacher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where to go on with a sampled answer: a beginning of it. Example: `Start(name="…~0", characters=6, …)`."""

    name: str
    """Stable; the seeds of what is sampled from here are hashes of it."""
    prompt: Prompt
    trajectory: Trajectory
    characters: int
    """Of its text to keep; the token that holds the last of them is kept whole."""

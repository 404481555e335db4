"""What the file of a component provides: the functions that its slot calls, and what they are handed.

One protocol per slot; `tests/contracts/test_components.py` holds every file against it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from rlhf.core.search import Draft, SearchTools
from rlhf.core.training import Batch, Denominator, ForwardOut, LossOut, Sample, Stream
from rlhf.core.types import Group, Json, Prompt, RewardOut, Start

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LossModule(Protocol):
    """A file in `rlhf/losses`. The three small functions say what the loss needs before anything runs; a loss that
    trains a critic also says `HEAD = Head.VALUES`, and is given `ValuesOut`; one that wants to know more of answers
    than that they are to be learnt says so, for example `LABELS = Labels.PAIRS`."""

    Config: type[Any]

    def denominator(self, cfg: Any) -> Denominator: ...

    def streams(self, cfg: Any) -> tuple[Stream, ...]: ...

    def zero_advantage_is_free(self, cfg: Any) -> bool:
        """True when a sequence whose advantages are all zero has no gradient, so that it need not be computed."""
        ...

    def loss(self, forward: ForwardOut, batch: Batch, cfg: Any) -> LossOut: ...


class GuessingLossModule(LossModule, Protocol):
    """One for which the model reads, in place of targets, mixtures of them with its own guesses."""

    def guessed(self, cfg: Any) -> float:
        """How much of such a mixture is the guess; at 0 the model reads the targets, in one pass."""
        ...


class AdvantageModule(Protocol):
    """A file in `rlhf/advantages`."""

    Config: type[Any]

    def advantages(self, groups: Sequence[Group], cfg: Any) -> list[list[tuple[float, ...] | None]]:
        """Per group, per trajectory: one value per response token; None for what could not be graded."""
        ...


class CriticAdvantageModule(AdvantageModule, Protocol):
    """One that needs a critic: its groups come with `values_GT`."""

    def returns(self, groups: Sequence[Group], cfg: Any) -> list[list[tuple[float, ...] | None]]:
        """What the critic is to learn, in the same form."""
        ...


class GreedyAdvantageModule(AdvantageModule, Protocol):
    """One that compares with the greedy answer to each prompt: its groups come with `greedy`."""

    GREEDY: bool


class TeacherAdvantageModule(AdvantageModule, Protocol):
    """One that needs a teacher: `TEACHER` is True, and its groups come with `teacher_gaps_GT`."""

    TEACHER: bool


class RewardModule(Protocol):
    """A file in `rewards`."""

    Config: type[Any]

    def score(self, group: Group, cfg: Any, tools: Tools) -> list[RewardOut]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What the program in an answer did."""

    steps: tuple[tuple[str, str], ...]
    """Lines of it in the order in which they ran, each with what it gave names: `("c = a + b", "c = 7")`; lines that
    gave none are left out."""
    printed: str
    failure: str = ""
    """Why it did not end well: `no_block`, `timeout`, `ZeroDivisionError`, …; empty if it did."""


class Continuer(Protocol):
    """What a builder may ask its stage for: samples from the middle of answers, answers to other questions, how likely
    and how right given answers are, what programs in them do, and what other datasets hold."""

    def go_on(self, starts: Sequence[Start], *, count: int) -> Awaitable[list[Group]]:
        """Per start a group of `count` answers that begin alike, with the verdicts of the first reward; a start behind
        the end of its answer goes on from there."""
        ...

    def begun(self, prompt: Prompt, text: str, *, name: str) -> Start:
        """The end of an answer that begins with a given text, to go on from."""
        ...

    def ask(self, prompts: Sequence[Prompt], *, begin: str) -> Awaitable[list[str]]:
        """What the policy answers to each of other questions, after a text that its answer begins with; not graded."""
        ...

    def logprobs(self, answers: Sequence[tuple[Prompt, str]]) -> Awaitable[list[tuple[float, ...]]]:
        """Of every token of each answer and of its end, under the stage's model as it is, with no sampling transform:
        tokenized as a supervised stage would."""
        ...

    def graded(self, answers: Sequence[tuple[Prompt, str]]) -> Awaitable[list[RewardOut]]:
        """The verdict of the first reward on each answer, which may come from anywhere."""
        ...

    def execute(self, answers: Sequence[str], *, seconds: float) -> Awaitable[list[Execution]]:
        """Runs the Python program in each answer, in a sandbox."""
        ...

    def rows(self, source: str, *, where: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Rows of an earlier generate stage, or of a dataset, by `content_key` of the question that they belong to.

        Args:
            source: name of the stage, or a source as `rlhf.data.sources` reads it.
            where: config path of it, for messages.

        Raises:
            DataError: there is no such thing, or a row has no question.
        """
        ...


class BuilderModule(Protocol):
    """A file in `rlhf/data/build`: makes rows of a dataset. `CONTINUES` says whether it samples from the middle of
    answers, which takes room for twice `sampling.max_tokens`; `WHOLE_GROUPS` whether it is given every sample of a
    prompt, and not those that were selected; `WRONG_TOO` whether it needs wrong answers beside right ones. `SOURCES`,
    where there is one, says which keys of its config name datasets that it reads, and which builder writes such rows
    (empty: any); `GREEDY` that groups come with the greedy answer beside them; `UNSAMPLED` that it can do without
    samples, with `samples_per_prompt: 0`."""

    Config: type[Any]
    CONTINUES: bool
    WHOLE_GROUPS: bool
    WRONG_TOO: bool

    async def build(self, groups: Sequence[Group], cfg: Any, continuer: Continuer) -> list[dict[str, Json]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many answers of a prompt a dataset is to have, and after how many samples to give up."""

    rows: int
    samples: int


class QuotaBuilderModule(BuilderModule, Protocol):
    """One that says how many answers it wants of each prompt: its stage draws a prompt once, and samples it until it
    has them."""

    def quotas(self, prompts: Sequence[Prompt], cfg: Any, continuer: Continuer) -> list[Quota]:
        """One per prompt of the stage, asked for once, before anything is sampled."""
        ...


class FinishingBuilderModule(BuilderModule, Protocol):
    """One whose rows are to be seen together before they are what they are to be."""

    def finish(self, rows: Sequence[dict[str, Json]], cfg: Any) -> list[dict[str, Json]]:
        """The rows of the dataset, from those of all steps; these say where they come from in `origin`, which stays."""
        ...


class Example(Protocol):
    """What a supervised stage draws: a question with whatever is known of answers to it; a dataclass."""

    @property
    def prompt(self) -> Prompt: ...


class ExamplesModule(Protocol):
    """A file in `rlhf/data/examples`: what a row of a dataset means, and which samples it becomes. `LABELS`, where
    there is one, says what is known of them."""

    Config: type[Any]

    def read(self, row: Mapping[str, Any], cfg: Any, *, where: str, name: str) -> Any:
        """The `Example` in a row.

        Args:
            where: file and row, for messages.
            name: id of its prompt.

        Raises:
            DataError: the row cannot be used.
        """
        ...

    def given(self, prompt: Prompt, cfg: Any) -> Any | None:
        """The `Example` that a task gives with one of its prompts; None where it gives none."""
        ...

    def render(self, example: Any, cfg: Any, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
        """The samples of an example, with ids that begin with that of its prompt."""
        ...


class TransformModule(Protocol):
    """A file in `rlhf/data/transforms`: changes a supervised sample each time that it is drawn."""

    Config: type[Any]

    def streams(self, cfg: Any) -> tuple[Stream, ...]:
        """What samples have to carry for it, and the stage's loss to declare."""
        ...

    def transform(
        self, sample: Sample, cfg: Any, *, rng: Random, done: float, tokenizer: PreTrainedTokenizerBase
    ) -> Sample:
        """The sample to learn from in this one's place, with the same id, tokens and targets.

        Args:
            rng: of its own for every run seed, step, transform and sample id.
            done: share of the stage's updates that are made, in [0, 1).

        Raises:
            DataError: the tokenizer lacks what it needs.
        """
        ...


class SamplerModule(Protocol):
    """A file in `rollout/samplers`: how one answer to a prompt is found. One whose choice goes by scores has a config
    that inherits `rlhf.core.search.ScoredConfig`; one whose answers the policy sampled as they are, so that it can be
    trained on them, says `TRAINS = True`."""

    Config: type[Any]

    async def search(self, tools: SearchTools, cfg: Any) -> Draft: ...


class FilterModule(Protocol):
    """A file in `rollout/filters`."""

    Config: type[Any]

    def keep(self, group: Group, cfg: Any) -> Kept: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKnown:
    """What training has shown of a group of prompts."""

    seen: int = 0
    """Steps that answered some of its prompts."""
    fast: float = 0.0
    """Running success rate with a short memory."""
    slow: float = 0.0
    """The same with a long memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a stage knows of a training prompt when it draws the next ones."""

    prompt: Prompt
    group: str
    drawn: int = 0
    """How often it was drawn."""
    seen: int = 0
    """How often answers to it could be graded."""
    rate: float | None = None
    """Running success rate of its answers; None where there was none."""


class CurriculumModule(Protocol):
    """A file in `rlhf/data/curricula`: which prompts come next."""

    Config: type[Any]

    def weights(
        self, known: Sequence[Known], cfg: Any, *, groups: Mapping[str, GroupKnown], done: float
    ) -> list[float]:
        """Per prompt how likely it is to be drawn, in any unit, 0 for not at all.

        Args:
            groups: by the names that `known` gives them.
            done: share of the stage that is done, in [0, 1].

        Raises:
            DataError: prompts do not say what it goes by.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a filter leaves of a group: None drops it. `reason` is counted in the metrics."""

    group: Group | None
    reason: str = ""


class Tools(Protocol):
    """What a reward may use besides the group: killable workers for anything that could hang or crash."""

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        """Run `module:function` on one argument in a worker process that is killed at the deadline.

        Raises:
            TimeoutError: the deadline passed. `WorkerError`: the function raised or its process died.
        """
        ...


class TrainableModule(Protocol):
    """A file in `rlhf/models/trainable`. One that adds parameters to a model whose own stay as they are says
    `ADDS = True`; one that wants these held in fewer bits has a function `quantization(cfg)`, see `qlora`."""

    Config: type[Any]

    def prepare(self, model: PreTrainedModel, cfg: Any, seed: int) -> None:
        """Set `requires_grad` on what trains, and nowhere else; random choices follow from the seed."""
        ...

"""What the task files share: prompt sets, splits, reading of dataset rows, and the proof that golds can be graded.

A task file turns rows (or generated instances) into `Prompt`s. It is built by the loops and by `rlhf tasks`; it exposes
`Config`, `build(cfg, *, seed, rows) -> Task`, `sources(cfg)`, `reference(prompt)`, `REWARDS` and `DESCRIPTION`.
Rooms of one layer do not import each other: the function that reads datasets (`rlhf.data.sources.rows`) and the
verifier are handed in. Invariants: prompt ids are unique within a set, every choice is a function of the seed and a
stable name, and a question never stands on both sides of a split made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Message, Prompt, RewardOut, Verdict

Row = Mapping[str, Any]
"""A raw dataset row."""


class ReadRows(Protocol):
    """Reads a dataset by path or hub id; `rlhf.data.sources.rows` is the one that ships."""

    def __call__(self, source: str, *, split: str, subset: str, where: str) -> Sequence[Row]: ...


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Where the rows of a dataset task come from."""

    train: str
    """Training rows: a .jsonl, .json or .parquet file, or a Hugging Face dataset id."""
    test: str | None
    """Held-out rows, named like `train`. null: hold out a share of the training rows."""
    subset: str
    """Configuration of hub datasets that have several; empty for those that have one. Files ignore it."""
    train_split: str = "train"
    """Split of a hub dataset to train on. Files ignore it."""
    test_split: str = "test"
    """Split of a hub dataset to hold out. Files ignore it."""
    held_out_share: float = 0.05
    """Share of the distinct training questions that is held out where `test` is null."""
    max_train: int | None = None
    """Keep this many training prompts, chosen by the seed; null keeps all."""
    max_held_out: int | None = None
    """Keep this many held-out prompts, chosen by the seed; null keeps all."""
    instruction: str
    """A line added below the question; empty for none."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out_share < 1:
            raise ConfigError("held_out_share", f"{self.held_out_share} is not a share", fix="use 0.05 or the like")
        for name, limit in (("max_train", self.max_train), ("max_held_out", self.max_held_out)):
            if limit is not None and limit < 1:
                raise ConfigError(name, f"{limit} leaves no prompts", fix="use 1 or more, or null for all")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSets:
    """A `Task` whose prompts are all known when it is built."""

    train_prompts: tuple[Prompt, ...]
    held_out_prompts: tuple[Prompt, ...]

    def train(self) -> Sequence[Prompt]:
        return self.train_prompts

    def held_out(self) -> Sequence[Prompt]:
        return self.held_out_prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a task file reads from one row."""

    question: str
    gold: str
    solution: str | None
    """None where the data has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A prompt whose own reference the verifier does not accept."""

    prompt_id: str
    gold: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """How a verifier judges the references of a task."""

    checked: int
    refused: tuple[Refusal, ...]
    without: int = 0
    """Prompts that have no reference to be judged."""

    @property
    def ok(self) -> bool:
        return not self.refused

    def summary(self, *, limit: int = 10) -> str:
        """One line with the counts, then a line for each of the first refused prompts."""
        lines = [f"{self.checked - len(self.refused)} of {self.checked} golds are accepted by their verifier"]
        if self.without:
            lines[0] += f"; {self.without} prompts have no reference answer"
        lines += [f"  {r.prompt_id}: {r.verdict} {r.reason} (gold {r.gold!r})" for r in self.refused[:limit]]
        if len(self.refused) > limit:
            lines.append(f"  and {len(self.refused) - limit} more")
        return "\n".join(lines)


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct: the worked solution, or the bare gold where there is none."""
    return prompt.gold if prompt.solution is None else prompt.solution


def validate(
    prompts: Iterable[Prompt],
    verify: Callable[[str, str], RewardOut],
    *,
    reference: Callable[[Prompt], str | None] = reference,
) -> ValidationReport:
    """Check that a verifier accepts every gold.

    Args:
        prompts: what to check.
        verify: (completion, gold) to verdict.
        reference: the completion of a prompt that must be correct, None where there is none; a task file exposes its
            own.

    Returns:
        The number checked and the prompts whose reference is anything but `CORRECT`.
    """
    return report(prompts, lambda prompt, completion: verify(completion, prompt.gold), reference=reference)


def report(
    prompts: Iterable[Prompt],
    grade: Callable[[Prompt, str], RewardOut],
    *,
    reference: Callable[[Prompt], str | None] = reference,
) -> ValidationReport:
    """The same with a grader that sees the whole prompt.

    Args:
        prompts: what to check.
        grade: (prompt, completion) to verdict.
        reference: as in `validate`.
    """
    checked, without, refused = 0, 0, list[Refusal]()
    for prompt in prompts:
        completion = reference(prompt)
        if completion is None:
            without += 1
            continue
        checked += 1
        out = grade(prompt, completion)
        if out.verdict is not Verdict.CORRECT:
            refused.append(Refusal(prompt_id=prompt.id, gold=prompt.gold, verdict=out.verdict, reason=out.reason))
    return ValidationReport(checked=checked, refused=tuple(refused), without=without)


def from_rows(
    task: str,
    cfg: DatasetConfig,
    *,
    seed: int,
    rows: ReadRows,
    read: Callable[[Row, str], Problem],
    used: Sequence[str],
) -> PromptSets:
    """Build the prompt sets of a dataset task.

    Args:
        task: name of the task, the first part of every prompt id.
        cfg: where the rows are and how many to keep.
        seed: decides which rows are held out and kept.
        rows: reads a dataset.
        read: (row, name of the row for messages) to its problem; raises `DataError` for a row that it cannot read.
        used: columns that `read` consumes; the others go to `Prompt.columns`.
    """

    def prompts(source: str, split: str, key: str) -> tuple[Prompt, ...]:
        found = rows(source, split=split, subset=cfg.subset, where=f"task.{key}")
        return tuple(
            _prompt(task, f"{task}-{key}-{n}", row, read(row, f"{source}, row {n}"), cfg.instruction, used)
            for n, row in enumerate(found, start=1)
        )

    train = prompts(cfg.train, cfg.train_split, "train")
    if cfg.test is None:
        train, held_out = _split(train, share=cfg.held_out_share, seed=seed, where=cfg.train)
    else:
        held_out = prompts(cfg.test, cfg.test_split, "test")
    return PromptSets(
        train_prompts=_keep(train, limit=cfg.max_train, seed=seed, name="max_train"),
        held_out_prompts=_keep(held_out, limit=cfg.max_held_out, seed=seed, name="max_held_out"),
    )


def dataset_sources(cfg: DatasetConfig) -> tuple[str, ...]:
    """The datasets that a config reads, for the run's environment record."""
    return (cfg.train,) if cfg.test is None else (cfg.train, cfg.test)


def text_field(row: Row, name: str, *, where: str, setting: str) -> str:
    """A column that must hold text.

    Args:
        row: the row.
        name: its column.
        where: file and row number, for the message.
        setting: config path that names the column.

    Raises:
        DataError: the column is missing, not text, or blank.
    """
    if name not in row:
        have = ", ".join(map(str, row)) or "(none)"
        raise DataError(where, f"has no column '{name}'", fix=f"set {setting} to one of its columns: {have}")
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise DataError(where, f"column '{name}' holds {value!r}, not text", fix="mend or remove this row")
    return value


def _prompt(task: str, name: str, row: Row, problem: Problem, instruction: str, used: Sequence[str]) -> Prompt:
    content = f"{problem.question}\n{instruction}" if instruction else problem.question
    return Prompt(
        id=name,
        messages=(Message(role="user", content=content),),
        gold=problem.gold,
        task=task,
        solution=problem.solution,
        columns={key: value for key, value in row.items() if key not in used},
    )


def _split(
    prompts: tuple[Prompt, ...], *, share: float, seed: int, where: str
) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """(train, held out). Whole questions move, so that a repeated row cannot stand on both sides."""
    questions = {prompt.messages[0].content for prompt in prompts}
    if len(questions) < 2:
        raise DataError(where, "has one distinct question, which cannot be split", fix="add rows, or set task.test")
    ranked = sorted(questions, key=lambda text: derive_seed(seed, "held_out", text))
    chosen = set(ranked[: min(len(ranked) - 1, max(1, round(share * len(ranked))))])
    held_out = tuple(p for p in prompts if p.messages[0].content in chosen)
    return tuple(p for p in prompts if p.messages[0].content not in chosen), held_out


def _keep(prompts: tuple[Prompt, ...], *, limit: int | None, seed: int, name: str) -> tuple[Prompt, ...]:
    """A subset chosen by the seed, in the order of the data; a larger limit keeps what a smaller one kept."""
    if limit is None or limit >= len(prompts):
        return prompts
    ranked = sorted(prompts, key=lambda prompt: derive_seed(seed, name, prompt.id))
    chosen = {prompt.id for prompt in ranked[:limit]}
    return tuple(prompt for prompt in prompts if prompt.id in chosen)

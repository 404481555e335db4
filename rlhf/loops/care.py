"""What a run leaves out of its data before it trains on them, and what it says of the rest.

    care: {held_out: true, against: [gsm8k_test.jsonl], overlap: {n: 8, share: 0.5}, duplicates: {find: exact}}

A training prompt, or a row of a file that a supervised stage reads, is left out when it shares too much with an
evaluation text (`rlhf.data.care.overlap`): a held-out prompt of the run's own tasks, or a row of `against`; or when it
repeats an earlier one: a prompt by its question, a row by all that it says (`rlhf.data.care.duplicates`). Of worked
answers, those are left out that are noisy (`rlhf.loops.noise`); of prompts, those of a task or kind that is held out as
a whole (`rlhf.data.care.split`), before all else. Everything follows from config and data, so that a run that goes on,
a replay and a plan see the same prompts. `removed/` in the run folder has a line for each that was left out;
`environment.json`, and with it the report, has hashes of all sources, and number and hash of the prompts of every task,
as they are trained on and held out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.core.errors import DataError
from rlhf.core.outcomes import NO_ERROR
from rlhf.core.protocols import Task
from rlhf.core.run_folder import write_whole
from rlhf.core.types import Json, Prompt
from rlhf.data.care import rows
from rlhf.data.care import split as splitting
from rlhf.data.care.duplicates import NONE, Duplicates, DuplicatesConfig
from rlhf.data.care.noise import Noise, NoiseConfig
from rlhf.data.care.overlap import EvalText, Index, Match, OverlapConfig, screened
from rlhf.data.care.split import Sides, SplitConfig
from rlhf.loops.clean import eval_texts
from rlhf.loops.noise import Grade, NoiseFilter, unsolved
from rlhf.tasks import generated
from rlhf.tasks.common import PromptSets

HELD_OUT = "held-out prompts"
"""The source of the run's own evaluation texts, in what is said of a match."""
PROMPTS = "prompts"
"""What `removed/` calls those of the tasks; other files there have names of stages."""


@dataclass(frozen=True, kw_only=True)
class CareConfig:
    """What is left out before training; by default nothing is."""

    held_out: bool = False
    """Compare with the held-out prompts of the run's own tasks."""
    against: list[str] = field(default_factory=list[str])
    """Evaluation sets to compare with besides: .jsonl, .json or .parquet files, or hub ids (split `test`)."""
    asked: list[str] = field(default_factory=list[str])
    """Columns of these that hold the question; empty: the first of question, problem, prompt, instruction, input,
    messages, text."""
    overlap: OverlapConfig = field(default_factory=OverlapConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    split: SplitConfig = field(default_factory=SplitConfig)

    @property
    def compares(self) -> bool:
        """Whether texts are compared."""
        return self.held_out or bool(self.against) or self.duplicates.find != NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """Something that is not trained on."""

    name: str
    """A prompt's id, or the row of a file."""
    match: Match | None = None
    """What it shares with an evaluation text."""
    repeats: str = ""
    """Name of the earlier one that says the same, where that is why."""
    noise: Noise | None = None
    """What is wrong with its worked answer, where that is why; a prompt loses its solution only."""
    values: tuple[str, ...] = ()
    """What it has that is held out as a whole, where that is why."""


class Screen:
    """Compares with everything that must not be trained on.

    Args:
        cfg: what that is, besides the held-out prompts.
        held_out: of the run.
        noise: looks at worked answers; None for nobody.

    Raises:
        DataError: an evaluation set cannot be used.
    """

    def __init__(self, cfg: CareConfig, held_out: Iterable[Prompt] = (), noise: NoiseFilter | None = None) -> None:
        texts = [t for source in cfg.against for t in eval_texts(source, cfg.asked, where="care.against")]
        own = held_out if cfg.held_out else ()
        texts += [EvalText(source=HELD_OUT, name=prompt.id, text=rows.question(prompt)) for prompt in own]
        self._index, self._duplicates, self._noise = Index(cfg.overlap, texts), cfg.duplicates, noise

    def removed(self, found: Iterable[tuple[str, Sequence[str]]], *, said: Callable[[int], str]) -> list[Removed]:
        """Those of named texts that must not be trained on, or repeat one that may.

        Args:
            said: by what the texts of a place are told apart.
        """
        out, left, repeated = list[Removed](), list[str](), Duplicates(self._duplicates)
        for place, ((name, _), match) in enumerate(screened(found, lambda one: one[1], self._index)):
            if match is not None:
                out.append(Removed(name=name, match=match))
            else:
                left.append(name)
                repeated.add(said(place))
        return out + [Removed(name=left[row], repeats=left[first]) for row, first in repeated.find().items()]

    def rows(self, numbered: Sequence[tuple[int, Mapping[str, Any]]], *, where: str) -> list[Removed]:
        """The same of the rows of a file, called by their numbers.

        Args:
            where: for messages.

        Raises:
            DataError: nothing would be left.
        """
        texts = [(str(n), rows.said(row, (), where=f"{where}, row {n}")) for n, row in numbered]
        out = self.removed(texts, said=lambda place: "\n".join(texts[place][1]))
        _check_left(len(numbered) - len(out), where)
        return out

    def noisy(self, numbered: Sequence[tuple[int, Mapping[str, Any]]], *, where: str) -> list[Removed]:
        """Those rows of a file whose worked answer must not be learnt.

        Args:
            where: for messages.

        Raises:
            DataError: an answer cannot be checked, or none would be left.
        """
        found = self._noise.rows(numbered, where=where).left_out if self._noise is not None else {}
        return [Removed(name=name, noise=noise) for name, noise in found.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cared:
    """The tasks of a run without what must not be trained on."""

    task: Task
    screen: Screen
    removed: Sequence[Removed] = ()
    split: Sides | None = None
    """What is held out as a whole; None where nothing is."""
    noise: Mapping[str, int] = field(default_factory=dict[str, int])
    """Worked solutions of each kind, before any was left out; empty where nobody looked."""


def cared(cfg: CareConfig, task: Task, *, seed: int = 0, grade: Grade | None = None) -> Cared:
    """Leave out what must not be trained on.

    Args:
        seed: of the run.
        grade: what the run's first reward says of answers; needed where noise is looked for.

    Raises:
        DataError: an evaluation set cannot be used, a worked solution cannot be checked, or no training prompt is left.
    """
    if not (cfg.compares or cfg.noise.on or cfg.split.on):
        return Cared(task=task, screen=Screen(cfg))
    held_out, train, removed = tuple(task.held_out()), tuple(task.train()), list[Removed]()
    sides = splitting.split(train, held_out, cfg.split, seed=seed) if cfg.split.on else None
    if sides is not None:
        held_out, train = sides.held_out, sides.train
        removed += [Removed(name=name, values=found) for name, found in sides.left_out.items()]
    looks = NoiseFilter(cfg.noise, grade, train) if cfg.noise.on and grade is not None else None
    assert looks is not None or not cfg.noise.on, "who looks for noise says by what answers are graded"
    screen = Screen(cfg, held_out, looks)
    if cfg.compares:
        texts = ((prompt.id, rows.of_prompt(prompt)) for prompt in train)
        repeated = screen.removed(texts, said=lambda place, of=train: rows.question(of[place]))
        gone, removed = {one.name for one in repeated}, removed + repeated
        train = tuple(prompt for prompt in train if prompt.id not in gone)
        _check_left(len(train), "task")
    kinds: Mapping[str, int] = {}
    if looks is not None:
        seen = looks.solutions(train)
        kinds, noisy = seen.kinds, seen.left_out
        removed += [Removed(name=name, noise=noise) for name, noise in noisy.items()]
        train = tuple(unsolved(prompt) if prompt.id in noisy else prompt for prompt in train)
    kept = PromptSets(train_prompts=train, held_out_prompts=held_out)
    return Cared(task=kept, screen=screen, removed=removed, split=sides, noise=kinds)


def write(folder: Path, what: str, removed: Sequence[Removed]) -> None:
    """Say in `removed/` what was left out; nothing where nothing was.

    Args:
        folder: `removed` of the run.
        what: the name of the file.
    """
    if not removed:
        return
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"name": one.name, **_why(one)}, ensure_ascii=False) + "\n" for one in removed]
    write_whole(folder / f"{what}.jsonl", "".join(lines))


def contents(found: Cared) -> dict[str, Json]:
    """What `environment.json` says of prompts: per task and side their number and hash, how many were left out, what is
    held out as a whole, and how noisy the worked solutions were."""
    said: dict[str, Json] = {
        "train": _contents(found.task.train()),
        "held_out": _contents(found.task.held_out()),
        "left_out": sum(one.noise is None for one in found.removed),
    }
    if found.split is not None:
        said["split"] = {"held_out": ", ".join(found.split.values), "left_out": len(found.split.left_out)}
    if found.noise:
        said["noise"] = {**found.noise, "left_out": sum(one.noise is not None for one in found.removed)}
    return said


def _contents(prompts: Sequence[Prompt]) -> dict[str, Json]:
    by_task: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_task.setdefault(prompt.task, []).append(prompt)
    return {name: {"prompts": len(found), "content": generated.fingerprint(found)} for name, found in by_task.items()}


def _check_left(count: int, where: str) -> None:
    if not count:
        problem = "every row of it stands in an evaluation set, so that nothing is left to train on"
        raise DataError(where, problem, fix="check care.against and care.overlap, or give other data")


def _why(one: Removed) -> dict[str, Json]:
    if one.values:
        return {"held_out": one.values}
    if (noise := one.noise) is not None:
        step: dict[str, Json] = {} if noise.step == NO_ERROR else {"step": noise.step}
        return {"noise": noise.kind, "answer": noise.answer, **step}
    if (match := one.match) is None:
        return {"repeats": one.repeats}
    return {"against": match.source, "evaluation": match.name, "share": round(match.share, 4), "words": match.words}

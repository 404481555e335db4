"""Task files: one JSON object each, a task with its instances. What the readers of such collections share.

A collection is a list of paths: files, or folders of which every file below of a given name is read, in the order of
their paths. What is held out is either named, or split off at one of three levels, as in OPT-IML (Iyer et al. 2022,
arXiv 2212.12017): instances of tasks that are trained on, whole tasks, or whole categories. Which ones follows from a
hash of their names (of an instance, of its text), whatever the seed; the same question of a task stands on one side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Prompt
from rlhf.tasks import generated
from rlhf.tasks.common import PromptSets

INSTANCE, TASK, CATEGORY = "instance", "task", "category"


@dataclass(frozen=True, kw_only=True)
class FilesConfig:
    """Which files, and what of them is held out."""

    train: list[str] = field(default_factory=list[str])
    """Task files, or folders of them, relative to the folder that the command runs in."""
    test: list[str] = field(default_factory=list[str])
    """Files or folders that are held out as they are; empty splits those of `train`."""
    hold_out: str = INSTANCE
    """What is split off where `test` is empty: instance, task or category."""
    held_out_share: float = 0.1
    """Share of the instances, tasks or categories that is split off."""
    max_per_task: int = 500
    """Instances of a task at most, so that large tasks do not outweigh the others; 0 for all."""
    shots: int = 0
    """Worked examples in front of each question."""

    def __post_init__(self) -> None:
        generated.check_choices(self, "hold_out", (INSTANCE, TASK, CATEGORY))
        if not 0 < self.held_out_share < 1:
            raise ConfigError("held_out_share", f"{self.held_out_share} is not a share", fix="use 0.1 or the like")
        for name in ("max_per_task", "shots"):
            if vars(self)[name] < 0:
                raise ConfigError(name, f"{vars(self)[name]} is negative", fix="use 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFile:
    """One task as it was read."""

    name: str
    path: Path
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The prompts of one task, with its categories."""

    task: str
    categories: tuple[str, ...]
    prompts: tuple[Prompt, ...]


def build(cfg: FilesConfig, *, seed: int, pattern: str, make: Callable[[TaskFile], Made]) -> PromptSets:
    """Read both sides.

    Args:
        cfg: where, and what is held out.
        seed: decides which instances of a large task are kept.
        pattern: name of the files that are read in folders, with wildcards.
        make: the prompts of one task.

    Raises:
        ConfigError: no file is named.
        DataError: a file cannot be read, or one side has no prompts.
    """
    if not cfg.train:
        raise ConfigError("task.train", "names no task file", fix="list files, or a folder that holds them")
    train = [_capped(make(file), cfg, seed) for file in find(cfg.train, pattern, where="task.train")]
    if cfg.test:
        held_out = [_capped(make(file), cfg, seed) for file in find(cfg.test, pattern, where="task.test")]
        sides = _flat(train), _flat(held_out)
    else:
        sides = _split(train, cfg)
    for name, prompts in zip(("train", "test"), sides, strict=True):
        if not prompts:
            problem = f"there are no {'training' if name == 'train' else 'held-out'} prompts"
            raise DataError(f"task.{name}", problem, fix="name more files, or change hold_out and held_out_share")
    return PromptSets(train_prompts=sides[0], held_out_prompts=sides[1])


def paths(cfg: FilesConfig, pattern: str) -> tuple[str, ...]:
    """Every file that is read, for the run's environment record."""
    found = (file for where in ("train", "test") for file in _files(vars(cfg)[where], pattern, where=f"task.{where}"))
    return tuple(dict.fromkeys(map(str, found)))


def find(sources: Sequence[str], pattern: str, *, where: str) -> list[TaskFile]:
    """The task files that paths name.

    Raises:
        DataError: there is no such path, or a file holds no JSON object.
    """
    return [_read(path, name) for path, name in _files(sources, pattern, where=where).items()]


def text_of(content: Mapping[str, Any], name: str, *, where: str) -> str:
    """A field that must hold text; a list of one text counts as that text.

    Raises:
        DataError: it does not.
    """
    value = content.get(name)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise DataError(where, f"'{name}' is {str(value)[:60]!r}, not text", fix="mend or remove this file")
    return value


def list_of(content: Mapping[str, Any], name: str, *, where: str) -> list[Mapping[str, Any]]:
    """A field that must hold objects.

    Raises:
        DataError: it does not, or has none.
    """
    value = content.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(entry, Mapping) for entry in value):
        raise DataError(where, f"'{name}' is {str(value)[:60]!r}, not a list of objects", fix="mend or remove it")
    return value


def _files(sources: Sequence[str], pattern: str, *, where: str) -> dict[Path, str]:
    """Files with the names of their tasks: where they lie below what was named."""
    found = dict[Path, str]()
    for source in sources:
        path = Path(source).expanduser()
        below = sorted(path.rglob(pattern)) if path.is_dir() else [path]
        if not below or not all(file.is_file() for file in below):
            problem = f"there is no {pattern} in this folder" if path.is_dir() else "there is no such file"
            raise DataError(f"{where} ({source})", problem, fix="check the path, relative to where the command runs")
        found |= {file: _name(file, path) for file in below}
    return found


def _name(file: Path, source: Path) -> str:
    """`colours.json` is colours, `sums/task.json` is sums, `words/long/task.json` is words/long."""
    at = file.relative_to(source.parent if file == source else source)
    parts = at.parent.parts if at.stem == "task" else at.with_suffix("").parts
    return "/".join(parts) or file.absolute().parent.name


def _read(path: Path, name: str) -> TaskFile:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(str(path), f"is no JSON in UTF-8: {error}", fix="convert or remove this file") from error
    if not isinstance(content, Mapping):
        raise DataError(str(path), f"holds a {type(content).__name__}, not an object", fix="name task files only")
    return TaskFile(name=name, path=path, content=content)


def _capped(made: Made, cfg: FilesConfig, seed: int) -> Made:
    """As many instances as are wanted, chosen by the seed, in their order."""
    if not cfg.max_per_task or len(made.prompts) <= cfg.max_per_task:
        return made
    ranked = sorted(made.prompts, key=lambda prompt: derive_seed(seed, "max_per_task", prompt.id))
    kept = {prompt.id for prompt in ranked[: cfg.max_per_task]}
    prompts = tuple(prompt for prompt in made.prompts if prompt.id in kept)
    return Made(task=made.task, categories=made.categories, prompts=prompts)


def _split(made: Sequence[Made], cfg: FilesConfig) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """(train, held out)"""
    if cfg.hold_out == INSTANCE:
        chosen = _chosen([_question(p) for one in made for p in one.prompts], cfg.held_out_share)
        prompts = _flat(made)
        return (
            tuple(p for p in prompts if _question(p) not in chosen),
            tuple(p for p in prompts if _question(p) in chosen),
        )

    def names(one: Made) -> tuple[str, ...]:
        return (one.task,) if cfg.hold_out == TASK else one.categories

    chosen = _chosen([name for one in made for name in names(one)], cfg.held_out_share)
    held = [one for one in made if chosen & set(names(one))]
    return _flat([one for one in made if not chosen & set(names(one))]), _flat(held)


def _chosen(names: Sequence[str], share: float) -> set[str]:
    """A share of different names, at least one, and not all of them."""
    ranked = sorted(set(names), key=lambda name: derive_seed(0, "files", name))
    return set(ranked[: min(len(ranked) - 1, max(1, round(share * len(ranked))))])


def _question(prompt: Prompt) -> str:
    """What an instance is recognised by: the task and what is asked, without examples."""
    return f"{prompt.columns['task_name']}\0{prompt.columns['input']}"


def _flat(made: Sequence[Made]) -> tuple[Prompt, ...]:
    return tuple(prompt for one in made for prompt in one.prompts)

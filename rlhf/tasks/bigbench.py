"""BIG-bench's JSON tasks: `task.json` files with examples that have targets, or choices with scores.

    {"name": "…", "description": "…", "preferred_score": "exact_str_match", "metrics": […], "examples": [
        {"input": "2 plus 2", "target": "4"}, {"input": "…", "target_scores": {"yes": 1, "no": 0}}]}

A prompt is put together as the benchmark does: the task's `task_prefix`, worked examples (`shots`) with
`few_shot_example_separator` between them, and the question between `example_input_prefix` and `example_output_prefix`
(by default `Q: ` and `A: `), with its choices behind `choice_prefix` unless `append_choices_to_input` is false. The
reward `references` compares the answer with the targets, or gives it the score of the choice that it is; several
choices may have a score.

Source: Srivastava et al. 2022, "Beyond the Imitation Game" (arXiv 2206.04615), and the keys as `docs/doc.md` of
google/BIG-bench and lm-evaluation-harness's reader have them. We deviate in choices, which are answered in words, where
the benchmark takes the most probable one; they stand in an order that a hash decides. `output_regex` is not used (a
pattern of others run on an answer may take for ever), a `stop_string` is a matter of `sampling.stop`, and programmatic
tasks cannot be read. Subtasks in folders of their own are found by naming the folder above.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.core.errors import DataError
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Message, Prompt
from rlhf.tasks import common, files
from rlhf.tasks.common import PromptSets, ReadRows
from rlhf.tasks.files import FilesConfig, Made, TaskFile

DESCRIPTION = "tasks in BIG-bench's JSON format, from local files"
REWARDS: dict[str, dict[str, Any]] = {"references": {}}
"""Default reward slots."""

PATTERN = "task.json"


@dataclass(frozen=True, kw_only=True)
class Config(FilesConfig):
    """Which tasks, and how they are put."""

    choices: bool = True
    """Show the choices of questions that have some, where the task does not say otherwise."""


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Read both sides from task files; `rows` is not used, since a file holds one object.

    Raises:
        ConfigError: no file is named.
        DataError: a file is not in the format.
    """
    return files.build(cfg, seed=seed, pattern=PATTERN, make=lambda file: made(file, cfg))


def sources(cfg: Config) -> tuple[str, ...]:
    """The files that this config reads."""
    return files.paths(cfg, PATTERN)


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct."""
    return common.reference(prompt)


def made(file: TaskFile, cfg: Config) -> Made:
    """The prompts of a task file.

    Raises:
        DataError: it is not in the format.
    """
    examples = files.list_of(file.content, "examples", where=str(file.path))
    worth = [_worth(example, f"{file.path}, example {n}") for n, example in enumerate(examples, start=1)]
    put = [_put(example, file, cfg, n) for n, example in enumerate(examples, start=1)]
    best = [max(found, key=lambda choice: found[choice]) for found in worth]
    return Made(
        task=file.name,
        categories=tuple(map(str, file.content.get("keywords") or ("none",))),
        prompts=tuple(_prompt(file, cfg, n, examples[n], put, best, worth[n]) for n in range(len(examples))),
    )


def _worth(example: Mapping[str, Any], where: str) -> dict[str, float]:
    """What each answer is worth."""
    target, scores = example.get("target"), example.get("target_scores")
    if isinstance(scores, Mapping) and scores and all(isinstance(score, int | float) for score in scores.values()):
        if max(scores.values()) <= 0:
            raise DataError(where, "has no choice with a score above 0", fix="mend or remove it")
        return {str(choice): max(0.0, float(score)) for choice, score in scores.items()}
    texts = [target] if isinstance(target, str) else target
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        fix = "give it a `target`, a text or several, or `target_scores`"
        raise DataError(where, "has neither a target nor choices with scores", fix=fix)
    return dict.fromkeys(texts, 1.0)


def _put(example: Mapping[str, Any], file: TaskFile, cfg: Config, n: int) -> str:
    """The question, up to where the answer begins."""
    told, where = file.content, f"{file.path}, example {n}"
    text = str(told.get("example_input_prefix", "\nQ: ")) + files.text_of(example, "input", where=where)
    scores = example.get("target_scores")
    if isinstance(scores, Mapping) and told.get("append_choices_to_input", cfg.choices):
        listed = sorted(map(str, scores), key=lambda choice: derive_seed(0, "bigbench", text, choice))
        before = str(told.get("choice_prefix", "\n  choice: "))
        text += "".join(before + choice for choice in listed)
    return text + str(told.get("example_output_prefix", "\nA: "))


def _prompt(
    file: TaskFile,
    cfg: Config,
    n: int,
    example: Mapping[str, Any],
    put: Sequence[str],
    best: Sequence[str],
    worth: Mapping[str, float],
) -> Prompt:
    others = sorted((m for m in range(len(put)) if m != n), key=lambda m: derive_seed(0, "bigbench", file.name, n, m))
    separator = str(file.content.get("few_shot_example_separator", "\n"))
    shots = "".join(f"{put[m]}{best[m]}{separator}" for m in others[: cfg.shots])
    scored = isinstance(example.get("target_scores"), Mapping)
    return Prompt(
        id=f"bigbench-{file.name}-{n + 1}",
        messages=(Message(role="user", content=f"{file.content.get('task_prefix', '')}{shots}{put[n]}".strip()),),
        gold=json.dumps({"scores": dict(worth)} if scored else {"references": [*worth]}),
        task="bigbench",
        solution=best[n],
        columns={"task_name": file.name, "input": str(example["input"]), "keywords": _keywords(file)},
    )


def _keywords(file: TaskFile) -> tuple[str, ...]:
    found = file.content.get("keywords")
    return tuple(map(str, found)) if isinstance(found, list) else ()

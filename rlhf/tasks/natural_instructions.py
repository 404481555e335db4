"""Natural Instructions: tasks with a definition, good and bad examples, and instances, one file each.

    {"Definition": ["…"], "Categories": ["…"], "Positive Examples": [{"input": …, "output": …, "explanation": …}],
     "Negative Examples": […], "Instances": [{"id": "…", "input": "…", "output": ["…", "…"]}]}

Both versions are read: the second (Super-NaturalInstructions), whose examples have an `explanation`, and the first,
with `Title`, `Prompt`, `Things to Avoid`, `Emphasis & Caution`, and examples under `Examples`, with a `reason` and a
`suggestion`. A prompt is the chosen `fields`, in their order, then examples, then the input; what a file leaves out or
marks with `-` is skipped. Any of an instance's outputs is right, by ROUGE-L (reward `references`): an answer that
matches one word by word counts as correct, and the mean value is the collection's own measure.

Sources: Mishra et al. 2021 (arXiv 2104.08773) and Wang et al. 2022 (arXiv 2204.07705), allenai/natural-instructions,
whose split is by unseen tasks (`hold_out: task`). Prompts are worded as those of Tk-Instruct.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Message, Prompt
from rlhf.tasks import common, files, generated
from rlhf.tasks.common import PromptSets, ReadRows
from rlhf.tasks.files import TASK, FilesConfig, Made, TaskFile

DESCRIPTION = "tasks with instructions in the format of Natural Instructions, both versions, from local files"
REWARDS: dict[str, dict[str, Any]] = {"references": {"measure": "rouge_l"}}
"""Default reward slots."""

PATTERN = "*.json"
FIELDS = ("Title", "Definition", "Prompt", "Things to Avoid", "Emphasis & Caution")
"""Fields that tell what to do."""


@dataclass(frozen=True, kw_only=True)
class Config(FilesConfig):
    """Which tasks, and what a prompt tells."""

    hold_out: str = TASK
    """What is split off where `test` is empty: instance, task or category."""
    fields: list[str] = field(default_factory=lambda: ["Definition"])
    """Of Title, Definition, Prompt, Things to Avoid, Emphasis & Caution, in the order in which they are put."""
    shots: int = 2
    """Positive examples in a prompt."""
    negatives: int = 0
    """Negative examples in a prompt."""
    explanations: bool = False
    """Say why examples are good or bad."""

    def __post_init__(self) -> None:
        super().__post_init__()
        generated.check_choices(self, "fields", FIELDS)
        if self.negatives < 0:
            raise ConfigError("negatives", f"{self.negatives} is negative", fix="use 0 or more")


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
    instances = files.list_of(file.content, "Instances", where=str(file.path))
    told = "\n\n".join([*_told(file, cfg), *_examples(file, cfg)])
    if not told:
        fields = ", ".join(cfg.fields)
        raise DataError(str(file.path), f"has none of {fields}, and no example", fix="choose other task.fields")
    return Made(
        task=file.name,
        categories=_listed(file.content.get("Categories")) or ("none",),
        prompts=tuple(_prompt(file, told, n, instance) for n, instance in enumerate(instances, start=1)),
    )


def _told(file: TaskFile, cfg: Config) -> Iterator[str]:
    for name in cfg.fields:
        value = file.content.get(name)
        text = " ".join(_listed(value)).strip()
        if text and text != "-":
            yield f"{name}: {text}"


def _examples(file: TaskFile, cfg: Config) -> Iterator[str]:
    """Good and bad examples; the first version keeps them one level down, under `Examples`."""
    inner = file.content.get("Examples")
    content = inner if isinstance(inner, Mapping) else file.content
    for name, count in (("Positive Examples", cfg.shots), ("Negative Examples", cfg.negatives)):
        found = content.get(name)
        usable = [example for example in found if isinstance(example, Mapping)] if isinstance(found, list) else []
        for n, example in enumerate(usable[:count], start=1):
            lines = [f"{name.removesuffix('s')} {n} -", f"Input: {example.get('input')}", f"Output: {_output(example)}"]
            reasons = [str(example[key]) for key in ("explanation", "reason", "suggestion") if example.get(key)]
            if cfg.explanations and [reason for reason in reasons if reason != "-"]:
                lines.append(f"Explanation: {' '.join(reason for reason in reasons if reason != '-')}")
            yield "\n".join(lines)


def _prompt(file: TaskFile, told: str, n: int, instance: Mapping[str, Any]) -> Prompt:
    where = f"{file.path}, instance {n}"
    question = files.text_of(instance, "input", where=where)
    outputs = [text for text in _listed(instance.get("output")) if text.strip()]
    if not outputs:
        raise DataError(where, f"has the output {str(instance.get('output'))[:60]!r}", fix="give it a text, or several")
    content = f"{told}\n\nNow complete the following example -\nInput: {question}\nOutput:"
    return Prompt(
        id=f"natural_instructions-{file.name}-{n}",
        messages=(Message(role="user", content=content),),
        gold=json.dumps({"references": outputs}),
        task="natural_instructions",
        solution=outputs[0],
        columns={"task_name": file.name, "input": question, "categories": _listed(file.content.get("Categories"))},
    )


def _output(example: Mapping[str, Any]) -> str:
    return " ".join(_listed(example.get("output")))


def _listed(value: Any) -> tuple[str, ...]:
    """Texts of a field that holds one or several."""
    if isinstance(value, str):
        return (value,)
    return tuple(entry for entry in value if isinstance(entry, str)) if isinstance(value, list) else ()

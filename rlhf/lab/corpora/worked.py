"""Worked answers of a task that invents its questions, right and damaged, and hostile texts in their place.

    right       the task's own worked answer
    slipped     its answer with one character changed, or no for yes
    another     the worked answer to another question
    unmarked    the right answer without its mark
    corrected   the right answer, and another one behind it: the last one counts
    question    the question said again
    hostile     bombs, megabytes, injections (`hostile`), graded as answers to a question of the task

For rewards that tasks come with, such as `procedure`, `structure` and `tool_use`: labels follow from how answers are
made. Source: written for this project; what is damaged is what `benchmarks/task_proofs.py` damages.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from rlhf.core.component import Component
from rlhf.core.config import slot
from rlhf.core.errors import ConfigError
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Prompt
from rlhf.lab.cases import Case
from rlhf.lab.corpora import hostile
from rlhf.tasks import generated
from rlhf.tasks.generated import MARK


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which task, and how many of its questions."""

    task: Component = slot("rlhf.tasks", "procbench")
    """A task that invents its questions; answers are those of the held-out side."""
    items: int = 100
    """Questions."""
    size: int = 0
    """Characters of the longest hostile answers; 0 for none."""

    def __post_init__(self) -> None:
        if self.items < 2:
            raise ConfigError("items", f"{self.items} are too few", fix="use 2 or more")
        if not isinstance(self.task.config, generated.GeneratedConfig):
            fix = "use procbench, hierarchy, records, tool_use, counting, symbolic or tint"
            raise ConfigError("task", f"'{self.task.name}' does not invent its questions", fix=fix)


def cases(cfg: Config, *, seed: int, canary: str) -> Iterator[Case]:
    """Question by question, then the hostile ones."""
    module: Any = cfg.task.module
    settings = replace(cfg.task.config, train_size=1, held_out_size=cfg.items)
    prompts = tuple(module.build(settings, seed=seed, rows=_no_rows).held_out())
    draw = random.Random(derive_seed(seed, "worked", cfg.task.name))
    for n, prompt in enumerate(prompts):
        right = module.reference(prompt)
        head, answer = _parted(right)
        slipped = f"{MARK} {generated.slipped(answer, draw)}"
        made = [
            ("right", right, True),
            ("slipped", head + slipped, False),
            ("unmarked", f"{head}{answer}", False),
            ("corrected", f"{right}\n{slipped}", False),
            ("question", prompt.messages[-1].content, False),
        ]
        other = module.reference(prompts[(n + 1) % len(prompts)])
        if sorted(_parted(other)[1]) != sorted(answer):  # a set may be said in any order
            made.append(("another", other, False))
        for name, completion, label in made:
            yield _case(prompt, f"{name} {n}", completion, label, name)
    if cfg.size:
        for case in hostile.cases(hostile.Config(size=cfg.size), seed=seed, canary=canary):
            prompt = draw.choice(prompts)
            told = _parted(module.reference(prompt))[1] in case.completion
            yield _case(prompt, f"hostile {case.id}", case.completion, None if told else False, "hostile")


def _parted(worked: str) -> tuple[str, str]:
    """A worked answer up to its mark, and what stands behind it."""
    head, mark, answer = worked.rpartition(MARK)
    if not mark:
        raise ConfigError("task", f"its answers have no '{MARK}'", fix="choose the form of answers that has one")
    return head, answer.strip()


def _case(prompt: Prompt, name: str, completion: str, label: bool | None, category: str) -> Case:
    return Case(
        id=name,
        completion=completion,
        gold=prompt.gold,
        label=label,
        category=category,
        prompt=prompt.messages[-1].content,
        columns=prompt.columns,
    )


def _no_rows(source: object) -> Any:
    raise AssertionError(f"a task that invents its questions reads no rows of {source}")

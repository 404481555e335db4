"""Several tasks in one run: trained on together or stage by stage, measured one by one.

    task: {name: mix, parts: {sums: {}, differences: {name: sums, operation: subtract}}}

Each part is a task as it would be alone, with the run's seed. Its label becomes the `task` of its prompts, and with it
the name in metrics, in samples and in a stage's `tasks`; the first part is the primary, whose accuracies `summary.json`
holds. What one task costs another can so be seen: train both, then go on with one.

Invariants: a part's prompts are those that it has alone, but for `task` and, where two parts use one id, the label in
front of it; ids are unique over all parts. Which training prompts are used, and their order, follow from seed and ids.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rlhf.core.component import Component
from rlhf.core.config import slots
from rlhf.core.errors import ConfigError, DataError, did_you_mean
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Prompt
from rlhf.tasks.common import PromptSets, ReadRows

DESCRIPTION = "several tasks in one run, trained on together or by stage, and measured one by one"
REWARDS: dict[str, dict[str, Any]] = {}
"""None of its own; `default_rewards` says what the parts agree on."""

_LABEL = re.compile(r"[\w-]+")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which tasks, and how much of each."""

    parts: dict[str, Component] = slots("rlhf.tasks")
    """Tasks by label, the primary first."""
    weights: dict[str, float] = field(default_factory=dict[str, float])
    """Shares of the training prompts by label, in any unit; as many prompts are used as the shares allow. Empty: all
    prompts of every part."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("parts", "there are none", fix="name tasks by label: {sums: {}, mine: {name: gsm8k}}")
        for label, part in self.parts.items():
            if not _LABEL.fullmatch(label):
                fix = "use letters, digits, _ and -: it becomes part of metric names"
                raise ConfigError(f"parts.{label}", f"'{label}' cannot be a label", fix=fix)
            if isinstance(part.config, Config):
                raise ConfigError(f"parts.{label}", "is a mix itself", fix="list its parts here")
        if not self.weights:
            return
        for label in self.weights:
            if label not in self.parts:
                raise ConfigError(f"weights.{label}", "there is no such part", fix=did_you_mean(label, self.parts))
        for label in self.parts:
            if not 0 < self.weights.get(label, 0.0) < math.inf:
                fix = "give every part a share above 0; to train on some parts only, set `tasks` of a stage"
                raise ConfigError(f"weights.{label}", "this part has no share", fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPrompt(Prompt):
    """A prompt under the label of its part."""

    own: Prompt
    """As the part made it."""
    refer: Callable[[Prompt], str | None]
    """The part's `reference`."""


def build(cfg: Config, *, seed: int, rows: ReadRows) -> PromptSets:
    """Build every part.

    Raises:
        ConfigError: a part cannot be built; the keys that it names are those of the part.
        DataError: likewise, or a part has no training or no held-out prompts.
    """

    def rank(prompt: Prompt) -> int:
        return derive_seed(seed, "mix", prompt.id)

    parts = {label: _part(label, part, seed=seed, rows=rows) for label, part in cfg.parts.items()}
    counts = _counts(cfg.weights, {label: len(sets.train_prompts) for label, sets in parts.items()})
    train, held_out, taken = list[Prompt](), list[Prompt](), set[str]()
    for label, sets in parts.items():
        ids = {prompt.id for prompt in (*sets.train_prompts, *sets.held_out_prompts)}
        named = _naming(label, cfg.parts[label].module.reference, prefix=bool(ids & taken))
        train += sorted(map(named, sets.train_prompts), key=rank)[: counts[label]]
        held_out += map(named, sets.held_out_prompts)
        taken |= ids
    return PromptSets(train_prompts=tuple(sorted(train, key=rank)), held_out_prompts=tuple(held_out))


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that the parts read, each once."""
    return tuple(dict.fromkeys(s for part in cfg.parts.values() for s in part.module.sources(part.config)))


def reference(prompt: Prompt) -> str | None:
    """The completion that must be graded as correct, as the prompt's part has it; None where it has none."""
    assert isinstance(prompt, PartPrompt), "prompts of a mix come from its build"
    return prompt.refer(prompt.own)


def default_rewards(cfg: Config) -> dict[str, dict[str, Any]]:
    """What all parts are graded by when a config names no rewards.

    Raises:
        ConfigError: they are graded by different ones.
    """
    (first, primary), *others = cfg.parts.items()
    for label, part in others:
        if part.module.REWARDS != primary.module.REWARDS:
            problem = (
                f"the parts of the task have different defaults: {primary.module.REWARDS} for {first},"
                f" {part.module.REWARDS} for {label}"
            )
            raise ConfigError("rewards", problem, fix="set `rewards`; they grade the prompts of every part")
    return primary.module.REWARDS


def _part(label: str, part: Component, *, seed: int, rows: ReadRows) -> PromptSets:
    """The prompts of a part, as it makes them."""
    try:
        task = part.module.build(part.config, seed=seed, rows=rows)
        train, held_out = tuple(task.train()), tuple(task.held_out())
    except (ConfigError, DataError) as error:
        raise _placed(error, label, part) from error
    for name, prompts in (("training", train), ("held-out", held_out)):
        if not prompts:
            fix = "check its paths and limits, or leave the part out"
            raise DataError(f"task.parts.{label}", f"there are no {name} prompts", fix=fix)
    return PromptSets(train_prompts=train, held_out_prompts=held_out)


def _placed(error: ConfigError | DataError, label: str, part: Component) -> ConfigError | DataError:
    """The error of a part, which believes that its keys stand right below `task`."""
    keys = "|".join(re.escape(f.name) for f in fields(part.config))

    def placed(text: str) -> str:
        return re.sub(rf"\btask\.(?=(?:{keys})\b)", f"task.parts.{label}.", text)

    return type(error)(placed(error.where), placed(error.problem), fix=placed(error.fix))


def _naming(label: str, refer: Callable[[Prompt], str | None], *, prefix: bool) -> Callable[[Prompt], PartPrompt]:
    """Puts prompts of a part under its label, and the label in front of their ids where another part has the same."""

    def named(prompt: Prompt) -> PartPrompt:
        return PartPrompt(
            id=f"{label}/{prompt.id}" if prefix else prompt.id,
            messages=prompt.messages,
            gold=prompt.gold,
            task=label,
            solution=prompt.solution,
            columns=prompt.columns,
            own=prompt,
            refer=refer,
        )

    return named


def _counts(weights: Mapping[str, float], sizes: Mapping[str, int]) -> Mapping[str, int]:
    """Training prompts per part: in the proportion of the weights, and as many as there are of the scarcest."""
    if not weights:
        return sizes
    scale = min(size / weights[label] for label, size in sizes.items())
    return {label: max(1, round(weights[label] * scale)) for label in sizes}

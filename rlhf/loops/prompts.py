"""Which training prompts or examples a stage draws, and when: an endless stream with a fixed shuffle per epoch,
addressed by position.

Position, not state, decides what comes next, so a checkpoint stores one number and a resumed run draws what it would
have drawn.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from rlhf.core.metrics import Metric
from rlhf.core.modules import Example
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Group, Prompt


def of_tasks(prompts: Sequence[Prompt], tasks: Collection[str]) -> Sequence[Prompt]:
    """The prompts of some tasks; all of them where none is named."""
    return [prompt for prompt in prompts if prompt.task in tasks] if tasks else prompts


class Prompts(Protocol):
    """Prompts of a stage in drawing order."""

    def take(self, cursor: int, count: int) -> list[Prompt]:
        """`count` prompts from position `cursor` on, with ids that no other prompt of the stage has."""
        ...

    def settle(self, groups: Sequence[Group]) -> Mapping[str, Metric]:
        """Learn what came of prompts, whose step is about to be trained on; what to record of it."""
        ...


class PromptStream:
    """Implements `Prompts`: every prompt once an epoch.

    Args:
        prompts: at least one.
        seed: run seed.
        name: of the stage; two stages draw in different orders.
    """

    def __init__(self, prompts: Sequence[Prompt], *, seed: int, name: str) -> None:
        assert prompts, "tasks refuse to be empty"
        self._prompts, self._order = prompts, _Order(len(prompts), seed=seed, name=name)

    def take(self, cursor: int, count: int) -> list[Prompt]:
        """`count` prompts from position `cursor` on. From the second epoch on ids carry the epoch: `sums-17~1`."""
        places = [self._order.at(position) for position in range(cursor, cursor + count)]
        return [_in_epoch(self._prompts[place], epoch) for place, epoch in places]

    def settle(self, groups: Sequence[Group]) -> Mapping[str, Metric]:
        """Nothing: position alone decides."""
        return {}


class ExampleStream:
    """Examples of a stage in drawing order; what `PromptStream` is for prompts.

    Args:
        examples: at least one.
        seed: run seed.
        name: of the stage.
    """

    def __init__(self, examples: Sequence[Example], *, seed: int, name: str) -> None:
        assert examples, "datasets refuse to be empty"
        self._examples, self._order = examples, _Order(len(examples), seed=seed, name=name)

    def take(self, cursor: int, count: int) -> list[Example]:
        """`count` examples from position `cursor` on. From the second epoch on ids carry the epoch: `sums-17~1`."""
        found: list[Example] = []
        for place, epoch in (self._order.at(position) for position in range(cursor, cursor + count)):
            example: Any = self._examples[place]
            found.append(replace(example, prompt=_in_epoch(example.prompt, epoch)) if epoch else example)
        return found


class _Order:
    """Which of `size` things stands at a position, and in which epoch."""

    def __init__(self, size: int, *, seed: int, name: str) -> None:
        self._size, self._seed, self._name = size, seed, name
        self._order: list[int] = []
        self._epoch = -1

    def at(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, self._size)
        if epoch != self._epoch:
            self._order = list(range(self._size))
            random.Random(derive_seed(self._seed, "order", self._name, epoch)).shuffle(self._order)
            self._epoch = epoch
        return self._order[offset], epoch


def _in_epoch(prompt: Prompt, epoch: int) -> Prompt:
    return replace(prompt, id=f"{prompt.id}~{epoch}") if epoch else prompt

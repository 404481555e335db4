"""Which training prompts a stage draws, and when: an endless stream with a fixed shuffle per epoch, addressed by
position.

Position, not state, decides what comes next, so a checkpoint stores one number and a resumed run draws what it would
have drawn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Sequence
from dataclasses import replace

from rlhf.core.seeding import derive_seed
from rlhf.core.types import Prompt


def of_tasks(prompts: Sequence[Prompt], tasks: Collection[str]) -> Sequence[Prompt]:
    """The prompts of some tasks; all of them where none is named."""
    return [prompt for prompt in prompts if prompt.task in tasks] if tasks else prompts


def content_key(prompt: Prompt) -> str:
    """The same for the same question and gold in any run, whatever the prompt is called there."""
    text = "\0".join([*(m.role + m.content for m in prompt.messages), prompt.gold])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class PromptStream:
    """Prompts of a stage in drawing order.

    Args:
        prompts: at least one.
        seed: run seed.
        name: of the stage; two stages draw in different orders.
    """

    def __init__(self, prompts: Sequence[Prompt], *, seed: int, name: str) -> None:
        assert prompts, "tasks refuse to be empty"
        self._prompts, self._seed, self._name = prompts, seed, name
        self._order: list[int] = []
        self._epoch = -1

    def take(self, cursor: int, count: int) -> list[Prompt]:
        """`count` prompts from position `cursor` on. From the second epoch on ids carry the epoch: `sums-17~1`."""
        return [self._at(position) for position in range(cursor, cursor + count)]

    def _at(self, position: int) -> Prompt:
        epoch, offset = divmod(position, len(self._prompts))
        if epoch != self._epoch:
            self._order = list(range(len(self._prompts)))
            random.Random(derive_seed(self._seed, "order", self._name, epoch)).shuffle(self._order)
            self._epoch = epoch
        prompt = self._prompts[self._order[offset]]
        return replace(prompt, id=f"{prompt.id}~{epoch}") if epoch else prompt

"""Looks at the worked answers that a run may learn, and says which are wrong: see `rlhf.data.care.noise`.

    care: {noise: {leave_out: [dynamic]}}

Answers are the worked solutions of the task's training prompts, and those in rows of files that supervised stages read.
A prompt whose solution is left out stays: other stages sample answers to it. Rows are checked by their `gold`; where
question and gold are those of a training prompt, the reward sees that prompt's columns too, as it does when it grades a
sampled answer. Called by `rlhf.loops.care`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from rlhf.core.errors import DataError
from rlhf.core.seeding import content_key
from rlhf.core.types import Prompt, RewardOut
from rlhf.data.care import noise, rows
from rlhf.data.care.noise import KINDS, RIGHT, STATIC, Noise, NoiseConfig

Answer: TypeAlias = "tuple[Prompt, str]"
Grade: TypeAlias = Callable[[Sequence[Answer]], Sequence[RewardOut]]
"""What the first reward of a run says of answers."""

_PIECES = "pieces"
"""Column that holds the solution once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was seen in the worked answers of one source."""

    kinds: Mapping[str, int]
    """How many there are of each."""
    left_out: Mapping[str, Noise]
    """By the prompt's id, or the number of the row."""


class NoiseFilter:
    """Says which answers are left out.

    Args:
        cfg: which kinds are, some at least.
        grade: by what answers are judged.
        known: prompts whose columns are those of rows with the same question and gold.
    """

    def __init__(self, cfg: NoiseConfig, grade: Grade, known: Iterable[Prompt]) -> None:
        self._cfg, self._grade = cfg, grade
        self._columns = {content_key(prompt): prompt.columns for prompt in known}

    def solutions(self, prompts: Sequence[Prompt]) -> Found:
        """Of prompts that have one.

        Raises:
            DataError: an answer cannot be checked, or none would be left.
        """
        solved = [(prompt, prompt.solution) for prompt in prompts if prompt.solution is not None]
        named = {prompt.id: (f"prompt {prompt.id}", prompt.columns) for prompt, _ in solved}
        return self._found(named, solved, where="task")

    def rows(self, numbered: Sequence[tuple[int, Mapping[str, Any]]], *, where: str) -> Found:
        """Of the rows of a file, by their numbers.

        Raises:
            DataError: likewise, or a row has no single answer, or no gold.
        """
        named = {str(n): (f"{where}, row {n}", row) for n, row in numbered}
        answers = [rows.answered(row, where=place) for place, row in named.values()]
        own = [replace(p, columns={**self._columns.get(content_key(p), {}), **p.columns}) for p, _ in answers]
        return self._found(named, [(p, text) for p, (_, text) in zip(own, answers, strict=True)], where=where)

    def _found(
        self, named: Mapping[str, tuple[str, Mapping[str, Any]]], answers: Sequence[Answer], *, where: str
    ) -> Found:
        """Args:
        named: where each answer stands, for messages, and the columns that its labels may be in.
        where: the source, for messages.
        """
        labels = {name: self._labels(columns, place) for name, (place, columns) in named.items()}
        outs = self._grade(answers)
        seen = {
            name: noise.look(out, labels[name], where=place)
            for (name, (place, _)), out in zip(named.items(), outs, strict=True)
        }
        kinds = Counter(one.kind for one in seen.values())
        left_out = {name: one for name, one in seen.items() if one.kind in self._cfg.leave_out}
        self._check(where, labels=labels, kinds=kinds, left=len(seen) - len(left_out))
        return Found(kinds={kind: kinds[kind] for kind in KINDS}, left_out=left_out)

    def _labels(self, columns: Mapping[str, Any], where: str) -> list[float] | None:
        return noise.labels_of(columns, self._cfg.labels, where=where) if self._cfg.labels else None

    def _check(
        self, where: str, *, labels: Mapping[str, list[float] | None], kinds: Mapping[str, int], left: int
    ) -> None:
        """Refuse what would do nothing, or leave nothing."""
        if not labels:
            return
        if self._cfg.labels and all(one is None for one in labels.values()):
            fix = "name the column that has a label for every step, or leave care.noise.labels empty"
            raise DataError(where, f"has no column '{self._cfg.labels}' anywhere", fix=fix)
        if STATIC in self._cfg.leave_out and kinds[RIGHT]:
            problem = f"nobody can say of the steps of {kinds[RIGHT]} right answers whether they are right"
            fix = "set care.noise.labels, or a first reward that compares steps (procedure), or leave out dynamic only"
            raise DataError(where, problem, fix=fix)
        if not left:
            problem = f"every worked answer is noisy: {', '.join(f'{kinds[kind]} {kind}' for kind in KINDS)}"
            raise DataError(where, problem, fix="check the first reward and care.noise, or give other data")


def unsolved(prompt: Prompt) -> Prompt:
    """A prompt without its worked solution."""
    columns = {name: value for name, value in prompt.columns.items() if name != _PIECES}
    return replace(prompt, solution=None, columns=columns)

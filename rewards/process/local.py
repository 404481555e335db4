"""Asks a process reward model that lies in a folder for the scores of steps; see `rewards.served` for its worker."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import cast

from rewards.base import WorkerError
from rewards.process.form import Form
from rewards.served import ServedModel, fingerprint
from rewards.served import Serving as Local

_LOAD = "rewards.process.local_model:load"
_SCORE = "rewards.process.local_model:score"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question and the steps of a solution, as a model is to read them."""

    messages: tuple[Mapping[str, str], ...]
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscored:
    """Why there are no scores."""

    kind: str
    """`timeout`, `too_long`, or the kind of a `WorkerError`."""
    detail: str = ""


class StepScorer:
    """A process reward model in a worker.

    Args:
        folder: in Hugging Face format, with its tokenizer.
        form: how it reads.
    """

    def __init__(self, folder: Path, form: Form, cfg: Local) -> None:
        fingerprint(folder)
        self._served = ServedModel(folder, cfg, load=_LOAD, run=_SCORE, more={"form": asdict(form)})

    def score(
        self, answers: Sequence[Answer], *, timeout_s: float, deadline_s: float
    ) -> list[tuple[float, ...] | Unscored]:
        """The scores in [0, 1] of each answer's steps, in batches.

        Args:
            timeout_s: of a batch.
            deadline_s: from now on, for all of them but for loading the model.

        Raises:
            ConfigError: the model cannot be loaded, or does not fit the form.
        """
        items = [_request(answer) for answer in answers]
        deadline = time.monotonic() + deadline_s
        found = self._served.ask(items, settings={}, timeout_s=timeout_s, deadline=deadline)
        return [_outcome(entry) for entry in found]

    def close(self) -> None:
        """End the worker."""
        self._served.close()


@cache
def scorer_of(folder: Path, form: Form, cfg: Local) -> StepScorer:
    """The scorer of this process for a folder.

    Raises:
        ConfigError: it is no model folder.
    """
    return StepScorer(folder, form, cfg)


def _request(answer: Answer) -> dict[str, object]:
    return {"messages": [dict(message) for message in answer.messages], "steps": list(answer.steps)}


def _outcome(entry: object) -> tuple[float, ...] | Unscored:
    if isinstance(entry, TimeoutError):
        return Unscored(kind="timeout", detail=str(entry))
    if isinstance(entry, WorkerError):
        return Unscored(kind=entry.kind, detail=str(entry))
    if entry is None:
        return Unscored(kind="too_long", detail="question and answer do not fit the context of the model")
    return tuple(cast("list[float]", entry))

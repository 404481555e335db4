"""Asks a judge that lies in a folder, which a worker process of its own serves (`rewards.served`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from rewards.base import WorkerError
from rewards.judge.endpoint import Failure, Reply
from rewards.judge.sheet import Conversation
from rewards.served import ServedModel, fingerprint
from rewards.served import Serving as Local

__all__ = ["Local", "LocalJudge", "fingerprint", "judge_in"]

_LOAD = "rewards.judge.local_model:load"
_ANSWER = "rewards.judge.local_model:answer"


class LocalJudge:
    """A model in a worker.

    Args:
        folder: in Hugging Face format, with its tokenizer and chat template.
    """

    def __init__(self, folder: Path, cfg: Local) -> None:
        self._served = ServedModel(folder, cfg, load=_LOAD, run=_ANSWER)

    def ask(
        self, conversations: Sequence[Conversation], *, max_tokens: int, timeout_s: float, deadline: float
    ) -> list[Reply | Failure]:
        """One outcome per conversation, in batches; greedy.

        Args:
            timeout_s: of a batch.
            deadline: on `time.monotonic`, for all of them but for loading the model.

        Raises:
            ConfigError: the model cannot be loaded, or has no chat template.
        """
        settings = {"max_tokens": max_tokens}
        found = self._served.ask(conversations, settings=settings, timeout_s=timeout_s, deadline=deadline)
        return [_outcome(entry) for entry in found]

    def close(self) -> None:
        """End the worker."""
        self._served.close()


@cache
def judge_in(folder: Path, cfg: Local) -> LocalJudge:
    """The judge of this process for a folder."""
    return LocalJudge(folder, cfg)


def _outcome(entry: object) -> Reply | Failure:
    if isinstance(entry, TimeoutError):
        return Failure(kind="timeout", detail=str(entry))
    if isinstance(entry, WorkerError):
        return Failure(kind=entry.kind, detail=str(entry))
    reply = cast("dict[str, Any]", entry)
    if reply["text"] is None:
        return Failure(kind="too_long", detail="question, answer and reply do not fit the judge's context")
    return Reply(text=str(reply["text"]), cut=bool(reply["cut"]))

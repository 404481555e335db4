"""Asks a judge that lies in a folder: a worker process of its own loads it once and answers in batches.

See `rewards.served` for the worker. Each process that grades has a judge of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from rewards.base import WorkerError
from rewards.judge.endpoint import Failure, Reply
from rewards.judge.sheet import Conversation
from rewards.served import Local, ServedModel, check_folder

__all__ = ["Local", "LocalJudge", "fingerprint", "judge_in"]

_LOAD = "rewards.judge.local_model:load"
_ANSWER = "rewards.judge.local_model:answer"


class LocalJudge:
    """A model in a worker.

    Args:
        folder: in Hugging Face format, with its tokenizer and chat template.
    """

    def __init__(self, folder: Path, cfg: Local) -> None:
        model = {"path": str(folder.absolute()), "device": cfg.device, "dtype": cfg.dtype}
        fix = "give a model folder with a chat template, and local.memory_mb for it"
        self._batch_size = cfg.batch_size
        self._served = ServedModel(model, cfg, load=_LOAD, cannot="cannot judge", fix=fix)

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
        size = self._batch_size
        batches = [conversations[start : start + size] for start in range(0, len(conversations), size)]
        requests = [
            {"model": self._served.model, "conversations": batch, "max_tokens": max_tokens} for batch in batches
        ]
        found = self._served.ask(_ANSWER, requests, timeout_s=timeout_s, deadline=deadline)
        out: list[Reply | Failure] = []
        for batch, answers in zip(batches, found, strict=True):
            if isinstance(answers, TimeoutError):
                out += [Failure(kind="timeout", detail=str(answers))] * len(batch)
            elif isinstance(answers, WorkerError):
                out += [Failure(kind=answers.kind, detail=str(answers))] * len(batch)
            else:
                out += [_outcome(entry) for entry in cast("list[dict[str, Any]]", answers)]
        return out

    def close(self) -> None:
        """End the worker."""
        self._served.close()


@cache
def judge_in(folder: Path, cfg: Local) -> LocalJudge:
    """The judge of this process for a folder."""
    return LocalJudge(folder, cfg)


def fingerprint(folder: Path) -> list[str]:
    """What tells a model from another that lay in the same folder, without reading it: names, sizes and times.

    Raises:
        ConfigError: it is no model folder.
    """
    check_folder(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [f"{path.name} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in files]


def _outcome(entry: dict[str, Any]) -> Reply | Failure:
    if entry["text"] is None:
        return Failure(kind="too_long", detail="question, answer and reply do not fit the judge's context")
    return Reply(text=str(entry["text"]), cut=bool(entry["cut"]))

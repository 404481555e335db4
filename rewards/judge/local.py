"""Asks a judge that lies in a folder: a worker process of its own loads it once and answers in batches.

The pool of a run gives each item little memory and may give each a new worker; a model needs more and has to stay. So a
judge has a pool of one worker, made when it is first asked and shared by all threads of this process, with the memory
that the config grants, no network, and a deadline per batch. A worker that is killed loads the model again before the
next batch. Each process that grades has a judge of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from rewards.base import WorkerError
from rewards.judge.endpoint import Failure, Reply
from rewards.judge.sheet import Conversation
from rewards.pool import Limits, PoolConfig, WorkerPool
from rlhf.core.errors import ConfigError

_ENVIRONMENT = ["CUDA_VISIBLE_DEVICES", "HF_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
_UNLIMITED_MB = 2**26
"""64 TiB: CUDA reserves addresses for all memory that there could be."""
_DAY_S = 86_400
_LOAD = "rewards.judge.local_model:load"
_ANSWER = "rewards.judge.local_model:answer"


@dataclass(frozen=True, kw_only=True)
class Local:
    """How a judge in a folder is served."""

    device: str = "cpu"
    """cpu, cuda or cuda:N; what else runs there must leave room."""
    dtype: str = "auto"
    """Of its weights: auto, as they lie there; bfloat16, float16 or float32."""
    batch_size: int = 16
    """Answers that are read and graded together; they share a deadline of `timeout_s`."""
    memory_mb: int = 16_384
    """Address space of its worker on a CPU."""
    load_timeout_s: float = 600.0
    """For loading it, imports included."""

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", "bfloat16", "float16", "float32"):
            raise ConfigError("dtype", f"'{self.dtype}' is no dtype for weights", fix="use auto or bfloat16")
        if self.batch_size < 1:
            raise ConfigError("batch_size", f"{self.batch_size} answers are none", fix="use 1 or more")
        if self.memory_mb < 1024:
            raise ConfigError("memory_mb", f"{self.memory_mb} MB do not hold torch", fix="use 16384")
        if self.load_timeout_s <= 0:
            raise ConfigError("load_timeout_s", f"{self.load_timeout_s} leaves no time", fix="use 600")


class LocalJudge:
    """A model in a worker.

    Args:
        folder: in Hugging Face format, with its tokenizer and chat template.
    """

    def __init__(self, folder: Path, cfg: Local) -> None:
        self._cfg = cfg
        self._model = {"path": str(folder.absolute()), "device": cfg.device, "dtype": cfg.dtype}
        memory_mb = cfg.memory_mb if cfg.device == "cpu" else _UNLIMITED_MB
        limits = Limits(memory_mb=memory_mb, cpu_s=_DAY_S, open_files=1024, processes=4096)
        self._pool = WorkerPool(
            PoolConfig(
                limits=limits,
                pass_env=_ENVIRONMENT,
                start_timeout_s=cfg.load_timeout_s,
                recycle_after=10**9,
                spares=0,
            )
        )
        # Loading and answering are two items: no other thread may have the worker killed in between.
        self._lock = threading.Lock()

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
        out: list[Reply | Failure] = []
        for start in range(0, len(conversations), self._cfg.batch_size):
            batch = conversations[start : start + self._cfg.batch_size]
            request = {"model": self._model, "conversations": batch, "max_tokens": max_tokens}
            with self._lock:
                began = time.monotonic()
                try:
                    self._load()
                    deadline += time.monotonic() - began
                    out += self._answers(request, len(batch), seconds=min(timeout_s, deadline - time.monotonic()))
                except TimeoutError:
                    out += [Failure(kind="timeout", detail="the model was not loaded in time")] * len(batch)
        return out

    def close(self) -> None:
        """End the worker."""
        self._pool.close()

    def _answers(self, request: Mapping[str, object], size: int, *, seconds: float) -> list[Reply | Failure]:
        if seconds <= 0:
            return [Failure(kind="timeout")] * size
        try:
            found = self._pool.call(_ANSWER, request, timeout_s=seconds)
        except TimeoutError:
            return [Failure(kind="timeout")] * size
        except WorkerError as error:
            return [Failure(kind=error.kind, detail=str(error))] * size
        return [_outcome(entry) for entry in cast("list[dict[str, Any]]", found)]

    def _load(self) -> None:
        try:
            self._pool.call(_LOAD, self._model, timeout_s=self._cfg.load_timeout_s)
        except WorkerError as error:
            fix = "give a model folder with a chat template, and local.memory_mb for it"
            raise ConfigError("model", f"{self._model['path']} cannot judge: {error}", fix=fix) from error


@cache
def judge_in(folder: Path, cfg: Local) -> LocalJudge:
    """The judge of this process for a folder."""
    return LocalJudge(folder, cfg)


def fingerprint(folder: Path) -> list[str]:
    """What tells a model from another that lay in the same folder, without reading it: names, sizes and times.

    Raises:
        ConfigError: it is no model folder.
    """
    if not (folder / "config.json").is_file():
        fix = "name a folder in Hugging Face format, or give the url of an endpoint"
        raise ConfigError("model", f"{folder} holds no config.json", fix=fix)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [f"{path.name} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in files]


def _outcome(entry: dict[str, Any]) -> Reply | Failure:
    if entry["text"] is None:
        return Failure(kind="too_long", detail="question, answer and reply do not fit the judge's context")
    return Reply(text=str(entry["text"]), cut=bool(entry["cut"]))

"""A model that rewards ask, in a worker process of its own: loaded once, asked in batches, never part of the caller.

The pool of a run gives each item little memory and may give each a new worker; a model needs more and has to stay. So a
model has a pool of one worker, made when it is first asked and shared by all threads of this process, with the memory
that the config grants, no network, and a deadline per batch. A worker that is killed loads the model again before the
next batch. Each process that grades has workers of its own. Used by `rewards.judge` and `rewards.process`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rewards.base import WorkerError
from rewards.pool import Limits, PoolConfig, WorkerPool
from rlhf.core.errors import ConfigError

_ENVIRONMENT = ["CUDA_VISIBLE_DEVICES", "HF_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
_UNLIMITED_MB = 2**26
"""64 TiB: CUDA reserves addresses for all memory that there could be."""
_DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Local:
    """How a model in a folder is served."""

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


class ServedModel:
    """A model in a worker.

    Args:
        model: what `load` is given: path, device and dtype of the model, and whatever else it needs to know.
        load: `module:function` that loads the model unless it is loaded.
        cannot: what is said of a model that cannot be loaded, `cannot judge`.
        fix: and what to do about it.
    """

    def __init__(self, model: Mapping[str, object], cfg: Local, *, load: str, cannot: str, fix: str) -> None:
        self.model = model
        self._cfg, self._load_target, self._cannot, self._fix = cfg, load, cannot, fix
        memory_mb = cfg.memory_mb if cfg.device == "cpu" else _UNLIMITED_MB
        limits = Limits(memory_mb=memory_mb, cpu_s=_DAY_S, open_files=1024)
        start_s = cfg.load_timeout_s
        self._pool = WorkerPool(
            PoolConfig(limits=limits, pass_env=_ENVIRONMENT, start_timeout_s=start_s, recycle_after=10**9)
        )
        # Loading and answering are two items: no other thread may have the worker killed in between.
        self._lock = threading.Lock()

    def ask(
        self, target: str, requests: Sequence[Mapping[str, object]], *, timeout_s: float, deadline: float
    ) -> list[object | TimeoutError | WorkerError]:
        """What the target returns for each request, in order, or why there is nothing.

        Args:
            target: `module:function`.
            timeout_s: of a request.
            deadline: on `time.monotonic`, for all of them but for loading the model.

        Raises:
            ConfigError: the model cannot be loaded.
        """
        out: list[object | TimeoutError | WorkerError] = []
        for request in requests:
            with self._lock:
                began = time.monotonic()
                try:
                    self._load()
                    deadline += time.monotonic() - began
                    seconds = min(timeout_s, deadline - time.monotonic())
                    if seconds <= 0:
                        raise TimeoutError("no time is left")
                    out.append(self._pool.call(target, request, timeout_s=seconds))
                except (TimeoutError, WorkerError) as error:
                    out.append(error)
        return out

    def close(self) -> None:
        """End the worker."""
        self._pool.close()

    def _load(self) -> None:
        try:
            self._pool.call(self._load_target, self.model, timeout_s=self._cfg.load_timeout_s)
        except WorkerError as error:
            raise ConfigError("model", f"{self.model['path']} {self._cannot}: {error}", fix=self._fix) from error


def check_folder(folder: Path) -> None:
    """Refuse what is no model folder.

    Raises:
        ConfigError: it holds no config.json.
    """
    if not (folder / "config.json").is_file():
        fix = "name a folder in Hugging Face format, or give the url of an endpoint"
        raise ConfigError("model", f"{folder} holds no config.json", fix=fix)


def defused(text: str, special: Sequence[str]) -> str:
    """The text without anything that the tokenizer would take for the structure of a conversation."""
    for token in special:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text

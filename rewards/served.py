"""A model that a reward asks: a worker process of its own loads it once and answers in batches.

Used by `rewards.judge.local`, `rewards.process.local` and `rewards.refusal.classifier`. The pool of a run gives each
item little memory and may give each a new worker; a model needs more and has to stay. So it has a pool of one worker,
made when it is first asked and shared by all threads of this process, with the memory that the config grants, no
network, and a deadline per batch. A worker that is killed loads the model again before the next batch. Each process
that grades has one of its own. torch is imported in that worker only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rewards.base import WorkerError
from rewards.pool import Limits, PoolConfig, WorkerPool
from rlhf.core.errors import ConfigError

_ENVIRONMENT = ["CUDA_VISIBLE_DEVICES", "HF_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
_UNLIMITED_MB = 2**26
"""64 TiB: CUDA reserves addresses for all memory that there could be."""
_DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Serving:
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
        folder: in Hugging Face format, with its tokenizer.
        cfg: how it is served.
        load: `module:function` that loads it, given its path, device and dtype.
        run: `module:function` that answers a request, which holds these as `model` and the batch as `items`, with one
            outcome per item.
        more: what else `load` needs to know.
    """

    def __init__(
        self, folder: Path, cfg: Serving, *, load: str, run: str, more: Mapping[str, object] | None = None
    ) -> None:
        self._cfg, self._load, self._run = cfg, load, run
        self._model = {"path": str(folder.absolute()), "device": cfg.device, "dtype": cfg.dtype, **(more or {})}
        memory_mb = cfg.memory_mb if cfg.device == "cpu" else _UNLIMITED_MB
        limits = Limits(memory_mb=memory_mb, cpu_s=_DAY_S, open_files=1024, processes=4096)
        start_s = cfg.load_timeout_s
        self._pool = WorkerPool(
            PoolConfig(limits=limits, pass_env=_ENVIRONMENT, start_timeout_s=start_s, recycle_after=10**9, spares=0)
        )
        # Loading and answering are two items: no other thread may have the worker killed in between.
        self._lock = threading.Lock()

    def ask(
        self, items: Sequence[object], *, settings: Mapping[str, object], timeout_s: float, deadline: float
    ) -> list[object | TimeoutError | WorkerError]:
        """One outcome per item, in batches; an error where there is none.

        Args:
            settings: further keys of each request.
            timeout_s: of a batch.
            deadline: on `time.monotonic`, for all of them but for loading the model.

        Raises:
            ConfigError: the model cannot be loaded.
        """
        out: list[object | TimeoutError | WorkerError] = []
        for start in range(0, len(items), self._cfg.batch_size):
            batch = items[start : start + self._cfg.batch_size]
            request = {"model": self._model, "items": batch, **settings}
            with self._lock:
                began = time.monotonic()
                try:
                    self._loaded()
                    deadline += time.monotonic() - began
                    out += self._answers(request, timeout_s=min(timeout_s, deadline - time.monotonic()))
                except (TimeoutError, WorkerError) as error:
                    out += [error] * len(batch)
        return out

    def close(self) -> None:
        """End the worker."""
        self._pool.close()

    def _answers(self, request: Mapping[str, object], *, timeout_s: float) -> list[object]:
        if timeout_s <= 0:
            raise TimeoutError("there was no time left")
        return cast("list[object]", self._pool.call(self._run, request, timeout_s=timeout_s))

    def _loaded(self) -> None:
        try:
            self._pool.call(self._load, self._model, timeout_s=self._cfg.load_timeout_s)
        except WorkerError as error:
            fix = "give a model folder of the kind that is needed, and memory_mb for it"
            raise ConfigError("model", f"{self._model['path']} cannot be used: {error}", fix=fix) from error
        except TimeoutError as error:
            raise TimeoutError("the model was not loaded in time") from error


def fingerprint(folder: Path) -> list[str]:
    """What tells a model from another that lay in the same folder, without reading it: names, sizes and times.

    Raises:
        ConfigError: it is no model folder.
    """
    if not (folder / "config.json").is_file():
        fix = "name a folder in Hugging Face format, with config.json, *.safetensors and the tokenizer's files"
        raise ConfigError("model", f"{folder} holds no config.json", fix=fix)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [f"{path.name} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in files]


def defused(text: str, special: Sequence[str]) -> str:
    """The text without anything that the tokenizer would take for the structure of a conversation."""
    for token in special:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text

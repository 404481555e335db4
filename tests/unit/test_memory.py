"""Memory arithmetic against the ZeRO paper's own numbers, against torch, and against what autograd keeps."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import tiny_model
import torch
from torch import Tensor

from rlhf.core.config import build_component
from rlhf.core.training import Span
from rlhf.learner.backends.torch_backend import TorchBackend
from rlhf.learner.optimizer import Config
from rlhf.models import adapters, attention, tiny
from rlhf.runtime import memory
from rlhf.runtime.memory import Moment, Part, Shape, Zero
from rollout.kv_cache import InPlaceCache

STATES = ("weights", "gradients", "optimizer")
WIDE: dict[str, Any] = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16}
WIDE |= {"intermediate_size": 160}


def sizes(parts: list[Part]) -> dict[str, float]:
    return {part.name: part.size for part in parts}


def states(zero: Zero, *, parameters: int = 7_500_000_000) -> float:
    """Bytes of model states in the paper's sense: without what DeepSpeed adds."""
    found = sizes(memory.model_states(parameters, memory.BFLOAT16, zero))
    return sum(found[name] for name in STATES)


def shape_of(model: Any, **changes: Any) -> Shape:
    cfg = model.config
    fields: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "layers": cfg.num_hidden_layers,
        "hidden": cfg.hidden_size,
        "intermediate": vars(cfg).get("intermediate_size", 4 * cfg.hidden_size),
        "heads": cfg.num_attention_heads,
        "kv_heads": vars(cfg).get("num_key_value_heads", cfg.num_attention_heads),
        "head_dim": vars(cfg).get("head_dim", cfg.hidden_size // cfg.num_attention_heads),
        "vocabulary": cfg.vocab_size,
    }
    return Shape(**fields | changes)


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.88)])
def test_stages_are_those_of_figure_1_of_the_zero_paper(stage: int, gigabytes: float) -> None:
    """7.5 billion parameters, 64 ranks, K = 12."""
    assert states(Zero(stage=stage, ranks=64)) / 1e9 == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize(("ranks", "terabytes"), [(1, 16), (4, 4), (16, 1), (64, 0.25), (256, 0.0625), (1024, 0.0156)])
def test_a_trillion_parameters_are_those_of_table_1(ranks: int, terabytes: float) -> None:
    assert states(Zero(stage=3, ranks=ranks), parameters=10**12) / 1e12 == pytest.approx(terabytes, rel=0.01)


def test_one_rank_of_any_stage_holds_everything() -> None:
    assert {states(Zero(stage=stage), parameters=100) for stage in (0, 1, 2, 3)} == {1600}


def test_float32_states_by_hand() -> None:
    """1,000 parameters on four ranks: 4 bytes each of weights and gradients, 8 of moments, DeepSpeed's copy of 4."""

    def found(stage: int, **offload: bool) -> dict[str, float]:
        zero = Zero(stage=stage, ranks=4, bucket=50, gathered=100, **offload)
        return sizes(memory.model_states(1000, memory.FLOAT32, zero))

    assert found(0) == {"weights": 4000, "gradients": 4000, "optimizer": 8000}
    assert found(1) == {
        "weights": 4000,
        "gradients": 4000,
        "optimizer": 3000,
        "gradients of a step": 1000,
        "bucket of gradients": 50,
    }
    assert found(2) == {
        "weights": 4000,
        "gradients": 1000,
        "optimizer": 3000,
        "gradients of a step": 1000,
        "bucket of gradients": 50,
    }
    assert found(3) == {
        "weights": 1000,
        "gradients": 1000,
        "optimizer": 3000,
        "bucket of gradients": 50,
        "gathered weights": 400,
    }


def test_what_is_offloaded_lies_in_host_memory() -> None:
    zero = Zero(stage=3, ranks=2, offload_optimizer=True, offload_parameters=True, bucket=0)
    parts = memory.model_states(1000, memory.BFLOAT16, zero)
    assert {part.name for part in parts if part.on_host} == {"weights", "optimizer", "float32 gradients, buffers"}
    # Master weights and moments 12, weights 2, the step's gradients 4: all halved.
    assert memory.total(parts, Moment.ROLLOUT, on_host=True) == 1000 * (12 + 2 + 4) / 2
    # What is left: half of the gradients, and the gathered weights.
    assert memory.total(parts, Moment.TRAINING) == 1000 * (2 / 2 + 2)


def test_a_step_in_16_bits_makes_its_gradients_float32() -> None:
    parts = memory.model_states(1000, memory.BFLOAT16, Zero(stage=2, ranks=4))
    assert memory.total(parts, Moment.UPDATE) - memory.total(parts, Moment.ROLLOUT) == 1000 * (2 + 4) / 4


@pytest.mark.parametrize("size", tiny.SIZES)
def test_weights_are_those_of_the_models_that_ship(size: str) -> None:
    vocabulary = tiny.Vocabulary(size=40, eos=1, pad=0)
    model = tiny.build_model(size, vocabulary=vocabulary, max_positions=64, seed=0)
    real = sum(p.untyped_storage().nbytes() for p in model.parameters())
    assert sizes(memory.model_states(shape_of(model).parameters, memory.FLOAT32, Zero()))["weights"] == real


@pytest.mark.parametrize(
    ("dtype", "numbers"), [(torch.float32, memory.FLOAT32), (torch.bfloat16, memory.PURE_BFLOAT16)], ids=str
)
def test_gradients_and_optimizer_are_those_of_the_torch_backend(dtype: torch.dtype, numbers: memory.Numbers) -> None:
    model = tiny_model.model(dtype=dtype)
    backend = TorchBackend(model, Config(lr=1e-3))
    backend.backward(sum(p.float().square().sum() for p in model.parameters()))  # type: ignore[arg-type]
    gradients = sum(p.grad.nbytes for p in model.parameters())
    backend.step(1.0)
    moments = [t for state in backend._optimizer.state.values() for k, t in state.items() if k.startswith("exp_avg")]
    found = sizes(memory.model_states(shape_of(model).parameters, numbers, Zero()))
    assert found["gradients"] == gradients
    assert found["optimizer"] == sum(t.nbytes for t in moments)


@pytest.mark.parametrize("length", [32, 160], ids=["scores kept", "fused"])
@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_activations_are_what_autograd_keeps(family: str, precision: str, length: int) -> None:
    numbers = {"float32": memory.FLOAT32, "autocast": memory.AUTOCAST, "bfloat16": memory.BFLOAT16}[precision]
    tokens = 2 * length
    kept: list[float] = []
    for layers in (1, 2):
        wide = {"n_embd": 96, "n_layer": layers} if family == "gpt2" else WIDE | {"num_hidden_layers": layers}
        positions = {"n_positions" if family == "gpt2" else "max_position_embeddings": 512}
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        model = tiny_model.model(family, dtype=dtype, **wide, **positions)
        kept.append(saved_bytes(model, num_sequences=2, length=length, casts=precision == "autocast"))
    shape = shape_of(model, gated=family != "gpt2", head_norms=family == "qwen3")
    expected = tokens * memory.activations(shape, numbers, scored=length if length <= attention.SHORT else 0)
    assert expected == pytest.approx(kept[1] - kept[0], rel=0.01)


def saved_bytes(model: Any, *, num_sequences: int, length: int, casts: bool) -> float:
    """Bytes of all distinct tensors that a forward pass keeps for the backward one, without the weights."""
    attention.register()
    model.set_attn_implementation(attention.NAME)
    tokens = num_sequences * length
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    matrices = {tuple(p.shape) for p in model.parameters()} | {tuple(p.shape[::-1]) for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        cast = casts and tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in matrices
        if tensor.untyped_storage().data_ptr() not in weights and not cast:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    spans = [Span(range(n * length, n * length), range(n * length, (n + 1) * length)) for n in range(num_sequences)]
    ids = torch.arange(tokens) % model.config.vocab_size
    context = torch.autocast("cpu", dtype=torch.bfloat16) if casts else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), context:
        out = model.base_model(
            input_ids=ids[None],
            position_ids=(torch.arange(tokens) % length)[None],
            use_cache=False,
            packing=attention.packing(spans, ids.device),
        ).last_hidden_state
    assert out.requires_grad
    return float(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))


def test_recomputed_layers_keep_their_inputs_and_one_layer_at_a_time() -> None:
    shape = Shape(parameters=0, layers=10, hidden=8, intermediate=16, heads=2, kv_heads=2, head_dim=4, vocabulary=10)
    training = memory.Training(numbers=memory.FLOAT32, tokens=100, chunk=0)
    layer = 100 * memory.activations(shape, memory.FLOAT32)
    assert layer == 100 * (24 * 8 + 4 * (3 * 8 + 2 * 8 + 4 * 16) + 4 * 2)
    assert sizes(memory.learner(shape, training))["activations"] == 10 * layer
    again = memory.Training(numbers=memory.FLOAT32, tokens=100, chunk=0, checkpointing=True)
    assert sizes(memory.learner(shape, again))["activations"] == 10 * 100 * 8 * 4 + layer


@pytest.mark.parametrize(("chunk", "arrays"), [(0, 4 * 100 * 10), (2**20, 4 * 100 * 10), (1024, 1024)])
def test_logits_are_bounded_by_the_chunk(chunk: int, arrays: int) -> None:
    shape = shape_of(tiny_model.model(), vocabulary=10)
    training = memory.Training(numbers=memory.FLOAT32, tokens=100, chunk=chunk)
    assert sizes(memory.learner(shape, training))["logits of a chunk"] == 5 * arrays


@pytest.mark.parametrize("trainable", [{"name": "half"}, {"name": "lora", "r": 4}], ids=["half", "lora"])
def test_what_does_not_train_has_neither_gradient_nor_optimizer(trainable: dict[str, Any]) -> None:
    if trainable["name"] == "lora":
        pytest.importorskip("peft", reason="needs the extra `lora`")
    model = tiny_model.model(**WIDE)
    shape = shape_of(model)
    adapters.prepare(model, build_component("rlhf.models.trainable", trainable, "trainable"), seed=0)
    backend, own = TorchBackend(model, Config()), list(adapters.trained(model).values())
    sum((p.sum() for p in own), torch.zeros(())).backward()
    gradients = sum(p.grad.nbytes for p in own if p.grad is not None)
    weights = sum(p.nbytes for p in model.parameters())
    backend.step(1.0)
    moments = sum(t.nbytes for s in backend._optimizer.state.values() for t in s.values() if t.ndim)  # type: ignore[union-attr]
    count = sum(p.numel() for p in own)
    added = sum(p.numel() for p in model.parameters()) - shape.parameters
    training = memory.Training(
        numbers=memory.FLOAT32, tokens=8, chunk=0, trained=memory.Trained(parameters=count, added=added)
    )
    found = sizes(memory.learner(shape, training))
    assert [found[name] for name in STATES] == [weights, gradients, moments]
    assert moments < 0.7 * 8 * shape.parameters


def test_weights_in_4_bits_are_an_eighth_and_their_scales() -> None:
    """QLoRA, section 3: double quantisation leaves 0.127 bits of scales per weight."""
    assert pytest.approx(4.127, abs=5e-4) == 8 * memory.QUANTIZED
    shape = shape_of(tiny_model.model(), parameters=10_000)
    trained = memory.Trained(parameters=100, added=100, quantized=8000)
    for numbers, small in ((memory.FLOAT32, 4), (memory.PURE_BFLOAT16, 2)):
        found = sizes(memory.learner(shape, memory.Training(numbers=numbers, tokens=8, chunk=0, trained=trained)))
        assert found["weights"] == pytest.approx(400 + 2000 * small + 8000 * memory.QUANTIZED)
        assert found["optimizer"] == 800, "float32 in any case"


def test_the_cache_is_as_large_as_the_engine_s() -> None:
    model = tiny_model.model("llama")
    rows, capacity = 3, 20
    cache = InPlaceCache(model.config.num_hidden_layers, capacity)
    with torch.no_grad():
        model(input_ids=torch.ones((rows, 5), dtype=torch.long), past_key_values=cache, use_cache=True)
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.in_place)  # type: ignore[union-attr]
    sampling = memory.Sampling(bytes_per_value=4, sequences=rows, tokens=capacity)
    assert sizes(memory.engine(shape_of(model), sampling))["keys and values"] == real


def test_tensor_parallel_workers_split_weights_and_heads_and_share_a_head_that_cannot_be_split() -> None:
    shape = Shape(parameters=1000, layers=2, hidden=8, intermediate=16, heads=8, kv_heads=2, head_dim=4, vocabulary=10)

    def found(workers: int) -> dict[str, float]:
        sampling = memory.Sampling(bytes_per_value=2, sequences=3, tokens=5, tensor_parallel=workers)
        return sizes(memory.engine(shape, sampling))

    whole = 3 * 5 * (2 * 2 * 2 * 4) * 2
    logits = 3 * 10 * (16 + 2)
    assert found(1) == {"weights": 2000, "keys and values": whole, "logits of a token": logits}
    assert found(2) == {"weights": 1000, "keys and values": whole / 2, "logits of a token": logits}
    assert found(8) == {"weights": 250, "keys and values": whole / 2, "logits of a token": logits}


def test_an_engine_that_reserves_memory_gives_its_cache_what_is_left() -> None:
    shape = shape_of(tiny_model.model(), parameters=1000)
    sampling = memory.Sampling(bytes_per_value=2, sequences=3, tokens=5, reserved=5000)
    assert sizes(memory.engine(shape, sampling)) == {"weights": 2000, "keys and values": 3000}
    assert memory.total(memory.engine(shape, sampling), Moment.TRAINING) == 5000


def test_a_sleeping_engine_needs_nothing_while_the_learner_trains() -> None:
    shape = shape_of(tiny_model.model(), parameters=1000)
    sampling = memory.Sampling(bytes_per_value=2, sequences=3, tokens=5, reserved=5000, sleeps=True)
    parts = memory.engine(shape, sampling)
    assert [memory.total(parts, moment) for moment in Moment] == [5000, 0, 0, 5000]
    parts = memory.engine(shape, replace(sampling, parks=True))
    assert [memory.total(parts, moment) for moment in Moment] == [5000, 0, 0, 5000]
    assert [memory.total(parts, moment, on_host=True) for moment in Moment] == [0, 2000, 2000, 0]


def test_an_engine_whose_cache_has_a_size_holds_it_from_its_start_on() -> None:
    shape = shape_of(tiny_model.model(), parameters=1000, vocabulary=10)
    sampling = memory.Sampling(bytes_per_value=2, sequences=3, tokens=5, cache=7000)
    found = memory.engine(shape, sampling)
    assert sizes(found) == {"weights": 2000, "keys and values": 7000, "logits of a token": 3 * 10 * (16 + 2)}
    assert [memory.total(found, moment) for moment in Moment] == [9540, 9000, 9000, 9000]


@pytest.mark.parametrize(
    ("cache", "longest", "fits"), [(1000, None, 2), (399, None, 0), (10_000, None, 3), (1000, 12, 2), (1000, 13, 0)]
)
def test_a_cache_has_room_for_whole_sequences_if_it_has_any_for_the_longest(
    cache: int, longest: int | None, fits: int
) -> None:
    """A token takes 2 bytes for each of 2 × 2 layers × 1 head of 10 values: 80; a sequence of 5 tokens takes 400."""
    shape = shape_of(tiny_model.model(), layers=2, kv_heads=1, head_dim=10)
    sampling = memory.Sampling(bytes_per_value=2, sequences=3, tokens=5, cache=cache, longest=longest)
    assert memory.concurrency(shape, sampling) == fits


def test_a_reference_is_sharded_in_stage_3_only_and_can_be_offloaded() -> None:
    shape = shape_of(tiny_model.model(), parameters=1000)
    [shared] = memory.frozen(shape, memory.BFLOAT16, Zero(stage=2, ranks=4))
    [sharded] = memory.frozen(shape, memory.BFLOAT16, Zero(stage=3, ranks=4))
    [away] = memory.frozen(shape, memory.BFLOAT16, Zero(stage=3, ranks=4, offload_parameters=True))
    assert (shared.size, sharded.size, away.size) == (2000, 500, 500) and away.on_host


def test_the_peak_is_the_largest_sum_of_one_moment_not_the_sum_of_all() -> None:
    parts = [
        Part(name="always", size=10),
        Part(name="cache", size=50, moments=frozenset({Moment.ROLLOUT})),
        Part(name="activations", size=40, moments=frozenset({Moment.TRAINING})),
        Part(name="elsewhere", size=1000, on_host=True),
    ]
    assert memory.peak([*parts, memory.sync_bucket(30)]) == (Moment.ROLLOUT, 60)
    assert memory.total([*parts, memory.sync_bucket(30)], Moment.SYNC) == 40
    assert memory.owned("engine", parts)[1].name == "engine: cache"

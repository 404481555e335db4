"""From a config to bytes by part and moment, and the words for what does not fit."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from rich.console import Console

from rlhf.core.errors import ConfigError
from rlhf.loops import plan, plan_memory, plan_trained, settings
from rlhf.loops.plan_memory import Holding, Lengths
from rlhf.models import load
from rlhf.runtime import memory
from rlhf.runtime.memory import GIB, Moment, Part, Shape, Zero

ROOT = Path(__file__).parents[2]
LENGTHS = Lengths(prompt_mean=10.0, prompt_max=12, solution_max=40)
SHAPE = Shape(parameters=1000, layers=2, hidden=8, intermediate=16, heads=2, kv_heads=1, head_dim=4, vocabulary=10)


def read(*overrides: str) -> settings.Experiment:
    return settings.read(ROOT / "configs" / "quickstart.yaml", overrides)


def rank(experiment: settings.Experiment, stage: int, **changes: Any) -> dict[str, float]:
    given: dict[str, Any] = {"device": "cpu"} | changes
    parts = plan_memory.rank(experiment.stages[stage], experiment.settings, SHAPE, LENGTHS, **given)
    return {part.name: part.size for part in parts}


def printed(holding: Holding, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    plan_memory.show(console, holding)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("stage", "longest", "samples"), [(0, 40, 64), (1, 12 + 64, 256)], ids=["sft", "rl"])
def test_a_pass_holds_the_samples_of_an_update_or_a_full_micro_batch(stage: int, longest: int, samples: int) -> None:
    layers = SHAPE.layers * memory.activations(SHAPE, memory.FLOAT32, scored=longest)
    assert rank(read(), stage)["learner: activations"] == layers * min(8192, longest * samples)
    few = rank(read("sft.batch_size=2", "rl.minibatches=128"), stage)
    assert few["learner: activations"] == layers * longest * 2
    split = rank(read("sft.batch_size=2", "rl.minibatches=128"), stage, ranks=2)
    assert split["learner: activations"] == layers * longest


def test_attention_scores_are_kept_of_short_sequences_on_a_cpu_only() -> None:
    precise = "rl.learner.optimizer.precision=float32"
    short, long = read(precise), read(precise, "sampling.max_tokens=200")
    on_cpu, on_gpu = (rank(short, 1, device=device)["learner: activations"] for device in ("cpu", "cuda"))
    assert on_cpu > on_gpu
    assert rank(long, 1)["learner: activations"] == rank(long, 1, device="cuda")["learner: activations"]


def test_a_reference_is_there_when_a_stage_looks_at_one() -> None:
    assert "reference: weights" not in rank(read(), 1)
    assert rank(read("rl.loss.kl_coef=0.1"), 1)["reference: weights"] == 4000


def test_a_teacher_counts_as_large_as_it_is(tmp_path: Path) -> None:
    taught = ("rl.advantage.name=reverse_kl", "rl.teacher.path=sft")
    assert rank(read(*taught), 1)["teacher: weights"] == 4000
    teacher = tiny_model.model()
    teacher.config.save_pretrained(tmp_path)
    found = rank(read(*taught[:1], f"rl.teacher.path={tmp_path}"), 1)["teacher: weights"]
    assert found == 4 * sum(p.numel() for p in teacher.parameters())


def test_beside_adapters_there_is_no_second_model_unless_it_moves() -> None:
    trained = {"rl": memory.Trained(parameters=50, added=50), "rl.critic": memory.Trained(parameters=400)}
    keys = ("rl.loss.kl_coef=0.1", "rl.learner.trainable.name=lora", "rl.learner.optimizer.precision=float32")
    found = rank(read(*keys), 1, trained=trained)
    assert not any(name.startswith("reference") for name in found)
    assert (found["learner: weights"], found["learner: optimizer"]) == (4200, 400)
    assert rank(read(*keys, "rl.reference.every=1"), 1)["reference: weights"] == 4000
    critic = rank(read(*keys, "rl.advantage.name=gae"), 1, trained=trained)
    assert (critic["critic: weights"], critic["critic: optimizer"]) == (4000, 3200)


def test_a_plan_counts_what_trains(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs the extra `lora`")
    tiny_model.model().save_pretrained(tmp_path)
    lora = ("rl.learner.trainable.name=lora", "rl.learner.trainable.r=2")
    found = plan_trained.counts(read("sft.learner.trainable.name=half", *lora), tmp_path)
    # Per layer: four of the attention (32 or 16 wide), three of the MLP (48).
    adapters = 2 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    assert found["rl"] == memory.Trained(parameters=adapters, added=adapters)
    whole = sum(p.numel() for p in tiny_model.model().parameters())
    assert 0.35 * whole < found["sft"].parameters < 0.7 * whole and not found["sft"].added
    wrong = read(*lora, "rl.learner.trainable.target_modules=[query]")
    with pytest.raises(ConfigError, match=r"rl\.learner\.trainable\.target_modules"):
        plan_trained.counts(wrong, tmp_path)


def test_a_critic_is_a_second_learner_without_logits() -> None:
    found = rank(read("rl.advantage.name=gae", "rl.critic.learner.micro_batch_tokens=100"), 1)
    mine = {name.removeprefix("critic: "): size for name, size in found.items() if name.startswith("critic: ")}
    policy = {name.removeprefix("learner: "): size for name, size in found.items() if name.startswith("learner: ")}
    assert policy.keys() - mine.keys() == {"logits of a chunk"}
    assert mine.pop("activations") < policy.pop("activations"), "a batch of its own"
    assert mine == {name: policy[name] for name in mine}
    assert not any(name.startswith("critic: ") for name in rank(read(), 1))


def test_a_model_of_steps_learns_beside_a_policy_that_does_not() -> None:
    found = rank(read("sft.loss.name=prm", "sft.examples.name=steps"), 0)
    policy = rank(read(), 0)
    assert found["policy: weights"] == found["prm: weights"] == policy["learner: weights"]
    assert found["prm: optimizer"] == policy["learner: optimizer"] and "policy: optimizer" not in found


def test_a_stage_that_only_generates_holds_weights_and_no_optimizer() -> None:
    assert rank(read("stages=[gen]", "gen.loop=generate"), 0) == {"learner: weights": 4000}


ZERO = "rl.learner.backend.name=deepspeed_backend"
NARROW = "rl.learner.optimizer.precision=bfloat16"


@pytest.mark.parametrize(
    ("size", "overrides", "expected"),
    [
        (4, [], memory.FLOAT32),
        (4, [NARROW], memory.AUTOCAST),
        (2, [], memory.PURE_BFLOAT16),
        (8, [], memory.FLOAT64),
        (2, [ZERO], memory.FLOAT32),
        (4, [ZERO, NARROW], memory.SUMMED_BFLOAT16),
        (2, [ZERO, "rl.learner.backend.zero_stage=0"], memory.FLOAT32),
        (2, [ZERO, NARROW, "rl.learner.backend.zero_stage=0"], memory.AUTOCAST),
    ],
)
def test_bytes_per_number_follow_the_model_the_precision_and_the_backend(
    size: int, overrides: list[str], expected: memory.Numbers
) -> None:
    [stage] = read("stages=[rl]", *overrides).stages
    assert plan_memory.numbers(replace(SHAPE, bytes_per_value=size), stage, "cpu") == expected


def test_a_gpu_that_is_not_here_is_taken_for_one_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    [stage] = read("stages=[rl]").stages
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert plan_memory.numbers(SHAPE, stage, "cuda") == memory.AUTOCAST
    [precise] = read("stages=[rl]", "rl.learner.optimizer.precision=float32").stages
    assert plan_memory.numbers(SHAPE, precise, "cuda") == memory.FLOAT32


def test_sharding_is_that_of_the_backend() -> None:
    def of(*overrides: str, device: str = "cpu") -> Zero:
        [stage] = read("stages=[rl]", *overrides).stages
        return plan_memory.sharding(stage, ranks=4, device=device)

    assert of() == Zero(ranks=4)
    offload = ["rl.learner.backend.zero_stage=3", "rl.learner.backend.offload_optimizer=cpu"]
    found = of(ZERO, *offload, "rl.learner.backend.offload_parameters=cpu", "rl.learner.backend.bucket_mib=2")
    assert found == Zero(stage=3, ranks=4, offload_optimizer=True, offload_parameters=True, bucket=2 * 2**20)
    # In bfloat16 gradients travel at twice the width, and on a GPU while the next bucket fills.
    assert of(ZERO, NARROW, "rl.learner.backend.bucket_mib=2").bucket == 4 * 2**20
    assert of(ZERO, NARROW, "rl.learner.backend.bucket_mib=2", device="cuda").bucket == 8 * 2**20


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_the_shape_is_read_from_a_model_s_config(dtype: str, tmp_path: Path) -> None:
    cfg = load.Config(init="tiny", max_positions=32)
    folder = load.prepare(cfg, tmp_path / "model", texts=["12+3=15"], seed=0)
    model = load.load_model(folder, dtype=dtype, device="cpu")
    shape = plan.model_shape(folder, dtype=dtype, trust_remote_code=False)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.parameters * shape.bytes_per_value == sum(p.nbytes for p in model.parameters())
    assert (shape.layers, shape.hidden, shape.intermediate) == (4, 128, 480)
    assert (shape.heads, shape.kv_heads, shape.head_dim) == (4, 4, 32)
    assert shape.gated and not shape.head_norms and shape.positions == 32


PARTS = [
    Part(name="learner: weights", size=3 * GIB),
    Part(name="learner: activations", size=2 * GIB, moments=memory.BACKWARD, fix="turn on checkpointing"),
    Part(
        name="engine: keys and values", size=9 * GIB, moments=frozenset({Moment.ROLLOUT}), fix="lower engine.max_batch"
    ),
    Part(name="learner: optimizer", size=6 * GIB, on_host=True, fix="leave it there"),
]


def test_the_table_shows_the_moments_that_can_be_the_fullest() -> None:
    shown = printed(Holding(title="one device", parts=PARTS, capacity=16 * GIB, where="cpu"))
    assert [word for word in shown.split() if word in list(Moment)] == ["rollout", "training"]
    assert "one device" in shown and "GiB" in shown and "and 6.00 GiB of host memory" in shown
    together = next(line for line in shown.splitlines() if "together" in line)
    assert [float(word) for word in together.replace("│", " ").split()[1:]] == [12.0, 5.0]


def test_equal_moments_are_shown_once() -> None:
    shown = printed(Holding(title="t", parts=[Part(name="weights", size=2**20)], capacity=None, where="cpu"))
    assert sum(word in list(Moment) for word in shown.split()) == 1 and "MiB" in shown


def test_what_fits_is_said_with_the_numbers_of_its_fullest_moment() -> None:
    told = plan_memory.verdict(Holding(title="t", parts=PARTS, capacity=16 * GIB, where="cuda:0"))
    assert told == "fits: about 12.00 GiB (during rollout) of 16.0 GiB on cuda:0"


def test_what_does_not_fit_names_the_moment_and_what_to_change_there() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_memory.verdict(Holding(title="t", parts=PARTS, capacity=8 * GIB, where="cuda:0"))
    assert "12.00 GiB (during rollout) of 8.0 GiB on cuda:0" in caught.value.problem
    assert caught.value.fix == "lower engine.max_batch, or use a smaller model"


def test_the_largest_parts_are_what_a_refusal_changes_first() -> None:
    parts = [Part(name=str(n), size=n * GIB, fix=f"change {n}") for n in range(1, 6)]
    with pytest.raises(ConfigError) as caught:
        plan_memory.verdict(Holding(title="t", parts=parts, capacity=GIB, where="cpu"))
    assert caught.value.fix == "change 5, or change 4, or change 3, or use a smaller model"


def test_an_unknown_capacity_is_no_verdict_and_names_the_key_that_would_tell() -> None:
    holding = Holding(title="t", parts=PARTS, capacity=None, where="a GPU", capacity_key="runtime.device_memory_gib")
    told = plan_memory.verdict(holding)
    assert told.startswith("needs about 12.00 GiB") and "set runtime.device_memory_gib" in told

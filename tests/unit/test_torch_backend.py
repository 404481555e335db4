"""The optimizer: AdamW's first step by hand, clipping, gradients that are not finite, and state that survives."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from safetensors.torch import load_file
from torch import Tensor

from rlhf.core.errors import CheckpointError, ConfigError
from rlhf.core.training import TensorMeta
from rlhf.learner import state
from rlhf.learner.backends.torch_backend import TorchBackend
from rlhf.learner.optimizer import Config, autocast


def backend(*, seed: int = 0, dtype: torch.dtype = torch.float64, **settings: Any) -> TorchBackend:
    return TorchBackend(tiny_model.model(seed=seed, dtype=dtype), Config(**{"lr": 1e-3, **settings}))


def weights(made: TorchBackend) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in made.model.named_parameters()}


def accumulate(made: TorchBackend, seed: int) -> dict[str, Tensor]:
    """Give every parameter a random gradient; returns them."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        for name, p in made.model.named_parameters()
    }
    made.backward(sum((p * drawn[name]).sum() for name, p in made.model.named_parameters()))  # type: ignore[arg-type]
    return drawn


def norm(tensors: dict[str, Tensor]) -> float:
    return math.sqrt(sum(t.square().sum().item() for t in tensors.values()))


def test_the_first_step_by_hand() -> None:
    made = backend(weight_decay=0.1, grad_clip=0, eps=1e-3)
    before, drawn = weights(made), accumulate(made, 1)
    assert made.step(0.5) == pytest.approx(norm(drawn), rel=1e-12)
    for name, after in weights(made).items():
        g, p = drawn[name], before[name]
        # Bias correction makes the first moments the gradient itself; only matrices decay.
        decayed = p * (1 - 0.5e-3 * 0.1) if p.ndim == 2 else p
        torch.testing.assert_close(after, decayed - 0.5e-3 * g / (g.abs() + 1e-3), atol=1e-12, rtol=0)
    assert all(p.grad is None for p in made.model.parameters()), "the next update starts from nothing"


@pytest.mark.parametrize("betas", [None, [0.8, 0.95]])
def test_moments_have_the_decay_asked_for(betas: list[float] | None, tmp_path: Path) -> None:
    made = backend(betas=betas, grad_clip=0)
    first = accumulate(made, 1)
    made.step(1.0)
    second = accumulate(made, 2)
    made.step(1.0)
    b1, b2 = betas or (0.9, 0.999)
    for name, moments in moments_of(made, tmp_path).items():
        g1, g2 = first[name], second[name]
        torch.testing.assert_close(moments["exp_avg"], (1 - b1) * (b1 * g1 + g2), atol=1e-14, rtol=0)
        torch.testing.assert_close(moments["exp_avg_sq"], (1 - b2) * (b2 * g1**2 + g2**2), atol=1e-14, rtol=0)


def moments_of(made: TorchBackend, folder: Path) -> dict[str, dict[str, Tensor]]:
    """The moments by parameter, as they are stored."""
    made.save(folder)
    stored = load_file(folder / "optimizer" / "moments.safetensors")
    names = [name for name, _ in made.model.named_parameters()]
    return {name: {k: stored[f"{name}.{k}"] for k in ("exp_avg", "exp_avg_sq")} for name in names}


def test_clipping_scales_the_whole_gradient_to_the_limit(tmp_path: Path) -> None:
    made = backend(grad_clip=0.5)
    drawn = accumulate(made, 1)
    assert made.step(1.0) == pytest.approx(norm(drawn), rel=1e-12), "the norm is that before clipping"
    for name, moments in moments_of(made, tmp_path).items():
        expected = 0.1 * drawn[name] * 0.5 / norm(drawn)
        torch.testing.assert_close(moments["exp_avg"], expected, atol=1e-8, rtol=1e-6)


def test_a_small_gradient_is_not_clipped(tmp_path: Path) -> None:
    made = backend(grad_clip=1e6)
    drawn = accumulate(made, 1)
    made.step(1.0)
    for name, moments in moments_of(made, tmp_path).items():
        torch.testing.assert_close(moments["exp_avg"], 0.1 * drawn[name], atol=1e-14, rtol=0)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_changes_nothing(poison: float, grad_clip: float, tmp_path: Path) -> None:
    made, clean = backend(grad_clip=grad_clip), backend(grad_clip=grad_clip)
    for one in (made, clean):
        accumulate(one, 1)
        one.step(1.0)
    accumulate(made, 2)
    next(made.model.parameters()).grad[0, 0] = poison  # type: ignore[index]
    assert not math.isfinite(made.step(1.0))
    for one in (made, clean):
        accumulate(one, 3)
        one.step(1.0)
    assert_equal(weights(made), weights(clean))


def test_saved_state_continues_bit_for_bit(tmp_path: Path) -> None:
    whole, first = backend(dtype=torch.float32), backend(dtype=torch.float32)
    for update in range(3):
        for one in (whole, first):
            accumulate(one, update)
            one.step(1.0)
    first.save(tmp_path)
    second = backend(seed=9, dtype=torch.float32)
    second.model.load_state_dict(first.model.state_dict())
    second.load(tmp_path)
    for update in range(3, 6):
        for one in (whole, second):
            accumulate(one, update)
            one.step(0.9)
    assert_equal(weights(second), weights(whole))


def test_a_state_before_the_first_step_is_empty_and_loads(tmp_path: Path) -> None:
    backend().save(tmp_path)
    made = backend()
    made.load(tmp_path)
    assert json.loads((tmp_path / "optimizer" / "steps.json").read_text()) == {}


def assert_equal(some: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert some.keys() == other.keys()
    for name in some:
        assert torch.equal(some[name], other[name]), name


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    other = TorchBackend(tiny_model.model("gpt2", dtype=torch.float64), Config(lr=1e-3))
    accumulate(other, 0)
    other.step(1.0)
    other.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"moments\.safetensors.*unknown parameters.*transformer"):
        backend().load(tmp_path)


def test_float32_weights_that_another_backend_kept_are_taken_over(tmp_path: Path) -> None:
    made = backend(dtype=torch.float32)
    accumulate(made, 0)
    made.step(1.0)
    made.save(tmp_path)
    masters = {name: p.detach() + 1e-3 for name, p in made.model.named_parameters()}
    metas = [TensorMeta(name, t.dtype, tuple(t.shape)) for name, t in masters.items()]
    state.write_masters(tmp_path, metas, masters.items())
    made.load(tmp_path)
    assert_equal(weights(made), masters)
    with pytest.raises(CheckpointError, match=r"float32 master weights.*bfloat16.*\n.*model\.dtype=float32"):
        backend(dtype=torch.bfloat16).load(tmp_path)


def test_moments_of_two_parameters_that_took_different_steps_are_not_counted_together(tmp_path: Path) -> None:
    made = backend()
    accumulate(made, 0)
    made.step(1.0)
    made.save(tmp_path)
    known = [name for name, _ in made.model.named_parameters()]
    assert state.Stored(tmp_path, known=known).common_steps() == 1
    counts = json.loads((tmp_path / "optimizer" / "steps.json").read_text())
    (tmp_path / "optimizer" / "steps.json").write_text(json.dumps(counts | {known[0]: 2.0}))
    with pytest.raises(CheckpointError, match=r"some parameters have taken 1\.0 steps and others 2\.0"):
        state.Stored(tmp_path, known=known).common_steps()


def test_nothing_that_could_run_code_is_written_and_nothing_beside_the_model(tmp_path: Path) -> None:
    made = backend()
    accumulate(made, 0)
    made.step(1.0)
    made.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["optimizer"], "nothing that could be taken for weights"
    assert sorted(p.name for p in (tmp_path / "optimizer").iterdir()) == ["moments.safetensors", "steps.json"]


def test_precision() -> None:
    x = torch.ones(2, 2)
    with autocast("cpu", "bfloat16"):
        assert (x @ x).dtype == torch.bfloat16
    for precision in ("auto", "float32"):
        with autocast("cpu", precision):
            assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"precision": "fp16"}, "precision"),
        ({"lr": -1.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"betas": [0.9]}, "betas"),
        ({"betas": [0.9, 1.0]}, "betas"),
        ({"eps": 0.0}, "eps"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"grad_clip": -1.0}, "grad_clip"),
    ],
)
def test_impossible_values_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == field

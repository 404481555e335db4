"""The learner with a real model in float64: gradients that do not depend on micro-batches, steps, saving."""

from __future__ import annotations

import copy
import math
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from torch import Tensor

from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError, DivergedError, UserError
from rlhf.core.metrics import values
from rlhf.core.protocols import Counts
from rlhf.core.sampling import Transforms
from rlhf.core.training import Head, Sample
from rlhf.data.packing import count, pack
from rlhf.learner import optimizer, schedule
from rlhf.learner.learner import Config, Learner
from rlhf.models import load
from rlhf.models.forward import value_head

LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"name": "policy", "aggregate": "sequence"},
    "dapo": {"name": "policy", "aggregate": "token", "clip_high": 0.28},
    "dr_grpo": {"name": "policy", "aggregate": "constant", "constant_length": 16},
    "kl_and_entropy": {"name": "policy", "kl_coef": 0.1, "entropy_coef": 0.05},
    "sft": {"name": "ce"},
    "intuitive": {"name": "intuitive", "guess_share": 0.4},
    "critic": {"name": "value"},
}
SHAPED = Transforms(temperature=0.8, top_p=0.95)


def samples(*, num: int = 9, zeros: Sequence[int] = ()) -> list[Sample]:
    """Sequences of unequal length with every stream; those in `zeros` have no advantage."""
    generator = torch.Generator().manual_seed(11)

    def stream(size: int) -> tuple[float, ...]:
        return tuple((-2 + 0.3 * torch.randn(size, generator=generator)).tolist())

    out: list[Sample] = []
    for i in range(num):
        length = 3 + int(torch.randint(14, (), generator=generator))
        start = 1 + int(torch.randint(length - 1, (), generator=generator))
        size = length - start
        out.append(
            Sample(
                id=str(i),
                tokens=tuple(torch.randint(tiny_model.VOCAB, (length,), generator=generator).tolist()),
                target_start=start,
                advantages=(0.0 if i in zeros else (-1.0) ** i * (0.5 + 0.1 * i),) * size,
                old_logprobs=stream(size),
                rollout_logprobs=stream(size),
                ref_logprobs=stream(size),
                values=stream(size),
                returns=stream(size),
            )
        )
    return out


def critic() -> Any:
    """A critic whose head says something."""
    with tempfile.TemporaryDirectory() as folder:
        tiny_model.model(dtype=torch.float64).save_pretrained(folder)
        made = load.load_model(folder, head=Head.VALUES)
    torch.nn.init.normal_(value_head(made).weight, generator=torch.Generator().manual_seed(3))
    return made


def learner(model: Any = None, *, loss: str | None = "grpo", version: int = 0, first: int = 0, **settings: Any) -> Any:
    if model is None:
        model = critic() if loss == "critic" else tiny_model.model(dtype=torch.float64)
    component = None if loss is None else build_component("rlhf.losses", LOSSES[loss], "loss")
    settings = {"optimizer": optimizer.Config(lr=1e-2)} | settings
    return Learner(
        lambda dtype: model,
        tiny_model.tokenizer(),
        Config(**settings),
        device="cpu",
        loss=component,
        transforms=SHAPED,
        total_updates=10,
        version=version,
        first_version=first,
    )


def gradient(
    made: Any, some: Sequence[Sample], *, budget: int = 1000, counts: Counts | None = None
) -> dict[str, Tensor]:
    """The gradient of one update, accumulated and not yet applied."""
    made.forward_backward(pack(some, token_budget=budget), counts=counts or count(some))
    return {name: p.grad.clone() for name, p in made._backend.model.named_parameters()}


def assert_close(some: dict[str, Tensor], other: dict[str, Tensor], *, atol: float = 1e-9) -> None:
    assert some.keys() == other.keys()
    assert max(g.abs().max().item() for g in other.values()) > 1e-2
    for name in some:
        torch.testing.assert_close(some[name], other[name], atol=atol, rtol=0, msg=name)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_does_not_depend_on_micro_batches(loss: str) -> None:
    some = samples()
    one = learner(loss=loss)
    assert len(pack(some, token_budget=1000)) == 1
    whole = gradient(one, some)
    for budget, at_least in ((17, 6), (40, 2)):
        assert len(pack(some, token_budget=budget)) >= at_least
        assert_close(gradient(learner(loss=loss), some, budget=budget), whole)


def test_the_gradient_accumulates_over_calls() -> None:
    some = samples()
    made = learner()
    gradient(made, some[:4], counts=count(some))
    assert_close(gradient(made, some[4:], counts=count(some)), gradient(learner(), some))


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo"])
def test_samples_without_signal_count_though_they_are_skipped(loss: str) -> None:
    some = samples(zeros=(0, 3, 4, 8))
    signal = [s for s in some if any(s.advantages or ())]
    assert len(signal) == 5
    everything = gradient(learner(loss=loss), some)
    assert_close(gradient(learner(loss=loss), signal, counts=count(some)), everything)
    own = gradient(learner(loss=loss), signal, counts=count(signal))
    assert max((own[name] - everything[name]).abs().max().item() for name in own) > 1e-3


@pytest.mark.parametrize(("loss", "tokens", "sequences"), [("dapo", 2, 1), ("grpo", 1, 2), ("dr_grpo", 1, 2)])
def test_the_denominator_is_the_count_that_the_loss_names(loss: str, tokens: int, sequences: int) -> None:
    some = samples()
    counts = Counts(tokens=tokens * count(some).tokens, sequences=sequences * count(some).sequences)
    halved = gradient(learner(loss=loss), some, counts=counts)
    assert_close({name: 2 * g for name, g in halved.items()}, gradient(learner(loss=loss), some))


def test_metrics_do_not_depend_on_micro_batches() -> None:
    some = samples()
    for loss in ("grpo", "kl_and_entropy"):
        got = []
        for budget in (17, 1000):
            made = learner(loss=loss)
            made.forward_backward(pack(some, token_budget=budget), counts=count(some))
            got.append(values(made.optim_step().metrics))
        assert got[0] == pytest.approx(got[1], rel=1e-6) and "actor/pg_loss" in got[0]


def test_gradient_checkpointing_recomputes_and_changes_nothing() -> None:
    some, runs = samples(), [0]
    plain = gradient(learner(loss="kl_and_entropy"), some)
    model = tiny_model.model(dtype=torch.float64)
    made = learner(model, loss="kl_and_entropy", gradient_checkpointing=True)
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    assert_close(gradient(made, some), plain, atol=1e-12)
    assert runs == [2], "once forward, once again in the backward pass"


def test_dropout_is_off_so_that_log_probs_are_those_of_the_sampled_policy() -> None:
    model = tiny_model.model("gpt2", dtype=torch.float64)
    assert model.config.resid_pdrop > 0
    batches = pack(samples(), token_budget=30)
    for recompute in (False, True):
        made = learner(copy.deepcopy(model), gradient_checkpointing=recompute)
        other = learner(copy.deepcopy(model), gradient_checkpointing=recompute)
        reference = learner(copy.deepcopy(model), loss=None)
        for a, b, c in zip(*(m.logprobs(batches) for m in (made, made, reference)), strict=True):
            assert torch.equal(a, b) and torch.equal(a, c)
        assert_close(gradient(made, samples()), gradient(other, samples()))


def test_a_reference_computes_in_the_precision_of_the_policy() -> None:
    settings: dict[str, Any] = {"optimizer": optimizer.Config(precision="bfloat16")}
    batches = pack(samples(), token_budget=30)
    policy = learner(tiny_model.model(), **settings).logprobs(batches)
    reference = learner(tiny_model.model(), loss=None, **settings).logprobs(batches)
    exact = learner(tiny_model.model()).logprobs(batches)
    assert all(torch.equal(a, b) for a, b in zip(policy, reference, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(policy, exact, strict=True))


def test_log_probs_are_those_that_the_loss_sees() -> None:
    some = samples()
    made = learner(loss="sft")
    batches = pack(some, token_budget=25)
    found = made.logprobs(batches)
    assert [len(x) for x in found] == [b.num_targets for b in batches]
    assert not any(x.requires_grad for x in found)
    metrics = values(made.forward_backward(batches, counts=count(some)))
    assert metrics["train/ce_loss"] == pytest.approx(-torch.cat(found).mean().item(), rel=1e-6)


def test_a_step_reports_version_rate_and_norm() -> None:
    settings: dict[str, Any] = {"schedule": schedule.Config(name="linear", warmup_updates=2)}
    made = learner(version=23, first=20, **settings)
    grads = gradient(made, samples())
    stats = made.optim_step()
    # Update 3 of 10, of which 2 warm up: an eighth of the decay is done.
    assert (stats.version, made.version, stats.lr) == (24, 24, pytest.approx(1e-2 * (1 - 1 / 8)))
    assert stats.grad_norm == pytest.approx(math.sqrt(sum(g.square().sum().item() for g in grads.values())))


def test_the_loss_falls() -> None:
    some = samples()
    made = learner(loss="sft")
    losses = []
    for _ in range(12):
        computed = made.forward_backward(pack(some, token_budget=40), counts=count(some))
        stats = made.optim_step()
        assert stats.metrics == computed, "a step reports its own metrics, not those of earlier ones"
        losses.append(values(stats.metrics)["train/ce_loss"])
    assert losses[-1] < 0.5 * losses[0]


def test_a_gradient_that_is_not_finite_is_an_error_and_leaves_the_weights() -> None:
    model = tiny_model.model(dtype=torch.float64)
    made = learner(model)
    model.model.norm.weight.register_hook(lambda gradient: gradient * math.nan)
    before = {name: p.clone() for name, p in model.named_parameters()}
    made.forward_backward(pack(samples(), token_budget=99), counts=count(samples()))
    with pytest.raises(UserError, match=r"update 1: the gradient norm is nan\n  fix: lower learner\.optimizer\.lr"):
        made.optim_step()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert made.version == 0


def test_a_model_that_is_not_finite_is_said_with_the_sample_and_the_fix() -> None:
    model = tiny_model.model()
    made = learner(model)
    with torch.no_grad():
        model.model.norm.weight[3] = math.nan
    with pytest.raises(DivergedError, match=r"the model's log-prob of its target 0.* is nan\n  fix: lower") as caught:
        made.forward_backward(pack(samples(), token_budget=99), counts=count(samples()))
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value), "as an actor's error arrives"


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_saved_learner_continues_bit_for_bit(stop_after: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"schedule": schedule.Config(name="cosine", warmup_updates=2)}
    whole = learner(tiny_model.model(), **settings)
    train(whole, range(5))
    first = learner(tiny_model.model(), **settings)
    train(first, range(stop_after))
    first.save(tmp_path)
    second = learner(load.load_model(tmp_path, device="cpu"), version=first.version, **settings)
    second.load(tmp_path)
    train(second, range(stop_after, 5))
    assert second.version == whole.version == 5
    for (name, a), (_, b) in zip(second.weights(), whole.weights(), strict=True):
        assert torch.equal(a, b), name


def train(made: Any, updates: range) -> None:
    for update in updates:
        some = [replace(s, advantages=tuple(a + 0.1 * update for a in s.advantages or ())) for s in samples()]
        made.forward_backward(pack(some, token_budget=40), counts=count(some))
        made.optim_step()


def test_a_saved_model_is_an_ordinary_one(tmp_path: Path) -> None:
    made = learner(tiny_model.model("qwen3"))
    train(made, range(1))
    made.save(tmp_path)
    model = load.load_model(tmp_path, device="cpu")
    assert model.config._attn_implementation == "sdpa"
    batches = pack(samples(), token_budget=99)
    (again,), (same,) = learner(model, loss=None).logprobs(batches), made.logprobs(batches)
    assert torch.equal(again, same)
    assert load.load_tokenizer(tmp_path).encode("3+5=") == list(tiny_model.ids("3+5="))


def test_weights_are_named_once_and_follow_the_updates() -> None:
    model = tiny_model.model("gpt2")
    made = learner(model)
    names = [name for name, _ in made.weights()]
    assert len(names) == len(set(names)) and "lm_head.weight" not in names, "tied to the embedding"
    before = {name: tensor.clone() for name, tensor in made.weights()}
    train(made, range(1))
    assert all(not torch.equal(tensor, before[name]) for name, tensor in made.weights())
    assert not any(tensor.requires_grad for _, tensor in made.weights())


def test_a_frozen_model_gives_log_probs_only() -> None:
    frozen = learner(loss=None)
    batches = pack(samples(), token_budget=99)
    assert torch.equal(frozen.logprobs(batches)[0], learner().logprobs(batches)[0])
    assert not any(p.requires_grad for p in frozen._backend.model.parameters())
    with pytest.raises(AssertionError, match="takes no gradient"):
        frozen.forward_backward(batches, counts=count(samples()))
    with pytest.raises(AssertionError, match="takes no step"):
        frozen.optim_step()


@pytest.mark.parametrize(
    ("wrong", "field"), [({"micro_batch_tokens": 1}, "micro_batch_tokens"), ({"chunk_mib": -1}, "chunk_mib")]
)
def test_impossible_values_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == field


def test_a_critic_says_what_it_expects_before_each_target() -> None:
    made = learner(loss="critic")
    some = samples()
    batches = pack(some, token_budget=40)
    assert len(batches) > 1
    model = critic()  # without packed attention
    for batch, values_T in zip(batches, made.values(batches), strict=True):
        expected = {
            s.id: model(input_ids=torch.tensor([s.tokens]), use_cache=False).logits[0, s.target_start - 1 : -1, 0]
            for s in some
        }
        torch.testing.assert_close(values_T, torch.cat([expected[name] for name in batch.ids]).detach())
    with pytest.raises(AssertionError, match="no distribution"):
        made.logprobs(batches)
    with pytest.raises(AssertionError, match="no values"):
        learner().values(batches)


def test_a_critic_learns_what_it_is_told_and_is_the_same_after_saving(tmp_path: Path) -> None:
    made = learner(critic(), loss="critic")
    some = samples()
    batches = pack(some, token_budget=1000)

    def error() -> float:
        found = torch.cat(made.values(batches))
        return float((found - torch.cat([b.returns_T for b in batches if b.returns_T is not None])).square().mean())

    before = error()
    for _ in range(10):
        learnt = [replace(s, values=tuple(row.tolist())) for s, row in zip(some, _rows(made, some), strict=True)]
        made.forward_backward(pack(learnt, token_budget=1000), counts=count(learnt))
        made.optim_step()
    assert error() < before / 2
    made.save(tmp_path)
    again = learner(load.load_model(tmp_path, head=Head.VALUES), loss="critic", version=10)
    again.load(tmp_path)
    torch.testing.assert_close(again.values(batches), made.values(batches), rtol=0, atol=0)


def _rows(made: Any, some: Sequence[Sample]) -> list[Tensor]:
    """Values of each sample."""
    found: dict[str, Tensor] = {}
    batches = pack(some, token_budget=1000)
    for batch, values_T in zip(batches, made.values(batches), strict=True):
        sizes = [int(n) for n in batch.target_counts_S.tolist()]
        found |= dict(zip(batch.ids, values_T.split(sizes), strict=True))
    return [found[s.id] for s in some]

"""Intuitive fine-tuning by hand, against finite differences, and its second pass against an ordinary model's."""

from __future__ import annotations

import pytest
import tiny_model
import torch
from batches import forward_of, forward_of_logits, numeric_gradient, targets
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Transforms
from rlhf.core.training import Denominator, ForwardOut, Sample
from rlhf.data.packing import pack
from rlhf.losses import ce, intuitive
from rlhf.losses.intuitive import Config
from rlhf.models.forward import ForwardSpec, forward, use_packed

NLL = [1.0, 2.0, 4.0, 0.5]


def total(nll: list[float], counts: list[int], **keys: object) -> Tensor:
    return intuitive.loss(forward_of([-x for x in nll]), targets(counts), Config(**keys)).total  # type: ignore[arg-type]


def test_the_paper_s_sum_by_hand() -> None:
    # Weights 1, 1 + g, 1 + g + g^2 in the first sequence, 1 in the second.
    want = 1.0 + 2.0 * 1.5 + 4.0 * 1.75 + 0.5
    assert total(NLL, [3, 1], form="paper", discount=0.5).item() == pytest.approx(want, abs=1e-12)
    assert total(NLL, [4], form="paper", discount=1.0).item() == pytest.approx(1 + 4 + 12 + 2, abs=1e-12)


def test_the_released_sum_by_hand() -> None:
    ahead = [1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4.0]
    want = sum(c * x for c, x in zip(ahead, NLL[:3], strict=True)) / sum(ahead) + 0.5
    for form in ("released", "released_detached"):
        assert total(NLL, [3, 1], form=form, discount=0.5).item() == pytest.approx(want, abs=1e-12)


def test_discounted_sums_are_those_of_a_loop() -> None:
    lengths = [1, 7, 2, 16, 5]
    x_T = torch.rand(sum(lengths), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sequence_T = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths))
    want = x_T.clone()
    for t in range(len(x_T) - 2, -1, -1):
        if sequence_T[t] == sequence_T[t + 1]:
            want[t] += 0.9 * want[t + 1]
    torch.testing.assert_close(intuitive._discounted(x_T, sequence_T, 0.9), want, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("form", "aggregate"), [("paper", "token"), ("released", "sequence")])
def test_without_guess_and_discount_it_is_supervised_fine_tuning(form: str, aggregate: str) -> None:
    cfg, plain = Config(form=form, discount=0.0, guess_share=0.0), ce.Config(aggregate=aggregate)
    ours, theirs = forward_of([-x for x in NLL]), forward_of([-x for x in NLL])
    intuitive.loss(ours, targets([3, 1]), cfg).total.backward()
    ce.loss(theirs, targets([3, 1]), plain).total.backward()
    assert ours.logprobs_T.grad is not None and theirs.logprobs_T.grad is not None
    assert ours.logprobs_T.grad.tolist() == theirs.logprobs_T.grad.tolist()
    assert intuitive.denominator(cfg) is ce.denominator(plain) and intuitive.guessed(cfg) == 0


@pytest.mark.parametrize("form", ["released", "paper"])
def test_gradient_matches_finite_differences(form: str) -> None:
    logits_TV = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens_T, batch, cfg = torch.tensor([3, 0, 1, 1, 2]), targets([2, 3]), Config(form=form, discount=0.7)

    def of(x: Tensor) -> Tensor:
        return intuitive.loss(forward_of_logits(x, tokens_T), batch, cfg).total

    leaf = logits_TV.clone().requires_grad_()
    (got,) = torch.autograd.grad(of(leaf), leaf)
    torch.testing.assert_close(got, numeric_gradient(of, logits_TV), atol=1e-8, rtol=0)


def test_detached_weights_are_constants() -> None:
    out = forward_of([-x for x in NLL[:3]])
    intuitive.loss(out, targets([3]), Config(form="released_detached", discount=0.5)).total.backward()
    ahead = torch.tensor([3.0, 4.0, 4.0], dtype=torch.float64)
    assert out.logprobs_T.grad is not None
    torch.testing.assert_close(-out.logprobs_T.grad, ahead / ahead.sum())


def test_a_single_target_weighs_1_and_a_certain_sequence_no_nan() -> None:
    assert total([2.0], [1], discount=0.9).item() == 2.0
    out = forward_of([-0.0, -0.0])
    intuitive.loss(out, targets([2]), Config()).total.backward()
    assert out.logprobs_T.grad is not None and out.logprobs_T.grad.tolist() == [-0.5, -0.5]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_log_prob_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="sample 's1': the model's log-prob"):
        total([1.0, 2.0, value], [1, 2])


def test_what_it_declares_and_refuses() -> None:
    assert intuitive.streams(Config()) == () and not intuitive.zero_advantage_is_free(Config())
    assert intuitive.guessed(Config()) == 0.2 and intuitive.denominator(Config()) is Denominator.SEQUENCES
    for keys in ({"form": "papers"}, {"guess_share": 1.1}, {"discount": -0.1}):
        with pytest.raises(ConfigError) as caught:
            Config(**keys)  # type: ignore[arg-type]
        assert [caught.value.where] == list(keys)


SAMPLES = [
    Sample(id="a", tokens=tuple(range(7, 17)), target_start=4),
    Sample(id="b", tokens=(*range(7, 11), 20, 21, 22), target_start=4, target_mask=(True, False, True)),
    Sample(id="c", tokens=(9, 12), target_start=1),
]


def by_hand(model: torch.nn.Module, sample: Sample, share: float) -> Tensor:
    """Log-probs of a sample's targets by two ordinary passes."""
    tokens = torch.tensor(sample.tokens)
    is_target = torch.zeros(len(tokens), dtype=torch.bool)
    is_target[sample.target_start :] = torch.tensor(sample.target_mask or True)
    with torch.no_grad():
        guesses = model(input_ids=tokens[None]).logits[0].argmax(-1)
    shown = torch.where(is_target, torch.cat([tokens[:1], guesses[:-1]]), tokens)
    embed = model.get_input_embeddings()  # type: ignore[operator]
    mixed = (1 - share) * embed(tokens) + share * embed(shown)
    logprobs = model(inputs_embeds=mixed[None]).logits[0, :-1].log_softmax(-1)
    return logprobs.gather(1, tokens[1:, None])[:, 0][is_target[1:]]


@pytest.mark.parametrize("chunk_mib", [0, 1])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_second_pass_reads_what_an_ordinary_model_would_be_given(family: str, chunk_mib: int) -> None:
    plain = tiny_model.model(family, dtype=torch.float64, attn_implementation="sdpa")
    (batch,) = pack(SAMPLES, token_budget=100)
    want = torch.cat([by_hand(plain, s, 0.3) for name in batch.ids for s in SAMPLES if s.id == name])
    want.square().sum().backward()
    model = tiny_model.model(family, dtype=torch.float64)
    use_packed(model, where="model.path")
    spec = ForwardSpec(transforms=Transforms(), chunk_mib=chunk_mib, entropy_gradient=False, guessed=0.3)
    got = forward(model, batch, spec)
    assert isinstance(got, ForwardOut)
    # Norms compute in float32, so that rounding of the mixture shows.
    torch.testing.assert_close(got.logprobs_T, want.detach(), atol=1e-6, rtol=0)
    got.logprobs_T.square().sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=0, msg=name)

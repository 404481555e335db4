"""Log-probs, entropies and gradients of packed batches, in chunks, against an ordinary padded forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_model
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForTokenClassification

from rlhf.core.errors import DataError
from rlhf.core.sampling import Transforms, transform
from rlhf.core.training import Batch, ForwardOut, Sample, ValuesOut
from rlhf.data.packing import pack
from rlhf.models import forward as forward_module
from rlhf.models.forward import ForwardSpec, forward, output_head, use_packed, value_head

PLAIN = Transforms()
SHAPED = Transforms(temperature=0.7, top_k=9, top_p=0.9)


def samples() -> list[Sample]:
    """Sequences of 2 to 17 tokens, some of whose answer tokens are no targets."""
    generator = torch.Generator().manual_seed(3)
    out: list[Sample] = []
    for i, (length, start) in enumerate([(17, 4), (2, 1), (9, 8), (9, 1), (13, 5), (8, 2)]):
        tokens = tuple(torch.randint(tiny_model.VOCAB, (length,), generator=generator).tolist())
        mask = tuple(t % 3 != 1 for t in range(length - start)) if i == 3 else None
        out.append(Sample(id=str(i), tokens=tokens, target_start=start, target_mask=mask))
    return out


def sharing() -> list[Sample]:
    """Three answers to the prompt of the first of `samples`, besides these."""
    prompt = samples()[0].tokens[:4]
    answers = ((1,), (5, 3, 1, 4, 1, 5), (9, 2, 6))
    extra = [Sample(id=f"shared-{i}", tokens=prompt + tail, target_start=4) for i, tail in enumerate(answers)]
    return [*samples(), *extra]


def the_batch() -> Batch:
    (batch,) = pack(samples(), token_budget=1000)
    return batch


def spec(*, transforms: Transforms = PLAIN, chunk_mib: int = 0, entropy_gradient: bool = True) -> ForwardSpec:
    return ForwardSpec(transforms=transforms, chunk_mib=chunk_mib, entropy_gradient=entropy_gradient)


def packed_model(family: str = "llama", **changes: Any) -> Any:
    model = tiny_model.model(family, dtype=torch.float64, **changes)
    use_packed(model, where="model.path")
    return model


def weighted(out: ForwardOut) -> Tensor:
    """A scalar whose gradient needs every log-prob and every entropy to be right."""
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(2, len(out.logprobs_T), generator=generator, dtype=torch.float64)
    return (weights[0] * out.logprobs_T).sum() + (weights[1] * out.entropy_T).sum()


def gradients(model: Any, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def ordinary(model: Any, batch: Batch, transforms: Transforms) -> ForwardOut:
    """The same quantities by padding, a mask, and all logits at once."""
    by_id = {s.id: s for s in sharing()}
    ordered = [by_id[name] for name in batch.ids]
    rows = pad_sequence([torch.tensor(s.tokens) for s in ordered], batch_first=True)
    mask = torch.arange(rows.shape[1]) < torch.tensor([len(s.tokens) for s in ordered])[:, None]
    logits = model(input_ids=rows, attention_mask=mask.long(), use_cache=False).logits
    kept = [s.target_mask or (True,) * (len(s.tokens) - s.target_start) for s in ordered]
    places = [
        (i, s.target_start + t) for i, s in enumerate(ordered) for t, is_target in enumerate(kept[i]) if is_target
    ]
    row_T, column_T = torch.tensor(places).T
    targets_T = rows[row_T, column_T]
    logprobs_TV = transform(logits[row_T, column_T - 1], transforms, keep=targets_T).log_softmax(-1)
    finite_TV = logprobs_TV.masked_fill(logprobs_TV.isinf(), 0.0)
    return ForwardOut(
        logprobs_T=logprobs_TV.gather(1, targets_T[:, None])[:, 0],
        entropy_T=-(logprobs_TV.exp() * finite_TV).sum(-1),
    )


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_values_are_those_of_a_token_classifier(family: str, labels: int) -> None:
    """One label is the value; of two the value is how much more good there is than bad, gradient included."""
    config = tiny_model.model(family).config
    config.num_labels = labels
    model: Any = AutoModelForTokenClassification.from_config(config, attn_implementation="sdpa").double().eval()
    with torch.no_grad():
        for parameter in value_head(model).parameters():
            parameter.normal_()
    [sample] = [s for s in samples() if s.target_mask is not None]
    (batch,) = pack([sample], token_budget=1000)
    logits = model(torch.tensor([sample.tokens])).logits[0, batch.predictor_T]
    want = logits[:, 0] if labels == 1 else logits[:, 1] - logits[:, 0]
    wanted = gradients(model, want.square().sum())
    use_packed(model, where="model.path")
    got = forward(model, batch, spec())
    assert isinstance(got, ValuesOut)
    torch.testing.assert_close(got.values_T, want, atol=1e-10, rtol=0)
    ours = gradients(model, got.values_T.square().sum())
    for name, gradient in wanted.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-9, rtol=0)


@pytest.mark.parametrize("transforms", [PLAIN, SHAPED], ids=["plain", "shaped"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gpt2"])
def test_packing_equals_an_ordinary_padded_forward(family: str, transforms: Transforms) -> None:
    batch = the_batch()
    model = tiny_model.model(family, dtype=torch.float64, attn_implementation="sdpa")
    expected = ordinary(model, batch, transforms)
    wanted = gradients(model, weighted(expected))
    use_packed(model, where="model.path")
    got = forward(model, batch, spec(transforms=transforms))
    torch.testing.assert_close(got.logprobs_T, expected.logprobs_T, atol=1e-10, rtol=0)
    torch.testing.assert_close(got.entropy_T, expected.entropy_T, atol=1e-10, rtol=0)
    ours = gradients(model, weighted(got))
    assert ours.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert gradient.abs().max() > 1e-3, f"{name} must have a gradient to compare"
        torch.testing.assert_close(ours[name], gradient, atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gpt2"])
def test_answers_that_share_a_prompt_train_as_if_each_had_its_own(family: str) -> None:
    (batch,) = pack(sharing(), token_budget=1000)
    assert len(batch.tokens_N) < sum(len(s.tokens) - 1 for s in sharing()), "the prompt is shared"
    model = tiny_model.model(family, dtype=torch.float64, attn_implementation="sdpa")
    expected = ordinary(model, batch, PLAIN)
    wanted = gradients(model, weighted(expected))
    use_packed(model, where="model.path")
    got = forward(model, batch, spec())
    torch.testing.assert_close(got.logprobs_T, expected.logprobs_T, atol=1e-10, rtol=0)
    # RMSNorm computes in float32 whatever the model's type: sums of gradients before and after it round differently.
    exact = 1e-9 if family == "gpt2" else 1e-5
    for name, gradient in gradients(model, weighted(got)).items():
        torch.testing.assert_close(gradient, wanted[name], atol=exact, rtol=0)


@pytest.mark.parametrize("rows", [1, 3, 7, 1000])
@pytest.mark.parametrize("transforms", [PLAIN, SHAPED], ids=["plain", "shaped"])
def test_chunks_change_nothing(rows: int, transforms: Transforms, monkeypatch: pytest.MonkeyPatch) -> None:
    # A chunk of one "MiB" is made as small as one row of logits.
    monkeypatch.setattr(forward_module, "MIB", 4 * tiny_model.VOCAB)
    batch, model = the_batch(), packed_model()
    whole = forward(model, batch, spec(transforms=transforms))
    wanted = gradients(model, weighted(whole))
    seen = head_rows(model, monkeypatch)
    chunked = forward(model, batch, spec(transforms=transforms, chunk_mib=rows))
    torch.testing.assert_close(chunked.logprobs_T, whole.logprobs_T, atol=1e-10, rtol=0)
    torch.testing.assert_close(chunked.entropy_T, whole.entropy_T, atol=1e-10, rtol=0)
    for name, gradient in gradients(model, weighted(chunked)).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-10, rtol=0)
    assert max(seen) <= rows, "no more logits at a time than asked for"
    times = 1 if rows >= batch.num_targets else 2
    assert sum(seen) == times * batch.num_targets, "targets only; chunks are computed again in the backward pass"


def test_without_gradient_nothing_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_module, "MIB", 4 * tiny_model.VOCAB)
    batch, model = the_batch(), packed_model()
    seen = head_rows(model, monkeypatch)
    with torch.no_grad():
        forward(model, batch, spec(chunk_mib=4))
    assert sum(seen) == batch.num_targets and max(seen) == 4


def head_rows(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of rows of every application of the output head."""
    seen: list[int] = []
    linear = functional.linear

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if weight is output_head(model).weight:
            seen.append(x.shape[0])
        return linear(x, weight, bias)

    monkeypatch.setattr(functional, "linear", noted)
    return seen


@pytest.mark.parametrize("chunk", [0, 3])
def test_entropy_carries_gradient_only_when_asked(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_module, "MIB", 4 * tiny_model.VOCAB)
    batch, model = the_batch(), packed_model()
    without = forward(model, batch, spec(chunk_mib=chunk, entropy_gradient=False))
    with_it = forward(model, batch, spec(chunk_mib=chunk, entropy_gradient=True))
    assert torch.equal(without.entropy_T, with_it.entropy_T)
    assert without.logprobs_T.requires_grad and not without.entropy_T.requires_grad
    assert with_it.entropy_T.requires_grad


def test_a_target_outside_the_support_keeps_a_finite_log_prob_and_gradient() -> None:
    batch, model = the_batch(), packed_model()
    out = forward(model, batch, spec(transforms=Transforms(top_k=1)))
    assert out.logprobs_T.isfinite().all() and (out.logprobs_T < -1e-3).any()
    assert all(g.isfinite().all() for g in gradients(model, weighted(out)).values())
    # The best token and the target itself are all that is left: the entropy is at most that of a coin.
    assert out.entropy_T.max() <= torch.tensor(2.0).log() + 1e-12


def test_log_probs_are_float32_or_better() -> None:
    batch = the_batch()
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        model = tiny_model.model(dtype=dtype)
        use_packed(model, where="model.path")
        out = forward(model, batch, spec())
        assert out.logprobs_T.dtype == out.entropy_T.dtype == expected


def test_sequences_do_not_see_each_other() -> None:
    model = packed_model()
    batch, by_id = the_batch(), {s.id: s for s in samples()}
    together = forward(model, batch, spec()).logprobs_T
    alone = [forward(model, pack([by_id[name]], token_budget=99)[0], spec()).logprobs_T for name in batch.ids]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-12, rtol=0)


@pytest.mark.parametrize("family", ["gemma2", "gemma2_capped_scores", "cohere", "mamba"])
def test_a_model_that_does_more_than_its_head_says_is_refused(family: str) -> None:
    with pytest.raises(DataError, match=r"(Gemma2|Cohere|Mamba)") as caught:
        use_packed(tiny_model.model(family), where="model.path")
    assert "use another" in str(caught.value) or "use an architecture" in str(caught.value)

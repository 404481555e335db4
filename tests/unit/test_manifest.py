"""What a model's weights are called and shaped, without reading them; and which of them have come."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_model
import torch

from rollout.manifest import Arrivals, Manifest, manifest


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "mistral", "gemma2"])
def test_it_names_what_a_learner_sends(family: str, tmp_path: Path) -> None:
    model = tiny_model.model(family)
    model.save_pretrained(tmp_path)
    found = manifest(tmp_path, trust_remote_code=False)
    sent = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert {name: shape for name, shape in found.shapes.items() if name not in found.ties} == sent


def test_a_tied_head_has_two_names_and_comes_under_either(tmp_path: Path) -> None:
    model = tiny_model.model("llama", tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    found = manifest(tmp_path, trust_remote_code=False)
    assert found.ties == {"lm_head.weight": "model.embed_tokens.weight"}
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        arrivals = Arrivals(found)
        arrivals.note(name, (tiny_model.VOCAB, 32))
        assert "model.embed_tokens.weight" not in arrivals.missing


def arrivals() -> Arrivals:
    return Arrivals(Manifest({"a": (2,), "b": (3, 4)}, {}))


def test_weights_come_in_any_order_and_number_of_calls() -> None:
    some = arrivals()
    assert not some.begun and some.missing == ["a", "b"]
    assert [name for name, _ in some.checked([("b", torch.zeros(3, 4))])] == ["b"]
    assert some.begun and some.missing == ["a"]
    list(some.checked([("a", torch.zeros(2))]))
    assert some.missing == []


def test_what_the_model_does_not_have_is_refused_before_it_is_given_on() -> None:
    some = arrivals()
    given = some.checked([("c", torch.zeros(2)), ("a", torch.zeros(2))])
    with pytest.raises(KeyError, match="no weight c"):
        next(given)
    with pytest.raises(ValueError, match=r"a is \(3,\), not \(2,\)"):
        next(some.checked([("a", torch.zeros(3))]))
    assert not some.begun and some.missing == ["a", "b"]

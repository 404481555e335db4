"""Recorded samples computed again: as the trainer had them, or as an assumption says that the sampler had them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from test_local_runtime import model_in

from rlhf.core.sampling import Transforms
from rlhf.core.types import Message, Prompt
from rlhf.data.render import render_prompt
from rlhf.learner import learner
from rlhf.loops.hypotheses import Cause, hypotheses, spoken
from rlhf.loops.recompute import RECORDED, Arithmetic, Assumption, Gap, Recomputer
from rlhf.models.tokenizers import train_bpe

QUESTION = Prompt(id="q", messages=(Message(role="user", content="1+1="),), gold="2", task="sums")
OWN = Assumption(version=0, transforms=Transforms())


def record(**changes: Any) -> dict[str, Any]:
    """One sample of four tokens, with the log-probs of nobody."""
    tokens = list(tiny_model.ids("2#a"))
    prompt = list(render_prompt(tiny_model.tokenizer(), QUESTION))
    row = {"prompt_id": "q", "prompt_tokens": prompt, "tokens": [*tokens, tiny_model.EOS_ID], "text": "2#a"}
    return row | {"logprobs": [-1.0] * 4, "policy_version": 0, "stop": "eos"} | changes


def recomputer(tmp_path: Path, *records: dict[str, Any], version: int = 0, **changes: Any) -> Recomputer:
    settings: dict[str, Any] = {
        "records": records,
        "version": version,
        "weights": {0: tmp_path},
        "opened": model_in,
        "tokenizer": tiny_model.tokenizer(),
        "cfg": learner.Config(),
        "prompts": {"q": QUESTION},
        "device": torch.device("cpu"),
    }
    return Recomputer(**(settings | changes))


def direct(
    prompt: list[int], tokens: list[int], *, temperature: float = 1.0, dtype: torch.dtype = torch.float32
) -> Any:
    """The model's own forward pass."""
    with torch.no_grad():
        logits = tiny_model.model(dtype=dtype)(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    return (logits.float() / temperature).log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0].double()


def test_what_is_computed_is_what_the_model_says_under_the_assumption(tmp_path: Path) -> None:
    row, other = record(), record(tokens=list(tiny_model.ids("31bc")), stop="length", text="31bc")
    of = recomputer(tmp_path, row, other)
    both = torch.cat([direct(r["prompt_tokens"], r["tokens"]) for r in (row, other)])
    assert torch.allclose(of.trainer_T(OWN), both, atol=1e-5)
    warm = Assumption(version=0, transforms=Transforms(temperature=2.0))
    both = torch.cat([direct(r["prompt_tokens"], r["tokens"], temperature=2.0) for r in (row, other)])
    assert torch.allclose(of.trainer_T(warm), both, atol=1e-5)
    rounded = of.trainer_T(Assumption(version=0, transforms=Transforms(), arithmetic=Arithmetic(mantissa_bits=2)))
    assert (rounded - of.trainer_T(OWN)).abs().max() > 0.01, "and rounding does not stay in the model"
    assert torch.allclose(of.trainer_T(warm), both, atol=1e-5)


def test_only_tokens_of_the_version_in_question_count(tmp_path: Path) -> None:
    crossed = record(versions=[0, 0, 1, 1], logprobs=[-1.0, -2.0, -3.0, -4.0])
    of = recomputer(tmp_path, crossed)
    assert of.sampler_T.tolist() == [-1.0, -2.0]
    assert torch.allclose(of.trainer_T(OWN), direct(crossed["prompt_tokens"], crossed["tokens"])[:2], atol=1e-5)


def test_a_template_that_changed_since_is_a_reading_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    name = "prompts rendered by today's chat template"
    assert name not in recomputer(tmp_path, record()).readings
    before = record(prompt_tokens=list(tiny_model.ids("1+1=")))
    found = recomputer(tmp_path, before).readings
    assert list(found[name][0].prompt) == list(render_prompt(tiny_model.tokenizer(), QUESTION))
    assert list(found[RECORDED][0].prompt) == before["prompt_tokens"]
    later = recomputer(tmp_path, record(prompt_id="q~3", prompt_tokens=before["prompt_tokens"]))
    assert name in later.readings, "from the second epoch on an id carries its epoch"
    gone = recomputer(tmp_path, before, prompts={})
    assert name not in gone.readings, "a prompt that the task no longer has cannot be rendered"


def test_answers_that_their_text_encodes_otherwise_are_a_reading(tmp_path: Path) -> None:
    """Not every sequence of byte pairs is the one that its text encodes to: a server that passes text loses it."""
    tokenizer = train_bpe(["abab abab abab"] * 9, vocab_size=270)
    end = tokenizer.eos_token_id
    ab, a, b = (tokenizer.encode(text, add_special_tokens=False) for text in ("ab", "a", "b"))
    assert len(ab) == len(a) == len(b) == 1
    name = "answers encoded again from their text"
    prompt = tokenizer.encode("abab")
    sampled = record(prompt_tokens=prompt, tokens=[*a, *b, end], text="ab", logprobs=[-1.0] * 3)
    assert name not in recomputer(tmp_path, sampled, tokenizer=tokenizer).readings, "of another length: no such gap"
    swapped = record(prompt_tokens=prompt, tokens=[*ab, *a, *b, end], text="abab", logprobs=[-1.0] * 4)
    assert name not in recomputer(tmp_path, swapped, tokenizer=tokenizer).readings
    mangled = record(prompt_tokens=prompt, tokens=[*b, end], text="ab", logprobs=[-1.0] * 2)
    found = recomputer(tmp_path, mangled, tokenizer=tokenizer).readings[name]
    assert list(found[0].answer) == [*ab, end]


def test_hypotheses_change_one_thing_each_and_none_is_the_assumption_itself(tmp_path: Path) -> None:
    prompt = list(render_prompt(tiny_model.tokenizer(), QUESTION))
    tokens = list(tiny_model.ids("2#a4"))
    sampler = direct(prompt, tokens, temperature=1.5).tolist()
    row = record(tokens=tokens, logprobs=sampler, stop="length", text="2#a4")
    of = recomputer(tmp_path, row, weights=dict.fromkeys(range(20), tmp_path), version=0)
    now = Assumption(version=0, transforms=Transforms(temperature=0.7, top_p=0.9))
    found = list(hypotheses(now, of))
    for hypothesis in found:
        other = hypothesis.assumption
        changed = [
            name
            for name in ("version", "tokens", "transforms", "arithmetic")
            if vars_of(other, name) != vars_of(now, name)
        ]
        expected = {Cause.STALE: "version", Cause.TOKENIZER: "tokens", Cause.TRANSFORMS: "transforms"}
        assert changed == [expected.get(hypothesis.cause, "arithmetic")]
    assert len({h.assumption for h in found}) == len(found)
    assert [h.assumption.version for h in found if h.cause is Cause.STALE] == [1, 2, 3, 4, 5, 6], "the nearest"
    transforms = [h.name for h in found if h.cause is Cause.TRANSFORMS]
    assert transforms[:3] == ["temperature 0.7", "top-p 0.9", "no transforms"]
    of = recomputer(tmp_path, row)
    best = min(hypotheses(OWN, of), key=lambda h: Gap.between(of.trainer_T(h.assumption), of.sampler_T).mean)
    assert best.cause is Cause.TRANSFORMS and best.assumption.transforms.temperature == pytest.approx(1.5, abs=2e-3)


def vars_of(assumption: Assumption, name: str) -> object:
    """A field by name, of a class with slots."""
    return {
        "version": assumption.version,
        "tokens": assumption.tokens,
        "transforms": assumption.transforms,
        "arithmetic": assumption.arithmetic,
    }[name]


def test_transforms_and_gaps_in_words_and_numbers() -> None:
    assert spoken(Transforms()) == "no transforms"
    assert spoken(Transforms(temperature=0.7, top_k=20, top_p=0.95)) == "temperature 0.7, top-k 20, top-p 0.95"
    gap = Gap.between(torch.tensor([-1.0, -2.0]).double(), torch.tensor([-1.0, -2.5]).double())
    assert (gap.mean, gap.largest) == (0.25, 0.5)
    assert gap.k3 == pytest.approx((torch.tensor(0.5).expm1() - 0.5) / 2)

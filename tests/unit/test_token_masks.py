"""Answers of the embedded engine under a pattern: they match, their log-probs are those of the cut distribution, and
other rows of the batch do not notice."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import tiny_model
import torch
from tiny_model import CHARACTERS, EOS_ID, VOCAB, ids

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request, StopReason
from rlhf.models import tokenizers
from rollout import vllm_requests
from rollout.patterns import parse
from rollout.scripted_engine import Config as Scripted
from rollout.scripted_engine import ScriptedEngine
from rollout.token_masks import TokenMasks
from rollout.transformers_engine import Config, TransformersEngine

CPU = torch.device("cpu")
MODEL = tiny_model.model()
PATTERNS = ["", "-?[0-9]+", "(1|22|abc)", "[a-c]{2}#", "", r"\d\n[def]{1,3}"]


def sampled(patterns: Sequence[str], **sampling: float) -> list[Completion]:
    engine = TransformersEngine(MODEL, tiny_model.tokenizer(), Config(retire_share=0.01))
    requests = [
        Request(id=str(i), prompt_tokens=ids("3+5="), seed=i, pattern=pattern) for i, pattern in enumerate(patterns)
    ]
    return engine.generate(requests, sampling=Sampling(max_tokens=20, **sampling))  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.0}, {"temperature": 3.0, "top_p": 0.9}, {"top_k": 2}])
def test_every_answer_matches_and_the_others_are_as_without(sampling: dict[str, float]) -> None:
    found, plain = sampled(PATTERNS * 4, **sampling), sampled([""] * 24, **sampling)
    for pattern, held, free in zip(PATTERNS * 4, found, plain, strict=True):
        if not pattern:
            assert (held.tokens, held.text, held.stop) == (free.tokens, free.text, free.stop)
            assert held.logprobs == pytest.approx(free.logprobs, abs=1e-5)
        elif held.stop is StopReason.EOS:
            assert re.fullmatch(pattern, held.text), held.text
            assert all(value > float("-inf") for value in held.logprobs)
        else:
            assert held.stop is StopReason.LENGTH and re.fullmatch("[0-9]+", held.text)
    assert sum(c.stop is StopReason.EOS for c in found) > 12


@torch.no_grad()
def test_log_probs_are_those_of_what_may_follow() -> None:
    [found] = sampled(["(ab|ac|1)d"], temperature=1.0)
    may = {"": "a1", "a": "bc", "1": "d", "ab": "d", "ac": "d"}
    text = ""
    for token, logprob in zip(found.tokens, found.logprobs, strict=True):
        logits = MODEL(torch.tensor([[*ids("3+5="), *ids(text)]])).logits[0, -1]
        allowed = list(ids(may[text])) if text in may else [EOS_ID]
        assert logprob == pytest.approx(float(logits[allowed].log_softmax(0)[allowed.index(token)]), abs=1e-5)
        text += CHARACTERS[token - len(tokenizers.SPECIAL)] if token != EOS_ID else ""
    assert re.fullmatch("(ab|ac|1)d", text) and found.logprobs[-1] == 0.0, "nothing else could follow"


def test_masks_by_hand_and_kept_by_state() -> None:
    masks = TokenMasks(tiny_model.tokenizer(), ends=[EOS_ID], device=CPU)
    state = parse("a?(b|12)")
    assert masks.mask(state, VOCAB).nonzero().flatten().tolist() == sorted(ids("ab1"))
    assert masks.mask(parse("1*"), VOCAB + 3).nonzero().flatten().tolist() == sorted([EOS_ID, *ids("1")])
    assert masks.mask(state, VOCAB) is masks.mask(parse("a?(b|12)"), VOCAB)
    assert masks.after(state, ids("b")[0]) == parse("") and masks.after(state, EOS_ID) is None


def test_tokens_of_several_characters_and_pieces_of_one() -> None:
    tokenizer = tokenizers.train_bpe(["yes no maybe yes no maybe"] * 9, vocab_size=275)
    masks = TokenMasks(tokenizer, ends=[EOS_ID], device=CPU)

    def may(pattern: str) -> set[str]:
        found = masks.mask(parse(pattern), len(tokenizer)).nonzero().flatten().tolist()
        return {str(tokenizer.decode([token])) for token in found}

    texts = may(" ?(yes|no)")
    assert {"y", "n", " "} < texts and all(" yes".startswith(t) or " no".startswith(t) or t in "yesno" for t in texts)
    assert any(len(text) > 1 for text in texts)
    assert may("\u00e4") == set(), "it is two tokens, neither of which is a character"


def test_a_pattern_that_no_token_can_follow_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no token of this model"):
        sampled(["z+"])
    with pytest.raises(ConfigError, match="leaves a group open"):
        sampled(["(a"])


def test_an_engine_that_plays_texts_refuses() -> None:
    engine = ScriptedEngine(tiny_model.model(), tiny_model.tokenizer(), Scripted(default=["1"]))
    with pytest.raises(ConfigError, match="whatever pattern"):
        engine.generate([Request(id="0-0-p-0", prompt_tokens=ids("1"), seed=0, pattern="2")], sampling=Sampling())


def test_vllm_without_anything_that_knows_grammars_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_requests, "find_spec", lambda name: None)
    asked = Request(id="0", prompt_tokens=ids("1"), seed=0, pattern="2")
    with pytest.raises(ConfigError, match="pip install xgrammar"):
        vllm_requests.Job([asked], Sampling())

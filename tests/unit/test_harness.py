"""The model that lm-evaluation-harness asks: its answers against log-softmax by hand and against the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import pytest
import tiny_model
import torch

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling, Transforms
from rlhf.core.types import Request
from rlhf.learner.learner import Config, Learner
from rlhf.runtime.local import LocalEngine, LocalLearner
from rollout.transformers_engine import Config as EngineConfig
from rollout.transformers_engine import TransformersEngine

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'rlhf[lm-eval]'")

from lm_eval.api.instance import Instance

from rlhf.lab.harness import HarnessModel, Served

T = TypeVar("T")
CONTEXT = tiny_model.CONTEXT


@cache
def engine() -> TransformersEngine:
    return TransformersEngine(tiny_model.model(), tiny_model.tokenizer(), EngineConfig())


def asked(work: Callable[[HarnessModel], T]) -> T:
    """What the harness's side returns, from its own thread."""
    learner = Learner(
        lambda dtype: tiny_model.model(),
        tiny_model.tokenizer(),
        Config(micro_batch_tokens=CONTEXT + 1),
        device="cpu",
        loss=None,
        transforms=Transforms(),
        total_updates=1,
        version=0,
        first_version=0,
    )

    async def main() -> T:
        served = Served(engine=LocalEngine(engine()), learner=LocalLearner(learner), loop=asyncio.get_running_loop())
        model = HarnessModel(
            served, tiny_model.tokenizer(), context=CONTEXT, max_tokens=8, token_budget=CONTEXT + 1, seed=0
        )
        return await asyncio.to_thread(work, model)

    return asyncio.run(main())


def instances(kind: Any, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=each, idx=i) for i, each in enumerate(arguments)]


@torch.no_grad()
def by_hand(tokens: list[int], targets: int) -> tuple[float, bool]:
    """Log-prob of the last tokens, and whether each is the likeliest."""
    logits = tiny_model.model()(torch.tensor([tokens[:-1]])).logits[0, -targets:].log_softmax(-1)
    wanted = torch.tensor(tokens[-targets:])
    return float(logits.gather(1, wanted[:, None]).sum()), bool((logits.argmax(-1) == wanted).all())


def test_a_continuation_is_as_likely_as_its_tokens() -> None:
    pairs = [("1+2", "=3"), ("12+3=", "15"), ("", "7#")]
    found = asked(lambda model: model.loglikelihood(instances("loglikelihood", *pairs)))
    tokenizer = tiny_model.tokenizer()
    for (context, text), (logprob, greedy) in zip(pairs, found, strict=True):
        tokens = tokenizer.encode(context, add_special_tokens=False) or [tiny_model.EOS_ID]
        tokens += tokenizer.encode(text, add_special_tokens=False)
        expected = by_hand(tokens, len(text))
        assert logprob == pytest.approx(expected[0], abs=1e-4) and greedy is expected[1]


def test_what_greedy_decoding_gives_is_called_greedy_and_stops_where_it_should() -> None:
    encode = tiny_model.tokenizer().encode
    prompts = ["1+2=", "7+", "3", "12=", "abc", "4+5#"]
    requests = [Request(id=text, prompt_tokens=tuple(encode(text)), seed=0) for text in prompts]
    found = engine().generate(requests, sampling=Sampling(temperature=0.0, max_tokens=6))
    alone = next(c for c in found if tuple(encode(c.text)) == c.tokens and len(c.text) > 2)
    prompt = alone.request_id

    def work(model: HarnessModel) -> tuple[list[str], list[tuple[float, bool]]]:
        stop = alone.text[2]
        generated = instances(
            "generate_until",
            (prompt, {"until": [], "max_gen_toks": 6}),
            (prompt, {"until": [stop], "max_gen_toks": 6, "do_sample": False}),
        )
        return model.generate_until(generated), model.loglikelihood(instances("loglikelihood", (prompt, alone.text)))

    (whole, stopped), [(_, greedy)] = asked(work)
    assert whole == alone.text and stopped == alone.text.split(alone.text[2])[0]
    assert greedy


def test_a_long_text_is_read_in_windows_each_token_once() -> None:
    text = "12+3=15#" * 13
    [found] = asked(lambda model: model.loglikelihood_rolling(instances("loglikelihood_rolling", (text,))))
    tokens = tiny_model.tokenizer().encode(text, add_special_tokens=False)
    first = by_hand([tiny_model.EOS_ID, *tokens[:CONTEXT]], CONTEXT)[0]
    rest = len(tokens) - CONTEXT
    assert 0 < rest < CONTEXT
    assert found == pytest.approx(first + by_hand(tokens[-CONTEXT - 1 :], rest)[0], abs=1e-3)


def test_what_does_not_fit_is_cut_on_the_left_and_counted() -> None:
    def work(model: HarnessModel) -> Iterator[Any]:
        [text] = model.generate_until(instances("generate_until", ("1" * 70, {"max_gen_toks": 4})))
        [(logprob, _)] = model.loglikelihood(instances("loglikelihood", ("1" * 70, "2")))
        yield from (text, logprob, model.cut)

    text, logprob, cut = asked(lambda model: tuple(work(model)))
    assert len(text) <= 4 and cut == 2
    tokens = tiny_model.tokenizer().encode("1" * CONTEXT + "2", add_special_tokens=False)
    assert logprob == pytest.approx(by_hand(tokens, 1)[0], abs=1e-4)


def test_what_our_sampling_has_not_is_refused() -> None:
    for settings in ({"num_beams": 4}, {"do_sample": True, "temperature": 0.7, "repetition_penalty": 1.1}):
        with pytest.raises(ConfigError, match="our sampling has not"):
            asked(lambda model, s=settings: model.generate_until(instances("generate_until", ("1", s))))
    with pytest.raises(ConfigError, match="positions"):
        asked(lambda model: model.generate_until(instances("generate_until", ("1", {"max_gen_toks": 99}))))

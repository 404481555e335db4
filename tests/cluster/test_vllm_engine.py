"""The vLLM engine: the trainer's log-probs, samples that depend on their seed, updates in the middle of an answer."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import adapted
import pytest
import tiny_model
import torch
from vllm_models import (
    CONTEXT,
    PROMPTS,
    SHAPED,
    WAIT_S,
    Steps,
    engine,
    folder,
    gap,
    logprobs,
    model,
    requests,
    trainer,
)

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling, Transforms
from rlhf.core.types import Completion, Request, StopReason
from rollout import transformers_engine
from rollout.vllm_engine import VllmEngine

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.cluster

LONG = Sampling(max_tokens=120)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    built = engine(folder(model(), tmp_path_factory.mktemp("llama")), max_num_seqs=24)
    yield built
    built.close()


@pytest.fixture(autouse=True)
def first_weights(made: VllmEngine) -> None:
    """Every test begins with the first weights, as version 0."""
    if made.version:
        made.load_weights(0, model().named_parameters())


def tokens(done: list[Completion]) -> list[tuple[int, ...]]:
    return [c.tokens for c in done]


# The distribution.


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=16),
        Sampling(max_tokens=16, temperature=0.5),
        Sampling(max_tokens=16, top_k=5),
        Sampling(max_tokens=16, top_p=0.8),
        Sampling(max_tokens=16, temperature=1.5, top_k=9, top_p=0.7),
        Sampling(max_tokens=16, temperature=0),
    ],
)
@pytest.mark.parametrize("version", [0, 1])
def test_log_probs_are_the_trainer_s(made: VllmEngine, sampling: Sampling, version: int) -> None:
    if version:
        made.load_weights(version, model(seed=version).named_parameters())
    asked = requests()
    done = made.generate(asked, sampling=sampling)
    assert {c.policy_version for c in done} == {version} and {c.versions for c in done} == {()}
    assert gap(trainer(model(seed=version)), asked, done, sampling) < 1e-4
    assert gap(trainer(model(seed=version + 1)), asked, done, sampling) > 1e-2


def test_more_prompts_than_a_step_takes_are_computed_one_after_another(made: VllmEngine) -> None:
    """vLLM takes 2048 tokens per step; a prompt that it would cut in two has a generator that cannot be set back."""
    prompts = [tiny_model.ids("#" + str(n) * 480) for n in range(6)]
    short = Sampling(max_tokens=4)
    together = made.generate(requests(prompts, group=1), sampling=short)
    assert {c.stop for c in together} <= {StopReason.LENGTH, StopReason.EOS}
    again = [made.generate([request], sampling=short)[0] for request in requests(prompts, group=1)]
    assert tokens(together) == tokens(again)


def test_every_transform_shows_in_the_log_probs(made: VllmEngine) -> None:
    asked = requests()
    done = made.generate(asked, sampling=SHAPED)
    learner = trainer(model())
    assert gap(learner, asked, done, SHAPED) < 1e-4
    for changed in ({"temperature": 1.0}, {"top_k": 0}, {"top_p": 1.0}):
        settings = {"temperature": 0.7, "top_k": 8, "top_p": 0.9} | changed
        assert gap(learner, asked, done, Transforms(**settings)) > 1e-2, f"{changed} must show"


def test_a_sample_does_not_depend_on_its_neighbours(made: VllmEngine) -> None:
    asked = requests()
    together = made.generate(asked, sampling=SHAPED)
    assert len({len(c.tokens) for c in together}) > 4, "rows must end at different times for this to prove anything"
    assert tokens([made.generate([request], sampling=SHAPED)[0] for request in asked]) == tokens(together)
    shuffled = random.Random(0).sample(asked, len(asked))
    by_id = {c.request_id: c for c in made.generate(shuffled, sampling=SHAPED)}
    assert tokens([by_id[request.id] for request in asked]) == tokens(together)


def test_another_seed_gives_another_sample(made: VllmEngine) -> None:
    asked = requests(PROMPTS[:1], group=16)
    assert len(set(tokens(made.generate(asked, sampling=Sampling(max_tokens=12))))) > 12
    wide = [Request(id=str(seed), prompt_tokens=PROMPTS[0], seed=seed) for seed in (2**63 - 1, 2**64 - 2, 0)]
    assert len(made.generate(wide, sampling=SHAPED)) == 3


def test_a_temperature_that_vllm_would_change_is_refused(made: VllmEngine) -> None:
    with pytest.raises(ConfigError, match=r"for 0\.01"):
        made.generate(requests(), sampling=Sampling(temperature=1e-3))


# Ends.


def test_answers_end_as_in_the_embedded_engine(made: VllmEngine) -> None:
    embedded = transformers_engine.TransformersEngine(model(), tiny_model.tokenizer(), transformers_engine.Config())
    prompts = [*PROMPTS, *(tiny_model.ids(text) for text in ("9", "0+1+2+3=", "ff", "#a#b#c", "1\n2"))]
    asked = requests(prompts, group=1)
    seen: set[StopReason] = set()
    for sampling in (
        Sampling(temperature=0, max_tokens=20),
        Sampling(temperature=0, max_tokens=20, stop=["0", "dd", "3#"]),
        Sampling(temperature=0, max_tokens=3),
    ):
        for mine, other in zip(
            made.generate(asked, sampling=sampling), embedded.generate(asked, sampling=sampling), strict=True
        ):
            assert (mine.request_id, mine.tokens, mine.text, mine.stop) == (
                other.request_id,
                other.tokens,
                other.text,
                other.stop,
            )
            assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            seen.add(mine.stop)
    assert seen == {StopReason.EOS, StopReason.STOP_STRING, StopReason.LENGTH}


def test_answers_keep_to_a_pattern_as_in_the_embedded_engine(made: VllmEngine) -> None:
    embedded = transformers_engine.TransformersEngine(model(), tiny_model.tokenizer(), transformers_engine.Config())
    ends = model().generation_config.eos_token_id
    digits = "".join(digit for digit in "0123456789" if tiny_model.ids(digit)[0] not in ends)
    asked = [replace(r, pattern=f"[{digits}]{{3}}" if n % 2 else "") for n, r in enumerate(requests())]
    for sampling in (Sampling(temperature=0, max_tokens=16), Sampling(temperature=0, max_tokens=2)):
        for mine, other in zip(
            made.generate(asked, sampling=sampling), embedded.generate(asked, sampling=sampling), strict=True
        ):
            assert (mine.tokens, mine.stop) == (other.tokens, other.stop)
            assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4), "those of the cut distribution"
    for request, drawn in zip(asked, made.generate(asked, sampling=Sampling(max_tokens=16)), strict=True):
        assert not request.pattern or (set(drawn.text[:3]) <= set(digits) and len(drawn.tokens) == 4)


def test_a_stop_string_cuts_the_text_and_ends_the_tokens(made: VllmEngine) -> None:
    free = made.generate(requests(group=8), sampling=SHAPED)
    stopped = made.generate(requests(group=8), sampling=Sampling(**(vars(SHAPED) | {"stop": ["0d", "6"]})))
    assert any(c.stop == StopReason.STOP_STRING for c in stopped)
    for whole, cut in zip(free, stopped, strict=True):
        assert cut.tokens == whole.tokens[: len(cut.tokens)] and len(cut.logprobs) == len(cut.tokens)
        assert "0d" not in cut.text and "6" not in cut.text
        if cut.stop == StopReason.STOP_STRING:
            text = tiny_model.tokenizer().decode(cut.tokens, skip_special_tokens=True)
            assert isinstance(text, str) and text in (cut.text + "0d", cut.text + "6")


def test_the_context_ends_a_sample_and_refuses_a_prompt_without_room(made: VllmEngine) -> None:
    lengths = {"fits": 3, "almost": CONTEXT - 1, "full": CONTEXT, "over": CONTEXT + 9}
    asked = [Request(id=name, prompt_tokens=tiny_model.ids("4" * length), seed=1) for name, length in lengths.items()]
    done = made.generate(asked, sampling=Sampling(max_tokens=8))
    assert [c.request_id for c in done] == list(lengths)
    assert 1 <= len(done[0].tokens) <= 8 and len(done[1].tokens) == 1
    for c in done[2:]:
        assert (c.tokens, c.logprobs, c.text, c.stop) == ((), (), "", StopReason.ABORTED)


def test_nothing_asked_is_nothing_done(made: VllmEngine) -> None:
    assert made.generate([], sampling=SHAPED) == []


# Several at once, pauses, sleep.


def test_calls_from_several_threads_get_their_own_answers(made: VllmEngine) -> None:
    sets = [requests(first=100 * i) for i in range(6)]
    alone = [tokens(made.generate(asked, sampling=SHAPED)) for asked in sets]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda asked: made.generate(asked, sampling=SHAPED), sets))
    assert [tokens(done) for done in together] == alone
    assert [[c.request_id for c in done] for done in together] == [[r.id for r in asked] for asked in sets]


def test_no_step_runs_while_paused_and_answers_come_after_it(made: VllmEngine) -> None:
    assert made.interruptible
    expected = tokens(made.generate(requests(), sampling=SHAPED))
    made.pause()
    made.pause()
    steps = Steps(made)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(made.generate, requests(), sampling=SHAPED)
        assert made.version == 0
        assert steps.count == 0 and not waiting.done()
        made.resume()
        assert tokens(waiting.result(WAIT_S)) == expected


def test_sleep_keeps_what_has_begun(made: VllmEngine) -> None:
    expected = tokens(made.generate(requests(), sampling=LONG))
    steps = Steps(made)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(made.generate, requests(), sampling=LONG)
        steps.wait_for(2)
        made.sleep()
        made.sleep()
        at = steps.count
        assert made.version == 0 and steps.count == at
        made.wake()
        made.wake()
        assert tokens(waiting.result(WAIT_S)) == expected


def test_an_interrupted_caller_leaves_nothing_behind(made: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    from rollout import vllm_engine

    class Interrupted(vllm_engine.Job):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            result = self.done.result

            def interrupted(timeout: float | None = None) -> Any:
                Steps(made).wait_for(2)
                monkeypatch.undo()
                self.done.result = result  # type: ignore[method-assign]
                raise KeyboardInterrupt

            self.done.result = interrupted  # type: ignore[method-assign]

    monkeypatch.setattr(vllm_engine, "Job", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.generate(requests(), sampling=LONG)
    assert made._loop.call(lambda sampler: (sampler.busy(), sampler._llm.has_unfinished_requests())) == (False, False)
    assert len(made.generate(requests(), sampling=SHAPED)) == 16


# Weights.


def test_weights_that_have_adapters_arrive_with_what_these_add(made: VllmEngine, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs the extra `lora`")
    learner = adapted.learner(folder(model(), tmp_path), adapted.LORA)
    for update in range(2):
        adapted.train(learner, 1)
        made.load_weights(update + 1, learner.weights())
    asked = requests()
    done = made.generate(asked, sampling=SHAPED)
    assert gap(learner._backend.model, asked, done, SHAPED) < 1e-4
    assert gap(trainer(model()), asked, done, SHAPED) > 1e-2


def test_an_answer_goes_on_across_an_update_and_says_which_version_sampled_what(made: VllmEngine) -> None:
    steps = Steps(made)
    asked = requests(group=16)  # more than max_num_seqs: some begin only after the update
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(made.generate, asked, sampling=LONG)
        steps.wait_for(2)
        made.pause()
        at = steps.count
        made.load_weights(5, model(seed=1).named_parameters())
        assert steps.count == at and made.version == 5 and not waiting.done()
        made.resume()
        done = waiting.result(WAIT_S)
    learners = {version: trainer(model(seed=seed)) for version, seed in ((0, 0), (5, 1))}
    crossed = [c for c in done if c.versions]
    assert crossed and {c.policy_version for c in crossed} == {0}
    assert {c.policy_version for c in done} == {0, 5}
    for request, c in zip(asked, done, strict=True):
        versions = c.versions or (c.policy_version,) * len(c.tokens)
        assert len(versions) == len(c.tokens) and list(versions) == sorted(versions) and set(versions) <= {0, 5}
        if c.versions:
            assert versions.count(0) <= at and versions.count(5) > 0
        for version, learner in learners.items():
            # Keys and values were computed again: a token's log-prob is its version's, given all before it.
            expected = logprobs(learner, request, c, LONG)
            for found, wanted, of in zip(c.logprobs, expected.tolist(), versions, strict=True):
                assert of != version or found == pytest.approx(wanted, abs=1e-4)
    fresh = made.generate(asked, sampling=SHAPED)
    assert gap(learners[5], asked, fresh, SHAPED) < 1e-4


def test_weights_in_parts_are_a_version_when_the_last_one_has_come(made: VllmEngine) -> None:
    made.pause()
    parts = list(model(seed=3).named_parameters())
    random.Random(0).shuffle(parts)
    for start in range(0, len(parts), 4):
        assert made.version == 0
        made.load_weights(9, parts[start : start + 4])
    assert made.version == 9
    made.resume()
    asked = requests()
    assert gap(trainer(model(seed=3)), asked, made.generate(asked, sampling=SHAPED), SHAPED) < 1e-4


def test_weights_that_stay_incomplete_are_not_sampled_from(made: VllmEngine) -> None:
    with ThreadPoolExecutor(1) as pool:
        made.pause()
        waiting = pool.submit(made.generate, requests(), sampling=SHAPED)
        made.load_weights(4, list(model(seed=3).named_parameters())[:-2])
        with pytest.raises(RuntimeError, match="half way"):
            made.resume()
        with pytest.raises(RuntimeError, match="half way"):
            waiting.result(WAIT_S)
    with pytest.raises(RuntimeError, match="load a whole set, or replace the engine"):
        made.generate(requests(), sampling=SHAPED)
    made.load_weights(5, model(seed=3).named_parameters())
    asked = requests()
    assert gap(trainer(model(seed=3)), asked, made.generate(asked, sampling=SHAPED), SHAPED) < 1e-4


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (("model.unknown", torch.zeros(2)), KeyError, "no weight model.unknown"),
        (("model.norm.weight", torch.zeros(31)), ValueError, r"model\.norm\.weight is \(31,\), not \(32,\)"),
    ],
)
def test_a_wrong_weight_is_refused(
    made: VllmEngine, wrong: tuple[str, torch.Tensor], error: type[Exception], message: str
) -> None:
    before = tokens(made.generate(requests(), sampling=SHAPED))
    with pytest.raises(error, match=message):
        made.load_weights(3, [wrong])
    assert made.version == 0
    assert tokens(made.generate(requests(), sampling=SHAPED)) == before, "nothing was touched yet"
    first = list(model(seed=3).named_parameters())[:5]
    with pytest.raises(error, match=message):
        made.load_weights(3, [*first, wrong])
    with pytest.raises(RuntimeError, match="half way"):
        made.generate(requests(), sampling=SHAPED)
    made.load_weights(0, model().named_parameters())
    assert tokens(made.generate(requests(), sampling=SHAPED)) == before


def test_a_group_shares_its_prompt_and_no_version_finds_what_another_left(made: VllmEngine) -> None:
    prompt = tiny_model.ids("0123456789" * 10)
    asked = requests([prompt], group=6)

    def cached(group: list[Request]) -> int:
        before = made.cached_tokens
        made.generate(group, sampling=SHAPED)
        return made.cached_tokens - before

    assert cached(asked) == 5 * 96, "whole blocks of 32 tokens"
    assert cached(asked) == 6 * 96
    made.load_weights(1, model(seed=1).named_parameters())
    assert cached(asked) == 5 * 96
    fresh = requests([prompt], group=2)
    assert gap(trainer(model(seed=1)), fresh, made.generate(fresh, sampling=SHAPED), SHAPED) < 1e-4


def test_the_process_stays_as_it_was(made: VllmEngine) -> None:
    assert "LD_PRELOAD" not in os.environ, "children would inherit vLLM's allocator"
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)

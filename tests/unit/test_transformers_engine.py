"""The embedded engine: samples depend on their seed alone, cost no wasted work, and follow the model's distribution."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import tiny_model
import torch
from scipy.stats import chisquare
from tiny_model import CONTEXT, EOS_ID, ids

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.sampling import Sampling, Transforms, transform
from rlhf.core.seeding import derive_seed
from rlhf.core.training import Sample
from rlhf.core.types import Completion, Request, StopReason
from rlhf.data.packing import pack
from rlhf.models import tokenizers
from rlhf.models.forward import ForwardSpec, forward, use_packed
from rollout.transformers_engine import Config, TransformersEngine

PROMPTS = [ids("3+5="), ids("12+4+9="), ids("#"), ids("a0b1c2d3e4f5=")]
SHAPED = Sampling(temperature=0.7, top_k=8, top_p=0.9, max_tokens=16)


def engine(model: Any, **settings: Any) -> TransformersEngine:
    return TransformersEngine(model, tiny_model.tokenizer(), Config(**settings))


def requests(prompts: Sequence[tuple[int, ...]] = PROMPTS, *, group: int = 4) -> list[Request]:
    return [
        Request(id=f"{p}-{i}", prompt_tokens=prompt, seed=derive_seed(0, "sample", p, i))
        for p, prompt in enumerate(prompts)
        for i in range(group)
    ]


def ending(family: str = "llama", *, seed: int = 0) -> Any:
    """A model for which every fourth token ends an answer, so that rows end at many different times."""
    model = tiny_model.model(family, seed=seed)
    model.generation_config.eos_token_id = list(range(EOS_ID, tiny_model.VOCAB, 4))
    return model


class Calls:
    """Shapes of the token inputs of every forward pass of a model."""

    def __init__(self, model: Any) -> None:
        self.shapes: list[tuple[int, int]] = []
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.shapes.append(tuple(kwargs["input_ids"].shape))

    @property
    def decoded(self) -> int:
        """Rows that went through the model after the prompts, summed over passes."""
        assert all(columns == 1 for _, columns in self.shapes[1:])
        return sum(rows for rows, _ in self.shapes[1:])


def assert_same(some: Sequence[Completion], other: Sequence[Completion]) -> None:
    assert [c.request_id for c in some] == [c.request_id for c in other]
    for a, b in zip(some, other, strict=True):
        assert (a.tokens, a.stop, a.text) == (b.tokens, b.stop, b.text)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


# A sample is a function of weights, prompt and seed.


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_a_sample_does_not_depend_on_its_neighbours(family: str) -> None:
    asked = requests()
    made = engine(ending(family))
    together = made.generate(asked, sampling=SHAPED)
    assert len({len(c.tokens) for c in together}) > 4, "rows must end at different times for this to prove anything"
    assert_same([made.generate([r], sampling=SHAPED)[0] for r in asked], together)
    shuffled = random.Random(0).sample(asked, len(asked))
    by_id = {c.request_id: c for c in made.generate(shuffled, sampling=SHAPED)}
    assert_same([by_id[r.id] for r in asked], together)


@pytest.mark.parametrize("settings", [{"max_batch": 1}, {"max_batch": 3}, {"max_batch": 7}, {"retire_share": 1.0}])
def test_a_sample_does_not_depend_on_batching(settings: dict[str, Any]) -> None:
    model = ending("qwen3")
    together = engine(model).generate(requests(), sampling=SHAPED)
    assert_same(engine(model, **settings).generate(requests(), sampling=SHAPED), together)


def test_another_seed_gives_another_sample() -> None:
    done = engine(tiny_model.model()).generate(requests(PROMPTS[:1], group=16), sampling=Sampling(max_tokens=12))
    assert len({c.tokens for c in done}) == 16


# Work done.


def test_a_prompt_is_prefilled_once_and_finished_rows_are_retired() -> None:
    model = ending()
    calls = Calls(model)
    done = engine(model, retire_share=1e-9).generate(requests(group=6), sampling=Sampling(max_tokens=24))
    assert calls.shapes[0] == (len(PROMPTS), max(map(len, PROMPTS)))
    # The first token comes from the prefill; after the last token of a row there is nothing left to compute.
    assert calls.decoded == sum(len(c.tokens) - 1 for c in done)
    assert len(calls.shapes) == max(len(c.tokens) for c in done)


def test_rows_decoded_in_vain_stay_below_the_retire_share() -> None:
    model = ending()
    calls = Calls(model)
    done = engine(model, retire_share=0.25).generate(requests(group=16), sampling=Sampling(max_tokens=24))
    needed = sum(len(c.tokens) - 1 for c in done)
    assert needed < calls.decoded < needed / 0.75
    assert len(calls.shapes) == max(len(c.tokens) for c in done)


def test_rounds_hold_max_batch_samples_at_most() -> None:
    model = ending()
    calls = Calls(model)
    asked = requests([ids("3+5="), ids("12+4="), ids("ab"), ids("a0b1=")], group=6)
    engine(model, max_batch=5).generate(random.Random(1).sample(asked, 24), sampling=Sampling(max_tokens=4))
    prefills = [rows for rows, columns in calls.shapes if columns > 1]
    assert len(prefills) == 5 and max(rows for rows, _ in calls.shapes) == 5
    assert sum(prefills) == 8, "a group that is cut in two is prefilled in both rounds, no other is"


# The distribution.


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "mistral"])
def test_trainer_and_sampler_agree_on_log_probs(family: str) -> None:
    model = ending(family)
    trained = copy.deepcopy(model)
    asked = requests()
    done = engine(model).generate(asked, sampling=SHAPED)
    use_packed(trained, where="model")
    samples = [
        Sample(
            id=r.id,
            tokens=r.prompt_tokens + c.tokens,
            target_start=len(r.prompt_tokens),
            rollout_logprobs=c.logprobs,
        )
        for r, c in zip(asked, done, strict=True)
    ]

    def gap(transforms: Transforms) -> float:
        spec = ForwardSpec(transforms=transforms, chunk_mib=0, entropy_gradient=False)
        with torch.no_grad():
            gaps = [
                (forward(trained, batch, spec).logprobs_T - batch.rollout_logprobs_T).abs().max().item()
                for batch in pack(samples, token_budget=128)
            ]
        return max(gaps)

    assert gap(SHAPED) < 1e-4
    for changed in ({"temperature": 1.0}, {"top_k": 0}, {"top_p": 1.0}):
        settings = {"temperature": 0.7, "top_k": 8, "top_p": 0.9} | changed
        assert gap(Transforms(**settings)) > 1e-2, f"{changed} must show, or the agreement means nothing"


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.8}, {"temperature": 1.5, "top_k": 9, "top_p": 0.7}]
)
def test_frequencies_follow_the_models_probabilities(settings: dict[str, Any]) -> None:
    model = tiny_model.model()
    sampling = Sampling(max_tokens=1, **settings)
    asked = requests(PROMPTS[:1], group=3000)
    done = engine(model, max_batch=3000).generate(asked, sampling=sampling)
    with torch.no_grad():
        logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1]
    assert_drawn_from(transform(logits, sampling).softmax(0), [c.tokens[0] for c in done])
    for c in done[:50]:
        expected = transform(logits, sampling).log_softmax(0)[c.tokens[0]].item()
        assert c.logprobs[0] == pytest.approx(expected, abs=1e-5)


def test_the_second_token_is_drawn_independently_of_the_first() -> None:
    model = tiny_model.model()
    asked = requests(PROMPTS[:1], group=3000)
    done = engine(model, max_batch=3000).generate(asked, sampling=Sampling(max_tokens=2))
    first = Counter(c.tokens[0] for c in done if c.tokens[0] != EOS_ID).most_common(1)[0][0]
    with torch.no_grad():
        logits = model(torch.tensor([(*PROMPTS[0], first)])).logits[0, -1]
    assert_drawn_from(logits.softmax(0), [c.tokens[1] for c in done if c.tokens[0] == first])


def assert_drawn_from(probs: torch.Tensor, drawn: Sequence[int]) -> None:
    """A chi-square test, with the rare tokens taken together, and no token outside the support."""
    counts = torch.bincount(torch.tensor(drawn), minlength=len(probs)).double()
    assert counts[probs == 0].sum() == 0
    expected = probs.double() / probs.double().sum() * len(drawn)
    common = expected >= 5
    assert common.sum() > 2
    seen = [*counts[common].tolist(), counts[~common].sum().item()]
    wanted = [*expected[common].tolist(), expected[~common].sum().item()]
    if wanted[-1] < 1:
        seen, wanted = seen[:-1], wanted[:-1]
        wanted = [w * sum(seen) / sum(wanted) for w in wanted]
    assert chisquare(seen, wanted).pvalue > 1e-3


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_greedy_equals_generate_of_transformers(family: str) -> None:
    model = ending(family)
    prompts = [*PROMPTS, *(ids(text) for text in ("9", "0+1+2+3=", "ff", "#a#b#c"))]
    done = engine(model).generate(requests(prompts, group=1), sampling=Sampling(temperature=0, max_tokens=20))
    for prompt, completion in zip(prompts, done, strict=True):
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=20,
            pad_token_id=0,
        )
        assert completion.tokens == tuple(out[0, len(prompt) :].tolist())
    assert len({c.tokens for c in done}) > 4


# Ends.


def chain(text: str, *, then_eos: bool = False) -> Any:
    """A model that continues the first character of a text of different characters with the rest of it."""
    tokens = [*ids(text), *([EOS_ID] if then_eos else [])]
    return tiny_model.follower(dict(pairwise(tokens)))


def one(made: TransformersEngine, prompt: str, **settings: Any) -> Completion:
    return made.generate([Request(id="0", prompt_tokens=ids(prompt), seed=1)], sampling=Sampling(**settings))[0]


def test_eos_is_kept_as_a_token_and_left_out_of_the_text() -> None:
    done = one(engine(chain("a123", then_eos=True)), "a", max_tokens=9)
    assert (done.tokens, done.text, done.stop) == ((*ids("123"), EOS_ID), "123", StopReason.EOS)
    assert len(done.logprobs) == 4 and all(-1e-6 < x <= 0 for x in done.logprobs)


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        (["4"], "123", "1234"),
        (["34", "6"], "12", "1234"),
        (["567", "56"], "1234", "123456"),
        (["123456"], "", "123456"),
    ],
)
def test_a_stop_string_cuts_the_text_and_ends_the_tokens(stop: list[str], text: str, tokens: str) -> None:
    done = one(engine(chain("a1234567")), "a", max_tokens=12, stop=stop)
    assert (done.text, done.tokens, done.stop) == (text, ids(tokens), StopReason.STOP_STRING)


def test_a_stop_string_in_the_prompt_does_not_count() -> None:
    done = one(engine(chain("a123", then_eos=True)), "23a", max_tokens=9, stop=["23a", "3a1"])
    assert (done.text, done.stop) == ("123", StopReason.EOS)


def test_a_stop_string_may_end_inside_a_character_of_several_tokens() -> None:
    bpe = tokenizers.train_bpe([], vocab_size=tokenizers.MIN_BPE)
    tokens = bpe.encode("a1世2", add_special_tokens=False)
    assert len(tokens) == 6, "one token per byte"
    model = tiny_model.follower(dict(pairwise(tokens)), vocab=len(bpe))
    made = TransformersEngine(model, bpe, Config())
    request = Request(id="0", prompt_tokens=(tokens[0],), seed=1)
    done = made.generate([request], sampling=Sampling(max_tokens=9, stop=["世"]))[0]
    assert (done.text, done.tokens, done.stop) == ("1", tuple(tokens[1:5]), StopReason.STOP_STRING)


def test_rows_stop_one_by_one_at_their_own_stop_string() -> None:
    made = engine(chain("ab1234567cdef"), retire_share=1e-9)
    asked = [Request(id=p, prompt_tokens=ids(p), seed=1) for p in "ab136"]
    done = made.generate(asked, sampling=Sampling(max_tokens=5, stop=["5", "d"]))
    assert [(c.text, c.stop.value) for c in done] == [
        ("b1234", "length"),
        ("1234", "stop_string"),
        ("234", "stop_string"),
        ("4", "stop_string"),
        ("7c", "stop_string"),
    ]


def test_the_token_budget_ends_a_sample() -> None:
    done = one(engine(chain("a1234567")), "a", max_tokens=3)
    assert (done.text, done.stop, len(done.logprobs)) == ("123", StopReason.LENGTH, 3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_context_ends_a_sample_and_refuses_a_prompt_without_room(family: str) -> None:
    model = tiny_model.model(family)
    model.generation_config.eos_token_id = None
    tokenizer = copy.deepcopy(tiny_model.tokenizer())
    tokenizer.eos_token = None
    prompts = {f"fits-{i}": ids("12"[i % 2] * 3) for i in range(12)}
    prompts |= {"almost": ids("3" * (CONTEXT - 2)), "full": ids("4" * CONTEXT), "over": ids("4" * (CONTEXT + 9))}
    asked = [Request(id=name, prompt_tokens=prompt, seed=i) for i, (name, prompt) in enumerate(prompts.items())]
    done = TransformersEngine(model, tokenizer, Config()).generate(asked, sampling=Sampling(max_tokens=8))
    assert [c.request_id for c in done] == list(prompts)
    assert [len(c.tokens) for c in done] == [8] * 12 + [2, 0, 0]
    assert [c.stop for c in done] == [StopReason.LENGTH] * 13 + [StopReason.ABORTED] * 2
    assert done[-1].text == "" and done[-1].logprobs == ()


def test_nothing_asked_is_nothing_done() -> None:
    assert engine(tiny_model.model()).generate([], sampling=SHAPED) == []


# Weights.


def test_new_weights_change_samples_and_version() -> None:
    made = engine(tiny_model.model(seed=0))
    other = tiny_model.model(seed=1)
    before = made.generate(requests(), sampling=SHAPED)
    assert {c.policy_version for c in before} == {0} and made.version == 0
    made.load_weights(7, other.named_parameters())
    after = made.generate(requests(), sampling=SHAPED)
    assert {c.policy_version for c in after} == {7} and made.version == 7
    assert [c.tokens for c in before] != [c.tokens for c in after]
    assert_same(after, engine(other).generate(requests(), sampling=SHAPED))


def test_an_unknown_weight_is_refused_and_the_version_stays() -> None:
    made = engine(tiny_model.model())
    with pytest.raises(KeyError, match=r"model\.unknown"):
        made.load_weights(3, [("model.unknown", torch.zeros(2))])
    assert made.version == 0


def test_nothing_is_generated_while_paused() -> None:
    made = engine(tiny_model.model())
    made.pause()
    with pytest.raises(AssertionError, match="weights are being loaded"):
        made.generate(requests(), sampling=SHAPED)
    made.resume()
    assert len(made.generate(requests(), sampling=SHAPED)) == 16


def test_a_model_without_a_key_value_cache_is_refused() -> None:
    with pytest.raises(DataError, match="MambaForCausalLM"):
        engine(tiny_model.model("mamba"))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"max_batch": 0}, "max_batch"),
        ({"retire_share": 0}, "retire_share"),
        ({"mantissa_bits": 0}, "mantissa_bits"),
        ({"mantissa_bits": 24}, "mantissa_bits"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == field

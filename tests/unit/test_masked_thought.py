"""Hidden inputs: which tokens may be hidden, by what, how often, and that the targets stay."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import tiny_model

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.training import Sample
from rlhf.data.packing import count, pack
from rlhf.data.transforms.masked_thought import Config, streams, transform
from rlhf.models.tokenizers import PAD

TOKENIZER = tiny_model.tokenizer()
LONG = Sample(id="a", tokens=(7, 8, *(9,) * 4000), target_start=2)
HOLED = Sample(id="b", tokens=(7, 8, 9, 10, 11, 12), target_start=2, target_mask=(True, False, False, True))


def masked(sample: Sample, *, seed: int = 0, done: float = 0.99, **keys: object) -> Sample:
    return transform(sample, Config(**keys), rng=Random(seed), done=done, tokenizer=TOKENIZER)  # type: ignore[arg-type]


def share_hidden(sample: Sample) -> float:
    assert sample.inputs is not None
    own = sample.inputs[sample.target_start :]
    return sum(read == 0 for read in own) / len(own)


def test_questions_and_what_is_no_target_are_read_as_they_are() -> None:
    found = masked(HOLED, rate=1.0, token=PAD)
    assert found.inputs == (7, 8, 0, 10, 11, 0)
    assert replace(found, inputs=None) == HOLED


def test_without_a_rate_a_sample_is_learnt_from_as_it_was() -> None:
    found = masked(HOLED, rate=0.0)
    assert found.inputs == HOLED.tokens
    (plain,), (same,) = pack([HOLED], token_budget=99), pack([found], token_budget=99)
    assert same.tokens_N.tolist() == plain.tokens_N.tolist() and same.targets_T.tolist() == plain.targets_T.tolist()


def test_the_loss_is_on_all_targets_of_the_true_tokens() -> None:
    found = masked(HOLED, rate=1.0, token=PAD)
    (batch,) = pack([found], token_budget=99)
    assert batch.targets_T.tolist() == [9, 12]
    assert batch.tokens_N.tolist() == [7, 8, 0, 10, 11], "the last target is not read"
    assert count([found]) == count([HOLED])


def test_the_rate_rises_and_stays() -> None:
    shares = {done: share_hidden(masked(LONG, rate=0.4, token=PAD, done=done)) for done in (0.0, 1 / 3, 2 / 3, 0.99)}
    assert shares[0.0] == 0
    assert shares[1 / 3] == pytest.approx(0.2, abs=0.03)
    assert shares[2 / 3] == pytest.approx(0.4, abs=0.03) and shares[0.99] == pytest.approx(0.4, abs=0.03)
    assert share_hidden(masked(LONG, rate=0.4, warmup=0.0, token=PAD, done=0.0)) == pytest.approx(0.4, abs=0.03)


def test_random_tokens_are_drawn_from_the_whole_vocabulary() -> None:
    found = masked(LONG, rate=1.0).inputs
    assert found is not None
    counts = [found[2:].count(token) for token in range(tiny_model.VOCAB)]
    assert min(counts) > 0.6 * 4000 / tiny_model.VOCAB and max(counts) < 1.4 * 4000 / tiny_model.VOCAB


def test_the_same_random_numbers_hide_the_same_tokens() -> None:
    assert masked(LONG, seed=1) == masked(LONG, seed=1) != masked(LONG, seed=2)


def test_one_target_and_what_was_changed_before() -> None:
    one = Sample(id="c", tokens=(7, 8), target_start=1)
    assert masked(one, rate=1.0, token=PAD).inputs == (7, 0)
    changed = replace(HOLED, inputs=(7, 8, 20, 10, 11, 12))
    assert masked(changed, rate=0.0).inputs == changed.inputs


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match=r"'<mask>' is no token.*\n.*<\|pad\|>"):
        masked(HOLED, token="<mask>")
    for name in ("rate", "warmup"):
        with pytest.raises(ConfigError) as caught:
            Config(**{name: 1.5})
        assert caught.value.where == name
    assert streams(Config()) == ()

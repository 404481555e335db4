"""The repetition penalty: n-grams counted by hand and by brute force, its value, and as a mere metric of a rubric."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any

import pytest

from rewards.repetition import Config, measure, score
from rewards.rubric import RubricConfig, score_groups
from rlhf.advantages import gae
from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Message, Prompt, RewardOut, StopReason, Trajectory, Verdict


@dataclass(frozen=True)
class NoTools:
    """No reward here asks for a worker."""

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        raise AssertionError("not expected")


def group(*answers: str, text: str = "#### 2") -> Group:
    prompt = Prompt(id="p", messages=(Message(role="user", content="1+1="),), gold="2", task="sums")
    trajectories = tuple(
        Trajectory(
            id=f"0-0-p-{n}", prompt_id="p", index=n, prompt_tokens=tokens_of("abcabc"), tokens=tokens_of(answer),
            logprobs=(-0.5,) * len(answer), text=text, stop=StopReason.EOS, policy_version=0, seed=n,
        )
        for n, answer in enumerate(answers)
    )  # fmt: skip
    return Group(prompt=prompt, trajectories=trajectories)


def tokens_of(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def graded(answer: str, **settings: Any) -> RewardOut:
    [out] = score(group(answer), Config(**settings), NoTools())
    return out


@pytest.mark.parametrize(
    ("text", "ngram", "tokens", "share"),
    [
        ("abcdef", 3, 0, 0),
        ("abcabc", 3, 3, 1 / 4),  # abc bca cab ABC
        ("abcabcabc", 3, 6, 4 / 7),  # abc bca cab ABC BCA CAB ABC cover the last six
        ("abcxxabcyyabc", 3, 6, 2 / 11),  # two stretches of three
        ("aaaa", 2, 3, 2 / 3),  # aa AA AA cover the last three
        ("abab", 1, 2, 1 / 2),
        ("abcdabceab", 2, 5, 3 / 9),  # AB BC cover three tokens together, the last AB two more
        ("ab", 3, 0, 0),
        ("aaa", 3, 0, 0),
        ("", 1, 0, 0),
    ],
)
def test_repeated_ngrams_by_hand(text: str, ngram: int, tokens: int, share: float) -> None:
    found = measure(tokens_of(text), ngram=ngram)
    assert (found.tokens, found.share) == (tokens, pytest.approx(share))


def test_marking_tokens_one_by_one_finds_the_same() -> None:
    rng = random.Random(0)
    repeating = 0
    for _ in range(300):
        tokens = [rng.randrange(3) for _ in range(rng.randrange(40))]
        ngram = rng.randrange(1, 6)
        grams = [tuple(tokens[i : i + ngram]) for i in range(len(tokens) - ngram + 1)]
        marked = {i + k for i, gram in enumerate(grams) if gram in grams[:i] for k in range(ngram)}
        found = measure(tokens, ngram=ngram)
        assert {t for t, covered in enumerate(found.marked_T) if covered} == marked
        assert found.share == pytest.approx(1 - len(set(grams)) / len(grams) if grams else 0)
        repeating += found.tokens > 0
    assert repeating > 100


def test_more_repetition_costs_more() -> None:
    values = [graded("abcd" * times, ngram=4).value for times in range(1, 6)]
    assert values == pytest.approx([0.0, -0.2, -0.4, -0.6, -0.8])


def test_the_value_is_the_papers_penalty_for_every_marked_token() -> None:
    sentence = "".join(map(chr, range(100, 140)))
    out = graded(sentence * 2)
    assert out.value == pytest.approx(40 * -0.05)
    assert (out.verdict, out.reason, out.extracted) == (Verdict.SKIPPED, "repetition", None)
    assert out.breakdown == {"repeated_tokens": 40.0, "repeated_share": pytest.approx(1 / 41)}
    assert graded(sentence[:39] * 2).value == 0.0, "39 tokens in a row are no 40-gram"


def test_each_penalty_stands_on_its_token() -> None:
    out = graded("abcxabc", ngram=3, penalty=-1.0)
    assert out.per_token == (0, 0, 0, 0, -1, -1, -1) and out.value == -3
    assert graded("abcdef", ngram=3).per_token == ()


def test_a_discount_of_its_own_is_what_is_left_to_come_at_every_token() -> None:
    out = graded("abcxabc", ngram=3, penalty=-1.0, discount=0.5)
    left = [sum(out.per_token[t:]) for t in range(7)]
    ahead = [sum(-(0.5 ** (k - t)) for k in (4, 5, 6) if k >= t) for t in range(7)]
    assert left == pytest.approx(ahead) and out.value == pytest.approx(ahead[0])


def test_a_critic_blames_the_tokens_up_to_the_repetition() -> None:
    answers = group("abcxabcy")
    parts = {"again": build_component("rewards", {"name": "repetition", "ngram": 3, "penalty": -1.0}, "again")}
    [scored] = score_groups([answers], parts, RubricConfig(), NoTools())
    valued = replace(scored, values_GT=((0.0,) * 8,))
    [[row]] = gae.advantages([valued], gae.Config(lam=1.0, whiten=False))
    assert row == (-3, -3, -3, -3, -3, -2, -1, 0)


def test_without_repetition_the_value_is_zero_and_not_its_negative() -> None:
    out = graded("abc", ngram=3)
    assert out.value == 0.0 and math.copysign(1, out.value) == 1
    assert out.breakdown == {"repeated_tokens": 0.0, "repeated_share": 0.0}


def test_the_prompt_does_not_count() -> None:
    assert graded("abc", ngram=3).value == 0.0


def test_with_weight_zero_it_is_measured_and_changes_nothing() -> None:
    answers = group("abc", "abcabc")
    alone = {"math": build_component("rewards", "math", "math")}
    measured = alone | {"again": build_component("rewards", {"name": "repetition", "ngram": 3, "weight": 0}, "again")}
    trained = alone | {"again": build_component("rewards", {"name": "repetition", "ngram": 3}, "again")}
    [without], [logged], [counted] = (
        score_groups([answers], parts, RubricConfig(), NoTools()) for parts in (alone, measured, trained)
    )
    assert [r.value for r in without.rewards] == [r.value for r in logged.rewards] == [1.0, 1.0]
    assert [r.value for r in counted.rewards] == [1.0, pytest.approx(1.0 - 0.15)]
    assert {(r.verdict, r.reason) for r in logged.rewards} == {(Verdict.CORRECT, "match/string")}
    assert logged.rewards[1].breakdown == {
        "math": 1.0,
        "again": pytest.approx(-0.15),
        "again/repeated_tokens": 3.0,
        "again/repeated_share": 0.25,
    }


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"ngram": 0}, "ngram"),
        ({"penalty": 0.0}, "penalty"),
        ({"penalty": 0.05}, "penalty"),
        ({"penalty": -math.inf}, "penalty"),
        ({"penalty": math.nan}, "penalty"),
        ({"discount": 0.0}, "discount"),
        ({"discount": 1.5}, "discount"),
        ({"weight": math.inf}, "weight"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where

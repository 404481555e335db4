"""Answers rewritten by rules that keep or break their meaning."""

from __future__ import annotations

import pytest
from corpus_checks import check

from rlhf.core.errors import ConfigError
from rlhf.lab.corpora import rewrites


def test_the_verifier_says_what_the_rules_say() -> None:
    found = check(lambda: rewrites.cases(rewrites.Config(items=60), seed=7, canary=""), labels={True, False})
    assert {case.category for case in found} == set(rewrites.KINDS)


def test_the_seed_draws() -> None:
    first, second = (next(iter(rewrites.cases(rewrites.Config(items=1), seed=seed, canary=""))) for seed in (0, 1))
    assert first.gold != second.gold


def test_no_answer_is_both_right_and_wrong() -> None:
    seen: dict[tuple[str, str], bool | None] = {}
    for case in rewrites.cases(rewrites.Config(items=300), seed=3, canary=""):
        assert seen.setdefault((case.completion, case.gold), case.label) == case.label, case


def test_nothing_is_not_a_corpus() -> None:
    with pytest.raises(ConfigError, match="items: 0"):
        rewrites.Config(items=0)

"""Completions with the answer in its place, and out of it."""

from __future__ import annotations

import pytest
from corpus_checks import check

from rlhf.core.errors import ConfigError
from rlhf.lab.corpora import answers


def test_the_verifier_takes_the_answer_from_its_place_only() -> None:
    found = check(lambda: answers.cases(answers.Config(items=5), seed=7, canary=""), labels={True, False})
    assert len(found) == 5 * len(answers.RIGHT | answers.WRONG)


def test_nothing_is_not_a_corpus() -> None:
    with pytest.raises(ConfigError, match="items: 0"):
        answers.Config(items=0)

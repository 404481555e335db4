"""Bombs, nesting, megabytes, injections: none is accepted, none is without a verdict."""

from __future__ import annotations

import pytest
from corpus_checks import check

from rlhf.core.errors import ConfigError
from rlhf.lab.corpora import hostile


def test_the_verifier_refuses_them() -> None:
    found = check(lambda: hostile.cases(hostile.Config(size=20_000), seed=0, canary="/nowhere"), labels={False, None})
    assert max(len(case.completion) for case in found) > 20_000
    assert all("/nowhere" in c.completion for c in found if "touch" in c.completion)


def test_short_ones_are_not_hostile() -> None:
    with pytest.raises(ConfigError, match="size: 10 is not long"):
        hostile.Config(size=10)

"""Answers that follow an instruction, or miss it by one."""

from __future__ import annotations

import pytest

from rewards.constraints import verify
from rlhf.core.errors import ConfigError
from rlhf.core.types import Verdict
from rlhf.lab.corpora import instructions


def test_the_checkers_say_what_the_answers_were_made_for() -> None:
    found = list(instructions.cases(instructions.Config(items=4), seed=7, canary=""))
    assert found == list(instructions.cases(instructions.Config(items=4), seed=7, canary=""))
    assert len(found) == 2 * 4 * len(instructions.INSTRUCTIONS)
    wrong = [c for c in found if (verify(c.completion, c.gold).verdict is Verdict.CORRECT) != c.label]
    assert not wrong, [(c.id, c.gold, c.completion) for c in wrong]


def test_nothing_is_not_a_corpus() -> None:
    with pytest.raises(ConfigError, match="items: 0"):
        instructions.Config(items=0)

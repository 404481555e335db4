"""Learnability: the weight of a prompt is the variance of its reward."""

from __future__ import annotations

import pytest

from rlhf.core.errors import ConfigError
from rlhf.core.modules import GroupKnown, Known
from rlhf.core.types import Prompt
from rlhf.data.curricula import learnability


def test_half_right_counts_most_and_nothing_is_lost_for_ever() -> None:
    prompt = Prompt(id="p", messages=(), gold="1", task="sums")
    known = [Known(prompt=prompt, group="sums", rate=rate) for rate in (None, 0.5, 0.25, 0.9, 0.0, 1.0)]
    found = learnability.weights(known, learnability.Config(floor=0.1), groups={"sums": GroupKnown()}, done=0.5)
    assert found == pytest.approx([1.0, 1.0, 0.75, 0.36, 0.1, 0.1])


@pytest.mark.parametrize("floor", [0.0, -1.0, 1.5])
def test_a_floor_is_above_0(floor: float) -> None:
    with pytest.raises(ConfigError, match=r"^floor: .*\n  fix: use 0\.05"):
        learnability.Config(floor=floor)

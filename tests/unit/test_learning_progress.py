"""Learning progress: what moves is drawn, up or down; what was never seen comes first."""

from __future__ import annotations

import pytest

from rlhf.core.errors import ConfigError
from rlhf.core.modules import GroupKnown, Known
from rlhf.core.types import Prompt
from rlhf.data.curricula import learning_progress
from rlhf.data.curricula.learning_progress import Config


def shares(groups: dict[str, GroupKnown], *, sizes: dict[str, int], floor: float = 0.2) -> dict[str, float]:
    """The chances of whole groups."""
    prompt = Prompt(id="p", messages=(), gold="1", task="sums")
    known = [Known(prompt=prompt, group=name) for name, size in sizes.items() for _ in range(size)]
    found = learning_progress.weights(known, Config(floor=floor), groups=groups, done=0.0)
    return {name: sum(w for one, w in zip(known, found, strict=True) if one.group == name) for name in sizes}


def test_progress_and_forgetting_count_alike_whatever_the_size_of_a_group() -> None:
    groups = {
        "learns": GroupKnown(seen=9, fast=0.6, slow=0.3),
        "forgets": GroupKnown(seen=9, fast=0.5, slow=0.6),
        "mastered": GroupKnown(seen=9, fast=1.0, slow=1.0),
        "out of reach": GroupKnown(seen=9, fast=0.0, slow=0.0),
    }
    found = shares(groups, sizes={"learns": 1, "forgets": 3, "mastered": 7, "out of reach": 2})
    assert found == pytest.approx({"learns": 0.65, "forgets": 0.25, "mastered": 0.05, "out of reach": 0.05})


def test_new_groups_come_first_and_without_progress_all_are_alike() -> None:
    still = GroupKnown(seen=1, fast=0.5, slow=0.5)
    found = shares({"a": still, "b": GroupKnown(), "c": GroupKnown()}, sizes={"a": 2, "b": 1, "c": 1}, floor=0.3)
    assert found == pytest.approx({"a": 0.1, "b": 0.45, "c": 0.45})
    assert shares({"a": still, "b": still}, sizes={"a": 1, "b": 4}) == pytest.approx({"a": 0.5, "b": 0.5})


@pytest.mark.parametrize("floor", [0.0, 1.01])
def test_a_floor_is_a_share_above_0(floor: float) -> None:
    with pytest.raises(ConfigError, match=r"^floor: .*\n  fix: use 0\.2"):
        Config(floor=floor)

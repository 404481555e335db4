"""Every file in `configs/ablations`: it says what it claims and whence, and every arm of it can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.core.errors import UserError
from rlhf.sweeps import spec, sweep

FILES = sorted((Path(__file__).parents[2] / "configs" / "ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_says_what_it_claims(path: Path) -> None:
    found = spec.read(path)
    assert found.cfg.source and found.cfg.notes and found.cfg.title
    assert len(found.cfg.seeds) >= 3
    assert found.expect and all(claim.says for claim in found.expect)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_arm_can_run(path: Path) -> None:
    sweep.show_plan(spec.read(path))


def test_a_plan_can_fail() -> None:
    with pytest.raises(UserError, match="positions"):
        sweep.show_plan(spec.read(FILES[0], ["set.sampling.max_tokens=100000"]))

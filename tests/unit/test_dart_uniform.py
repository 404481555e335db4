"""The same quota for every question."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Quota
from rlhf.data.build import dart_uniform, samples
from rlhf.data.build.dart_uniform import Config
from rlhf.loops import generate

NOBODY: Any = None


def test_every_prompt_has_the_same_quota_and_rows_are_samples() -> None:
    found = group(1.0, 1.0)
    assert dart_uniform.quotas([found.prompt] * 3, Config(rows=4, samples=9), NOBODY) == [Quota(rows=4, samples=9)] * 3
    rows = asyncio.run(dart_uniform.build([found], Config(), NOBODY))
    assert rows == asyncio.run(samples.build([found], samples.Config(), NOBODY)) and len(rows) == 2


@pytest.mark.parametrize(("change", "where"), [({"rows": 0}, "rows"), ({"rows": 5, "samples": 4}, "samples")])
def test_quotas_that_cannot_be_met_are_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**change)
    assert caught.value.where == where


def test_a_stage_with_quotas_has_no_other_limit() -> None:
    with pytest.raises(ConfigError, match=r"build\.rows"):
        config.build(generate.Config, {"build": "dart_uniform", "max_per_prompt": 3}, "gen")
    cfg = config.build(generate.Config, {"build": {"name": "dart_uniform", "rows": 2}}, "gen")
    assert cfg.has_quotas and "in rounds of 256" in generate.batch_arithmetic(cfg)["rollout"]
    assert not generate.Config().has_quotas


def test_prompts_that_ask_the_same_are_one_question() -> None:
    asked = [replace(group(1.0).prompt, id=name, gold=gold) for name, gold in (("a", "2"), ("b", "2"), ("c", "3"))]
    cfg = config.build(generate.Config, {"build": "dart_uniform"}, "gen")
    assert [prompt.id for prompt in generate.drawn(cfg, asked)] == ["a", "c"]
    assert generate.drawn(generate.Config(), asked) == asked

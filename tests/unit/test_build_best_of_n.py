"""The best of all samples, and what n does to a policy."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Json
from rlhf.data.build import best_of_n
from rlhf.data.build.best_of_n import Config

NOBODY: Any = None


def built(*groups: Group, cfg: Config | None = None) -> list[dict[str, Json]]:
    return asyncio.run(best_of_n.build(groups, cfg or Config(), NOBODY))


def test_the_best_sample_is_kept_and_of_equal_ones_the_first() -> None:
    [row] = built(group(0.25, None, 0.75, 0.5, 0.75))
    assert (row["sample_id"], row["value"], row["of"], row["mean_value"]) == ("0-0-sums-1-2", 0.75, 4, 0.5625)
    assert row["completion"] == "2" and row["messages"] == [{"role": "user", "content": "1+1="}]
    assert built(group(-2.0, -1.0))[0]["value"] == -1.0


def test_a_question_without_a_good_or_any_graded_sample_is_left_out() -> None:
    assert built(group(None, None)) == [] and built(group(0.0, 0.5), cfg=Config(least=1.0)) == []
    assert len(built(group(0.0, 1.0), cfg=Config(least=1.0))) == 1
    with pytest.raises(ConfigError, match="least"):
        Config(least=math.nan)


def test_the_best_of_n_is_as_far_from_the_sampler_as_the_formula_says() -> None:
    """Samples with values of their own among 40: the k-th best is drawn with chance (k^n - (k-1)^n) / 40^n."""
    rng, n, size, draws = random.Random(0), 4, 40, 1500
    groups = [group(*[float(rng.randrange(size)) for _ in range(n)]) for _ in range(draws)]
    found = Counter(float(str(row["value"])) for row in built(*groups))
    kl = 0.0
    for k in range(1, size + 1):
        chance = (k**n - (k - 1) ** n) / size**n
        kl += chance * math.log(chance * size)
        assert abs(found[k - 1.0] - draws * chance) < 5 * math.sqrt(draws * chance) + 1
    assert kl == pytest.approx(math.log(n) - (n - 1) / n, abs=0.02)

"""SimPO by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pair_cases import batch, said, values

from rlhf.core.errors import ConfigError
from rlhf.losses import dpo_norm, simpo

COUNTS, SAID = [2, 1], (-0.4, -0.6, -2.5)


def test_mean_log_probs_less_a_margin() -> None:
    out = simpo.loss(said(*SAID), batch(COUNTS), simpo.Config(beta=2.0, gamma=0.5))
    assert out.total.item() == pytest.approx(math.log(1 + math.exp(-(2.0 * (2.5 - 0.5) - 0.5))))
    assert values(out)["rewards/chosen"] == pytest.approx(-1.0)
    assert values(out)["rewards/rejected"] == pytest.approx(-5.0)
    assert values(out)["logps/chosen"] == pytest.approx(-1.0), "log-probs are sums"


def test_without_a_margin_it_is_length_normalised_dpo_without_a_reference() -> None:
    one = simpo.loss(said(*SAID), batch(COUNTS), simpo.Config(beta=3.0, gamma=0.0)).total
    two = dpo_norm.loss(said(*SAID), batch(COUNTS), dpo_norm.Config(beta=3.0, reference_free=True)).total
    assert one.item() == pytest.approx(two.item())


def test_its_defaults_are_those_of_the_authors() -> None:
    assert (simpo.Config().beta, simpo.Config().gamma / simpo.Config().beta) == (2.0, 0.25)


@pytest.mark.parametrize(("change", "where"), [({"beta": 0.0}, "beta"), ({"gamma": -0.1}, "gamma")])
def test_bad_settings_are_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        simpo.Config(**change)
    assert caught.value.where == where

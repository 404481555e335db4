"""Sampling transforms by hand, and settings that must be refused."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling, Transforms, transform

LOGITS = torch.tensor([[0.1, 0.4, 0.05, 0.25, 0.2]], dtype=torch.float64).log()


def support(settings: dict[str, float], *, keep: int | None = None, logits: torch.Tensor = LOGITS) -> list[int]:
    kept = None if keep is None else torch.tensor([keep])
    out = transform(logits, Transforms(**settings), keep=kept)  # type: ignore[arg-type]
    return out.isfinite()[0].nonzero().squeeze(1).tolist()


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [1, 3]),
        ({"top_k": 5}, [0, 1, 2, 3, 4]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.39}, [1]),
        ({"top_p": 0.41}, [1, 3]),
        ({"top_p": 0.64}, [1, 3]),
        ({"top_p": 0.66}, [1, 3, 4]),
        ({"top_p": 0.96}, [0, 1, 2, 3, 4]),
        ({"top_k": 3, "top_p": 0.7}, [1, 3]),
        ({"temperature": 0.25, "top_p": 0.8}, [1]),
        ({"temperature": 4.0, "top_p": 0.8}, [0, 1, 3, 4]),
    ],
)
def test_support(settings: dict[str, float], kept: list[int]) -> None:
    # top_k 3 leaves 0.4, 0.25, 0.2; of these 0.65 / 0.85 = 0.76 reach a nucleus of 0.7, so that the third falls away.
    assert support(settings) == kept


def test_temperature_comes_before_the_cuts_and_zero_leaves_logits_alone() -> None:
    assert torch.equal(transform(LOGITS, Transforms(temperature=2.0)), LOGITS / 2)
    assert torch.equal(transform(LOGITS, Transforms(temperature=0.0)), LOGITS)


def test_a_kept_token_stays_in_the_support() -> None:
    assert support({"top_k": 1}, keep=2) == [1, 2]
    assert support({"top_p": 0.3}, keep=2) == [1, 2]
    assert support({"top_k": 2, "top_p": 0.3}, keep=3) == [1, 3]


def test_each_row_has_its_own_support() -> None:
    rows = torch.stack([LOGITS[0], LOGITS[0].flip(0)])
    out = transform(rows, Transforms(top_p=0.6), keep=torch.tensor([2, 0]))
    assert [r.nonzero().squeeze(1).tolist() for r in out.isfinite()] == [[1, 2, 3], [0, 1, 3]]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_impossible_values_name_their_field(wrong: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Sampling(**wrong)  # type: ignore[arg-type]
    assert caught.value.where == field

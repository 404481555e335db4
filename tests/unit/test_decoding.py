"""Rows of a decoding round: tokens by inverse cumulative distribution, ends, budgets, and who leaves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlhf.core.sampling import Sampling
from rlhf.core.types import Request, StopReason
from rollout import decoding
from rollout.decoding import Rows

NO_EOS = torch.tensor([], dtype=torch.long)


def rows(lengths: list[int], *, context: int = 100, seeds: list[int] | None = None, **sampling: object) -> Rows:
    """One row per prompt length."""
    seeds = list(range(len(lengths))) if seeds is None else seeds
    width = max(lengths)
    mask = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    asked = [Request(id=str(i), prompt_tokens=(1,) * n, seed=seeds[i]) for i, n in enumerate(lengths)]
    return Rows(asked, prompt_mask=mask, context=context, sampling=Sampling(**sampling))  # type: ignore[arg-type]


def certain(tokens: list[int], vocab: int = 6) -> torch.Tensor:
    """Logits that leave no choice, a row per token."""
    return torch.nn.functional.one_hot(torch.tensor(tokens), vocab).float() * 100


def uniform(seed: int, column: int) -> float:
    return np.random.Generator(np.random.Philox(key=seed)).random(column + 1)[column]


@pytest.mark.parametrize("column", [0, 3])
def test_a_token_is_the_inverse_of_the_cumulative_distribution(column: int) -> None:
    probs = [0.0, 0.5, 0.25, 0.0, 0.25]
    edges = {1: (0.0, 0.5), 2: (0.5, 0.75), 4: (0.75, 1.0)}
    seeds = [3, 17, 2**63 - 1, *range(100, 140)]
    made = rows([1] * len(seeds), seeds=seeds, max_tokens=4)
    drawn = made.draw(torch.tensor([probs] * len(seeds)).log(), column, NO_EOS).tolist()
    assert set(drawn) == set(edges)
    for seed, token in zip(seeds, drawn, strict=True):
        low, high = edges[token]
        assert low <= uniform(seed, column) < high


@pytest.mark.parametrize(("drawn", "token"), [(0.0, 1), (0.5, 2), (1 - 2**-53, 2)])
def test_the_edges_of_the_unit_interval_fall_on_tokens_of_the_support(
    drawn: float, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        decoding, "_uniform", lambda _requests, count: torch.full((1, count), drawn, dtype=torch.float64)
    )
    made = rows([1], max_tokens=1)
    assert made.draw(torch.tensor([[0.0, 0.5, 0.5, 0.0]]).log(), 0, NO_EOS).tolist() == [token]


def test_log_probs_are_those_of_the_transformed_distribution() -> None:
    made = rows([1] * 8, max_tokens=1, temperature=0.5, top_k=2)
    logits = torch.tensor([1.0, 2.0, 0.0]).expand(8, 3)
    drawn = made.draw(logits, 0, NO_EOS)
    made.end_spent(0)
    ended, _ = made.retire()
    expected = {0: -math.log1p(math.exp(2.0)), 1: -math.log1p(math.exp(-2.0))}
    assert {e.tokens[0] for e in ended} == {0, 1} == set(drawn.tolist())
    for e in ended:
        assert e.logprobs == pytest.approx([expected[e.tokens[0]]], abs=1e-6)


def test_greedy_takes_the_first_of_the_best_and_reports_temperature_one() -> None:
    made = rows([1], max_tokens=1, temperature=0)
    assert made.draw(torch.tensor([[0.0, 1.0, 1.0]]), 0, NO_EOS).tolist() == [1]
    made.end_spent(0)
    ended, _ = made.retire()
    assert ended[0].logprobs == pytest.approx([-math.log(2 + math.exp(-1))], abs=1e-6)


def test_retiring_returns_what_ended_and_keeps_the_rest_in_order() -> None:
    made = rows([1, 2, 3, 4], max_tokens=5)
    made.draw(certain([1, 2, 3, 4]), 0, torch.tensor([3, 5]))
    assert made.num_ended() == 1
    made.draw(certain([5, 2, 2, 4]), 1, torch.tensor([3, 5]))
    ended, stay = made.retire()
    assert [(e.index, e.tokens, e.stop) for e in ended] == [
        (0, [1, 5], StopReason.EOS),
        (2, [3], StopReason.EOS),
    ], "what was drawn after the end of a row is no part of it"
    assert [len(e.logprobs) for e in ended] == [2, 1]
    assert stay.tolist() == [1, 3] and len(made) == 2 and made.num_ended() == 0
    assert made.positions(1).tolist() == [[3], [5]]
    assert made.mask.sum(dim=1).tolist() == [2 + 5, 4 + 5]
    made.draw(certain([0, 3]), 2, torch.tensor([3, 5]))
    ended, stay = made.retire()
    assert [(e.index, e.tokens) for e in ended] == [(3, [4, 4, 3])] and stay.tolist() == [0]
    assert made.recent(2, 2).tolist() == [[2, 0]]


def test_a_row_keeps_its_first_reason_to_end() -> None:
    made = rows([1, 1, 1], max_tokens=1)
    made.draw(certain([5, 1, 1]), 0, torch.tensor([5]))
    made.end_stopped(torch.tensor([True, True, False]), 0)
    made.end_spent(0)
    ended, _ = made.retire()
    assert [e.stop for e in ended] == [StopReason.EOS, StopReason.STOP_STRING, StopReason.LENGTH]


def test_a_budget_ends_with_the_context() -> None:
    made = rows([2, 8, 9], context=10, max_tokens=4)
    spent: list[int] = []
    for column in range(4):
        made.draw(certain([0] * len(made)), column, NO_EOS)
        made.end_spent(column)
        assert made.positions(column).max() <= 9, "a finished row that stays must not leave the context"
        spent.append(made.num_ended())
    ended, _ = made.retire()
    assert [len(e.tokens) for e in ended] == [4, 2, 1]
    assert spent == [1, 2, 2, 3]


def test_the_window_for_stop_strings_holds_the_newest_tokens() -> None:
    made = rows([1], max_tokens=4)
    for column, token in enumerate([1, 2, 3]):
        made.draw(certain([token]), column, NO_EOS)
    assert made.recent(2, 2).tolist() == [[2, 3]]
    assert made.recent(2, 9).tolist() == [[1, 2, 3]]

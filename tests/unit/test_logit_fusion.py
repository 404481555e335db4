"""Fused logits by hand; the search against brute force, and where its result is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rollout.logit_fusion import fused, search

GRID = [0.1 * i for i in range(21)]


def logits(seed: int, *, rows: int = 6, width: int = 12, scale: float = 1.5) -> Tensor:
    return scale * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def kl(some: Tensor, other: Tensor) -> Tensor:
    return torch.nn.functional.kl_div(other, some, log_target=True, reduction="none").sum(-1)


def objective(large: Tensor, small: Tensor, experts: Sequence[Tensor], alpha: Sequence[float]) -> Tensor:
    """As the paper writes it, in float64: every distribution is built."""
    moved = large.double() + sum(a * (e.double() - small.double()) for a, e in zip(alpha, experts, strict=True))
    f, p, q = (x.double().log_softmax(-1) for x in (moved, large, small))
    total = torch.zeros(len(large), dtype=torch.float64)
    for expert in experts:
        q_k = expert.double().log_softmax(-1)
        total += (kl(f, p) - kl(q_k, q)) ** 2 + (kl(p, f) - kl(q, q_k)) ** 2
    return total


def brute(large: Tensor, small: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """[R, K], by trying every weight of every expert alone."""
    count = len(experts)
    tried = [[a if j == k else 0.0 for j in range(count)] for k, a in itertools.product(range(count), GRID)]
    found = torch.stack([objective(large, small, experts, alpha) for alpha in tried])
    return torch.tensor(tried)[found.argmin(dim=0)]


def test_logits_by_hand() -> None:
    large, small = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    experts = [torch.tensor([[1.0, 1.0, -1.0]]), torch.tensor([[0.0, 3.0, 0.0]])]
    out = fused(large, small, experts, torch.tensor([[2.0, 0.5]]))
    assert out.tolist() == [[1.0 + 2.0, 2.0 + 0.5 * 2.0, 3.0 - 2.0]]
    assert torch.equal(fused(large, small, experts, torch.zeros(1, 2)), large)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_search_finds_what_trying_everything_finds(seed: int, count: int) -> None:
    large, small = logits(seed), logits(seed + 10)
    experts = [small + logits(seed + 20 + k, scale=0.7) for k in range(count)]
    found = search(large, small, experts, grid=GRID)
    assert torch.allclose(found, brute(large, small, experts), atol=1e-6)
    assert ((found > 0).sum(dim=1) <= 1).all()


def test_where_the_large_model_is_the_small_one_the_weight_is_1_and_the_expert_comes_out() -> None:
    small, expert = logits(0), logits(1)
    alpha = search(small, small, [expert], grid=GRID)
    assert torch.equal(alpha, torch.ones(6, 1))
    assert torch.allclose(fused(small, small, [expert], alpha), expert, atol=1e-5)


def test_an_expert_that_knows_nothing_more_changes_nothing() -> None:
    large, small = logits(1), logits(0)
    assert not search(large, small, [small.clone()], grid=GRID).any()
    same = small + 3.0
    out = fused(large, small, [same], search(large, small, [same], grid=GRID))
    assert torch.allclose(out.softmax(-1), large.softmax(-1), atol=1e-6)


def test_the_weight_lies_between_those_that_match_one_direction() -> None:
    """Both divergences grow with the weight, so that each is matched once."""
    large, small = logits(3), logits(4)
    expert = small + logits(5, scale=0.5)
    alphas = torch.linspace(0, 3, 301)
    p, q, q_k = large.log_softmax(-1), small.log_softmax(-1), expert.log_softmax(-1)
    moved = [(large + a * (expert - small)).log_softmax(-1) for a in alphas]
    there, back = torch.stack([kl(f, p) for f in moved]), torch.stack([kl(p, f) for f in moved])
    assert (there.diff(dim=0) > 0).all() and (back.diff(dim=0) > 0).all()
    matched = torch.stack([alphas[(there < kl(q_k, q)).sum(0)], alphas[(back < kl(q, q_k)).sum(0)]])
    found = search(large, small, [expert], grid=alphas.tolist()).squeeze(1)
    assert (found >= matched.amin(0) - 0.011).all() and (found <= matched.amax(0) + 0.011).all()


@pytest.mark.parametrize("width", [9, 12, 15])
def test_vocabularies_may_be_padded_to_other_widths(width: int) -> None:
    large, small, expert = logits(0, width=width), logits(1), logits(2)
    alpha = torch.full((6, 1), 0.5)
    out, both = fused(large, small, [expert], alpha), min(width, 12)
    assert torch.allclose(out[:, :both], large[:, :both] + 0.5 * (expert - small)[:, :both])
    assert torch.equal(out[:, both:], large[:, both:])
    assert search(large, small, [expert], grid=GRID).isfinite().all()


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_model_is_no_quiet_zero(which: int, value: float) -> None:
    given = [logits(0), logits(1), logits(2)]
    given[which][2, 3] = value
    large, small, expert = given
    if which == 0 and value == float("inf"):
        given[1][2, 3] = value
    with pytest.raises(FloatingPointError, match="broken"):
        fused(large, small, [expert], search(large, small, [expert], grid=GRID))


def test_low_precision_is_widened_first() -> None:
    large, small, expert = (logits(s).bfloat16() for s in range(3))
    alpha = torch.ones(6, 1)
    out = fused(large, small, [expert], alpha)
    assert out.dtype == torch.float32
    assert torch.equal(out, fused(large.float(), small.float(), [expert.float()], alpha))

"""Masks of task vectors by hand: counts, ties, ends; sums that are rounded once."""

from __future__ import annotations

import itertools
import weakref

import pytest
import torch

from rlhf.models.task_vectors import counts, mask, merged


def kept(values: list[float], **shares: float) -> list[int]:
    """Places of the entries that a mask keeps."""
    return mask(torch.tensor(values), **shares).nonzero().squeeze(1).tolist()


def test_the_middle_by_magnitude_is_kept() -> None:
    values = [0.5, -3.0, 0.1, 2.0, -0.4, 9.0, 0.0, 1.0, -8.0, 0.2]
    assert kept(values, beta=0.3, gamma=0.8) == [0, 1, 3, 4, 7], "0, 0.1 and 0.2 go, and -8 and 9"
    assert kept(values, beta=0.0, gamma=0.9) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert kept(values, beta=0.9, gamma=1.0) == [5]
    assert kept(values, beta=0.0, gamma=1.0) == list(range(10))


def test_of_equal_magnitudes_the_first_count_as_smaller() -> None:
    assert kept([1.0, -1.0, 1.0, 1.0, -1.0], beta=0.4, gamma=0.8) == [2, 3]
    assert kept([2.0, 1.0, -2.0, 1.0, 2.0], beta=0.2, gamma=0.8) == [0, 2, 3]
    assert kept([0.0] * 4, beta=0.5, gamma=0.75) == [2]


@pytest.mark.parametrize(
    ("size", "beta", "gamma", "expected"),
    [(100, 0.29, 0.71, (29, 29)), (10, 0.85, 0.99, (8, 0)), (7, 0.5, 0.5, (3, 3)), (1, 0.85, 0.99, (0, 0))],
)
def test_shares_are_counted_down(size: int, beta: float, gamma: float, expected: tuple[int, int]) -> None:
    assert counts(size, beta=beta, gamma=gamma) == expected


@pytest.mark.parametrize("seed", range(3))
def test_a_mask_is_the_middle_of_a_stable_order(seed: int) -> None:
    """Against sorting, on a tensor full of ties."""
    torch.manual_seed(seed)
    delta = torch.randint(-4, 5, (8, 25)).float()
    small, large = counts(delta.numel(), beta=0.37, gamma=0.9)
    order = delta.abs().reshape(-1).sort(stable=True).indices[small : delta.numel() - large]
    expected = torch.zeros(delta.numel(), dtype=torch.bool)
    expected[order] = True
    assert torch.equal(mask(delta, beta=0.37, gamma=0.9), expected.reshape(8, 25))


def test_task_vectors_are_masked_one_by_one_and_added_up() -> None:
    base = torch.tensor([1.0, 1.0, 1.0, 1.0])
    one, other = torch.tensor([1.1, 3.0, 1.5, 9.0]), torch.tensor([0.0, 1.0, 1.2, -1.0])
    both = [(0.5, one), (2.0, other)]
    found = merged(base, both, beta=0.25, gamma=0.75)
    assert found.tolist() == pytest.approx([1.0 + 2.0 * -1.0, 1.0 + 0.5 * 2.0, 1.0 + 0.5 * 0.5 + 2.0 * 0.2, 1.0])
    plain = merged(base, both, beta=0.0, gamma=1.0)
    assert plain.tolist() == pytest.approx((base + 0.5 * (one - base) + 2.0 * (other - base)).tolist())


def test_one_whole_task_vector_gives_the_fine_tune_back() -> None:
    torch.manual_seed(0)
    for dtype in (torch.bfloat16, torch.float32):
        base = torch.randn(40, 9).to(dtype)
        tuned = (base.float() + 0.02 * torch.randn(40, 9)).to(dtype)
        found = merged(base, [(1.0, tuned)], beta=0.0, gamma=1.0)
        assert found.dtype == dtype
        assert torch.equal(found, tuned) or (found - tuned).abs().max() < 1e-6


def test_weights_of_bfloat16_are_rounded_once() -> None:
    """Seven parents: no weight is off by more than half a unit of its last place, as sums in bfloat16 are."""
    torch.manual_seed(1)
    base = torch.randn(64, 33).bfloat16()
    tuned = [(base.double() + 0.05 * torch.randn(64, 33).double()).bfloat16() for _ in range(7)]
    found = merged(base, ((0.3, t) for t in tuned), beta=0.0, gamma=1.0)
    exact = base.double() + sum(0.3 * (t.double() - base.double()) for t in tuned)
    half_a_place = 2.0**-8 * exact.abs()
    assert ((found.double() - exact).abs() <= 1.001 * half_a_place).all()
    in_bfloat16 = base + sum(((t - base) * 0.3 for t in tuned), torch.zeros_like(base))
    assert ((in_bfloat16.double() - exact).abs() > 1.001 * half_a_place).any()


def test_what_is_no_floating_point_number_stays() -> None:
    base = torch.tensor([3, 4])
    assert merged(base, [(1.0, torch.tensor([7, 8]))], beta=0.0, gamma=1.0) is base


def test_parents_are_held_one_at_a_time() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def parents() -> itertools.chain[tuple[float, torch.Tensor]]:
        for _ in range(5):
            tensor = torch.randn(16)
            alive.append(weakref.ref(tensor))
            yield 0.1, tensor
            del tensor
            assert sum(ref() is not None for ref in alive) <= 1

    merged(torch.zeros(16), parents(), beta=0.5, gamma=0.9)
    assert len(alive) == 5

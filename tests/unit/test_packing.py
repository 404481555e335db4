"""Samples laid end to end: indices by hand, streams on their tokens, and the token budget."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from rlhf.core.errors import DataError
from rlhf.core.protocols import Counts
from rlhf.core.training import Sample, Span
from rlhf.data.packing import count, num_targets, pack

LONG = Sample(
    id="long",
    tokens=(10, 11, 12, 13),
    target_start=2,
    advantages=(0.5, -0.5),
    old_logprobs=(-1.0, -2.0),
    rollout_logprobs=(-1.5, -2.5),
)
SHORT = Sample(
    id="short",
    tokens=(20, 21, 22),
    target_start=1,
    target_mask=(False, True),
    advantages=(9.0, 2.0),
    old_logprobs=(-9.0, -3.0),
    rollout_logprobs=(-9.0, -3.5),
)


def test_two_sequences_by_hand() -> None:
    (batch,) = pack([LONG, SHORT], token_budget=7)
    assert batch.ids == ("short", "long")
    assert batch.spans == (Span(range(0, 1), range(1, 2)), Span(range(2, 4), range(4, 5)))
    assert batch.tokens_N.tolist() == [20, 21, 10, 11, 12], "the last targets predict nothing"
    assert batch.positions_N.tolist() == [0, 1, 0, 1, 2]
    assert batch.predictor_T.tolist() == [1, 3, 4]
    assert batch.targets_T.tolist() == [22, 12, 13]
    assert batch.sequence_T.tolist() == [0, 1, 1]
    assert batch.target_counts_S.tolist() == [1.0, 2.0]
    assert (batch.num_targets, batch.num_sequences) == (3, 2)


def test_streams_follow_their_tokens_and_masked_values_fall_away() -> None:
    (batch,) = pack([LONG, SHORT], token_budget=7)
    assert batch.advantages_T is not None and batch.advantages_T.tolist() == [2.0, 0.5, -0.5]
    assert batch.old_logprobs_T is not None and batch.old_logprobs_T.tolist() == [-3.0, -1.0, -2.0]
    assert batch.rollout_logprobs_T is not None and batch.rollout_logprobs_T.tolist() == [-3.5, -1.5, -2.5]
    assert batch.ref_logprobs_T is None


def test_types_are_those_that_the_model_and_the_losses_read() -> None:
    (batch,) = pack([LONG, SHORT], token_budget=7)
    for name in ("tokens_N", "positions_N", "predictor_T", "targets_T", "sequence_T"):
        assert asdict(batch)[name].dtype == torch.int64, name
    for name in ("target_counts_S", "advantages_T", "old_logprobs_T"):
        assert asdict(batch)[name].dtype == torch.float32, name


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (7, [[2, 3], [5], [6], [7]]),
        (10, [[2, 3, 5], [6], [7]]),
        (13, [[2, 3, 5], [6, 7]]),
        (99, [[2, 3, 5, 6, 7]]),
    ],
)
def test_every_batch_keeps_the_budget(budget: int, expected: list[list[int]]) -> None:
    samples = [Sample(id=str(n), tokens=(n, *range(n - 1)), target_start=1) for n in (5, 2, 7, 3, 6)]
    assert [[int(name) for name in b.ids] for b in pack(samples, token_budget=budget)] == expected


def sharing(*ends: tuple[str, tuple[int, ...]], prompt: tuple[int, ...] = (5, 6)) -> list[Sample]:
    return [Sample(id=name, tokens=prompt + answer, target_start=len(prompt)) for name, answer in ends]


def test_a_prompt_that_samples_share_stands_in_the_batch_once() -> None:
    alone = replace(LONG, advantages=None, old_logprobs=None, rollout_logprobs=None)
    (batch,) = pack([*sharing(("a", (7, 8)), ("b", (9,))), alone], token_budget=99)
    assert batch.ids == ("b", "a", "long")
    assert batch.tokens_N.tolist() == [5, 6, 7, 10, 11, 12]
    assert batch.positions_N.tolist() == [0, 1, 2, 0, 1, 2]
    shared = range(0, 2)
    assert batch.spans == (Span(shared, range(2, 2)), Span(shared, range(2, 3)), Span(range(3, 5), range(5, 6)))
    assert batch.predictor_T.tolist() == [1, 1, 2, 4, 5]
    assert batch.targets_T.tolist() == [9, 7, 8, 12, 13]
    assert batch.sequence_T.tolist() == [0, 1, 1, 2, 2]
    assert [span.length for span in batch.spans] == [2, 3, 3]


def test_tokens_after_the_last_target_are_left_out() -> None:
    (batch,) = pack([replace(LONG, target_mask=(True, False))], token_budget=9)
    assert (batch.tokens_N.tolist(), batch.targets_T.tolist()) == ([10, 11], [12])


@pytest.mark.parametrize(
    ("budget", "expected"), [(4, [["a"], ["b"], ["c"]]), (6, [["a", "b"], ["c"]]), (8, [["a", "b", "c"]])]
)
def test_the_budget_counts_a_shared_prompt_once_per_batch(budget: int, expected: list[list[str]]) -> None:
    samples = sharing(("a", (1, 2)), ("b", (3, 4)), ("c", (7, 8)))
    batches = pack(samples, token_budget=budget)
    assert [list(b.ids) for b in batches] == expected
    assert all(b.tokens_N.tolist()[:2] == [5, 6] for b in batches)


def test_the_order_of_the_samples_does_not_matter() -> None:
    samples = [Sample(id=f"{n}{c}", tokens=(ord(c) % n, *range(n)), target_start=1) for n in (4, 2, 4, 3) for c in "ab"]
    assert [b.ids for b in pack(samples, token_budget=9)] == [b.ids for b in pack(samples[::-1], token_budget=9)]


def test_a_sample_longer_than_the_budget_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match=r"long: 4 tokens do not fit a micro-batch of 3\n.*micro_batch_tokens.*4"):
        pack([SHORT, LONG], token_budget=3)


def test_no_samples_make_no_batches() -> None:
    assert pack([], token_budget=8) == []


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (replace(SHORT, target_mask=(False, False)), "dropped before packing"),
        (replace(SHORT, target_start=0, target_mask=None), "nothing to be predicted from"),
        (replace(SHORT, advantages=None), "the same streams"),
    ],
)
def test_broken_samples_do_not_get_through(broken: Sample, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        pack([LONG, broken], token_budget=9)


def test_counts_are_of_targets_and_of_sequences_that_have_some() -> None:
    empty = replace(SHORT, id="none", target_mask=(False, False))
    assert [num_targets(s) for s in (LONG, SHORT, empty)] == [2, 1, 0]
    assert count([LONG, SHORT, empty]) == Counts(tokens=3, sequences=2, units=2)


@pytest.mark.parametrize(("multiple", "expected"), [(1, 1), (2, 2), (3, 3), (4, 4)])
def test_ranks_that_share_the_work_get_as_many_batches_each(multiple: int, expected: int) -> None:
    samples = [replace(LONG, id=str(i), tokens=(i, *LONG.tokens[1:])) for i in range(5)]
    batches = pack(samples, token_budget=99, multiple=multiple)
    assert len(batches) == expected
    assert sorted(name for batch in batches for name in batch.ids) == ["0", "1", "2", "3", "4"]


def test_too_few_samples_for_the_ranks_are_not_split_further() -> None:
    assert len(pack([LONG, SHORT], token_budget=99, multiple=3)) == 2


def test_a_batch_moves_with_all_its_streams() -> None:
    (batch,) = pack([LONG, SHORT], token_budget=7)
    there = batch.to(torch.device("meta"))
    assert there.spans == batch.spans and there.ids == batch.ids and there.ref_logprobs_T is None
    moved = [value for value in asdict(there).values() if isinstance(value, torch.Tensor)]
    assert len(moved) == 10 and all(value.is_meta for value in moved)


def test_anchors_stand_beside_labels() -> None:
    (batch,) = pack([replace(s, anchor=n + 0.5) for n, s in enumerate(paired("a"))], token_budget=99)
    assert batch.anchors_S is not None and batch.anchors_S.tolist() == [0.5, 1.5]
    with pytest.raises(AssertionError, match="labels and anchors"):
        pack([LONG, replace(SHORT, anchor=0.5)], token_budget=99)


def paired(*names: str, size: int = 3) -> list[Sample]:
    """Both answers of every pair; the better one comes first."""
    return [
        Sample(id=f"{name}-{label}", tokens=(n, *range(size - label)), target_start=1, unit=name, label=float(label))
        for n, name in enumerate(names)
        for label in (1, 0)
    ]


def test_a_unit_stays_together_in_the_order_in_which_it_was_given() -> None:
    samples = paired("a", "b", "c")
    for budget in (6, 12, 99):
        batches = pack(samples[::2] + samples[1::2], token_budget=budget)
        assert [name for b in batches for name in b.ids] == [s.id for s in samples]
        for batch in batches:
            assert batch.unit_S.tolist() == [n // 2 for n in range(batch.num_sequences)]
            assert batch.labels_S is not None and batch.labels_S.tolist() == [1.0, 0.0] * (batch.num_sequences // 2)


def test_the_prompt_of_a_unit_counts_once_and_a_unit_that_does_not_fit_is_named() -> None:
    pack(paired("a", size=3), token_budget=1 + 3 + 2)
    with pytest.raises(DataError, match="a-1: 6 tokens do not fit a micro-batch of 5"):
        pack(paired("a", size=3), token_budget=5)


def test_splitting_for_ranks_cuts_between_units() -> None:
    batches = pack(paired("a", "b", "c"), token_budget=99, multiple=2)
    assert sorted(len(b.ids) for b in batches) == [2, 4]
    assert all(b.unit_S.bincount().tolist() == [2] * (len(b.ids) // 2) for b in batches)


def test_units_are_counted_once_and_samples_by_themselves_as_well() -> None:
    assert count([*paired("a", "b"), LONG]).units == 3
    hidden = replace(LONG, target_mask=(False, False))
    assert count([LONG, hidden]).units == 1


def test_the_model_reads_inputs_and_predicts_tokens() -> None:
    (batch,) = pack([replace(LONG, inputs=(10, 11, 99, 13), weights=(0.5, 2.0))], token_budget=7)
    assert batch.tokens_N.tolist() == [10, 11, 99]
    assert batch.targets_T.tolist() == [12, 13]
    assert batch.weights_T is not None and batch.weights_T.tolist() == [0.5, 2.0]


def test_rows_of_likeliest_tokens_stand_per_target() -> None:
    ids, logprobs = (((4, 5), (6, 7)), ((-0.1, -2.0), (-0.2, -3.0)))
    told = replace(LONG, topk_ids=ids, topk_logprobs=logprobs)
    masked = replace(SHORT, topk_ids=((8, 9),), topk_logprobs=((-0.3, -4.0),))
    (batch,) = pack([told, masked], token_budget=7)
    assert batch.topk_ids_TK is not None and batch.topk_logprobs_TK is not None
    assert batch.topk_ids_TK.tolist() == [[8, 9], [4, 5], [6, 7]] and batch.topk_ids_TK.dtype == torch.int64
    torch.testing.assert_close(batch.topk_logprobs_TK, torch.tensor([[-0.3, -4.0], [-0.1, -2.0], [-0.2, -3.0]]))
    with pytest.raises(AssertionError, match="for all targets, or none"):
        pack([told, SHORT], token_budget=7)

"""What holds for every loss of pairs, and for those of judged answers and of scores: gradients against finite
differences, what is left out, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pair_cases
import pytest
import torch
from batches import numeric_gradient, pack
from pair_cases import ALL, JUDGED, PAIRED, REFERENCED, Case

from rlhf.core.errors import DivergedError
from rlhf.core.training import Batch, Denominator, Labels, Stream
from rlhf.losses import pairs

COUNTS = [2, 1, 3, 2]
LOGPROBS = [-0.4, -1.2, -0.9, -0.3, -0.8, -2.1, -0.7, -1.6]
REF = [-0.5, -0.9, -1.1, -0.2, -1.3, -1.9, -0.4, -1.1]
every_case = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
every_pair = pytest.mark.parametrize("case", PAIRED, ids=lambda case: case.name)


def given(case: Case) -> tuple[Batch, list[float]]:
    """Two pairs, and what a model says of their targets."""
    if case in pair_cases.SCORED:
        return pair_cases.batch([1, 1, 1, 1], anchors=[0.6, 0.6, 0.0, 0.0]), [0.4, -0.2, -1.0, 0.3]
    return pair_cases.batch(COUNTS, ref=REF, anchors=[0.3] * 4), LOGPROBS


@every_case
def test_gradient_matches_finite_differences(case: Case) -> None:
    batch, numbers = given(case)

    def total(x_T: torch.Tensor) -> torch.Tensor:
        return case.module.loss(pair_cases.forward(case, x_T), batch, case.cfg).total

    x_T = pair_cases.leaf(*numbers)
    (got,) = torch.autograd.grad(total(x_T), x_T)
    assert torch.allclose(got, numeric_gradient(total, x_T.detach()), atol=1e-7) and got.abs().max() > 1e-3


@every_case
def test_the_order_of_the_two_answers_does_not_matter(case: Case) -> None:
    batch, numbers = given(case)
    places = torch.arange(batch.num_targets).split([int(n) for n in batch.target_counts_S])
    turned = [1, 0, 3, 2]
    order = torch.cat([places[s] for s in turned])
    other = replace(
        batch,
        ids=tuple(batch.ids[s] for s in turned),
        sequence_T=torch.repeat_interleave(torch.arange(4), batch.target_counts_S[turned].long()),
        target_counts_S=batch.target_counts_S[turned],
        labels_S=None if batch.labels_S is None else batch.labels_S[turned],
        anchors_S=None if batch.anchors_S is None else batch.anchors_S[turned],
        ref_logprobs_T=None if batch.ref_logprobs_T is None else batch.ref_logprobs_T[order],
    )
    x_T = torch.tensor(numbers, dtype=torch.float64)
    one = case.module.loss(pair_cases.forward(case, x_T), batch, case.cfg)
    two = case.module.loss(pair_cases.forward(case, x_T[order]), other, case.cfg)
    assert two.total.item() == pytest.approx(one.total.item(), rel=1e-12)
    assert pair_cases.values(two) == pytest.approx(pair_cases.values(one), rel=1e-12)


@every_case
def test_answers_of_one_token(case: Case) -> None:
    """Where there is one token, means are sums."""
    batch = pair_cases.batch([1, 1], ref=[-0.3, -0.4], anchors=[0.1, 0.1])
    x_T = pair_cases.leaf(-0.2, -1.1)
    out = case.module.loss(pair_cases.forward(case, x_T), batch, case.cfg)
    out.total.backward()
    assert x_T.grad is not None and x_T.grad.isfinite().all() and math.isfinite(out.total.item())


@every_case
def test_a_pair_without_targets_is_left_out(case: Case) -> None:
    batch, numbers = given(case)
    masks = [None, None, None, None, (False, False), (False,)]
    counts = [int(n) for n in batch.target_counts_S]
    ref = None if case in pair_cases.SCORED else [*REF, -1.0, -1.0, -1.0]
    anchors = [*(batch.anchors_S.tolist() if batch.anchors_S is not None else []), 0.3, 0.3]
    more = pair_cases.batch([*counts, 2, 1], ref=ref, anchors=anchors, masks=masks)
    x_T = torch.tensor(numbers, dtype=torch.float64)
    one = case.module.loss(pair_cases.forward(case, x_T), batch, case.cfg)
    two = case.module.loss(pair_cases.forward(case, x_T), more, case.cfg)
    assert two.total.item() == one.total.item() and two.metrics == one.metrics


@every_case
def test_a_batch_without_any_target_is_worth_nothing(case: Case) -> None:
    batch = pair_cases.batch([1, 1], ref=[-1.0, -1.0], anchors=[0.1, 0.1], masks=[(False,), (False,)])
    x_T = torch.zeros(0, dtype=torch.float64, requires_grad=True)
    out = case.module.loss(pair_cases.forward(case, x_T), batch, case.cfg)
    out.total.backward()
    assert out.total.item() == 0 and dict(out.metrics) == {}


@every_pair
def test_a_pair_with_targets_on_one_side_only_is_refused(case: Case) -> None:
    batch = pair_cases.batch([1, 1], ref=[-1.0, -1.0], masks=[None, (False,)])
    with pytest.raises(ValueError, match=r"of the pair \('q0/0', 'q0/1'\) only one answer has a target"):
        case.module.loss(pair_cases.said(-1.0), batch, case.cfg)


@every_case
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(case: Case, odd: float) -> None:
    batch, numbers = given(case)
    said = torch.tensor([*numbers[:1], odd, *numbers[2:]], dtype=torch.float64)
    with pytest.raises(DivergedError, match=rf"sample 'q0/.': the model's .* is {odd}"):
        case.module.loss(pair_cases.forward(case, said), batch, case.cfg)


@pytest.mark.parametrize("case", [*REFERENCED, *JUDGED], ids=lambda case: case.name)
def test_log_probs_of_the_reference_are_there_and_finite(case: Case) -> None:
    without = pair_cases.batch(COUNTS, anchors=[0.3] * 4)
    with pytest.raises(ValueError, match="has no ref_logprobs"):
        case.module.loss(pair_cases.said(*LOGPROBS), without, case.cfg)
    odd = pair_cases.batch(COUNTS, ref=[*REF[:-1], math.nan], anchors=[0.3] * 4)
    with pytest.raises(ValueError, match="ref_logprobs of sample 'q1/1' is nan at its target 1"):
        case.module.loss(pair_cases.said(*LOGPROBS), odd, case.cfg)


@every_pair
@pytest.mark.parametrize("labels", [[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.5, 0.5, 1.0, 0.0]])
def test_a_pair_has_one_better_answer(case: Case, labels: list[float]) -> None:
    batch = pair_cases.batch(COUNTS, ref=REF, labels=labels)
    with pytest.raises(ValueError, match="are no pairs of one better and one worse answer"):
        case.module.loss(pair_cases.said(*LOGPROBS), batch, case.cfg)


def test_answers_that_are_not_two_by_two_are_refused() -> None:
    four = pair_cases.samples(COUNTS)
    for odd in (
        four[:3],
        [replace(s, unit="q0") for s in four],
        [four[1], four[2]],
        [replace(s, unit=None) for s in four],
    ):
        with pytest.raises(ValueError, match="are no pairs"):
            pairs.places(pack(odd))
    with pytest.raises(ValueError, match="has no labels"):
        pairs.places(pack([replace(s, label=None) for s in four]))


@every_case
def test_what_it_declares(case: Case) -> None:
    judged = case in JUDGED
    assert case.module.LABELS is (Labels.JUDGED if judged else Labels.PAIRS)
    assert case.module.denominator(case.cfg) is (Denominator.SEQUENCES if judged else Denominator.UNITS)
    needs = case in REFERENCED or judged
    assert (Stream.REF_LOGPROBS in case.module.streams(case.cfg)) == needs
    assert not case.module.zero_advantage_is_free(case.cfg)


@pytest.mark.parametrize("case", REFERENCED, ids=lambda case: case.name)
def test_readings_have_the_names_that_users_know(case: Case) -> None:
    batch, numbers = given(case)
    found = pair_cases.values(case.module.loss(pair_cases.said(*numbers), batch, case.cfg))
    names = {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen"}
    assert names | {"logps/rejected", "logps/chosen_drift", "logps/rejected_drift", "train/entropy"} <= set(found)
    # Sums over the answers (-1.6, -0.9), (-3.2, -2.3) less (-1.4, -1.1), (-3.4, -1.5) of the reference.
    expected = {"logps/chosen": -2.4, "logps/rejected": -1.6, "logps/chosen_drift": 0.0, "logps/rejected_drift": -0.3}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found["rewards/margins"] == pytest.approx(found["rewards/chosen"] - found["rewards/rejected"])


@pytest.mark.parametrize("case", [*PAIRED, *JUDGED], ids=lambda case: case.name)
def test_weights_multiply_what_each_token_is_worth(case: Case) -> None:
    """To the policy, and to the reference; lengths stay."""
    batch, numbers = given(case)
    assert batch.ref_logprobs_T is not None
    weights_T = torch.tensor([1.0, 3.0, 0.5, 1.0, 2.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    said = torch.tensor(numbers, dtype=torch.float64)
    got = case.module.loss(pair_cases.forward(case, said), replace(batch, weights_T=weights_T), case.cfg)
    scaled = replace(batch, ref_logprobs_T=weights_T * batch.ref_logprobs_T)
    want = case.module.loss(pair_cases.forward(case, weights_T * said), scaled, case.cfg)
    assert got.total.item() == pytest.approx(want.total.item(), rel=1e-12)
    plain = case.module.loss(pair_cases.forward(case, said), batch, case.cfg)
    assert got.total.item() != pytest.approx(plain.total.item(), rel=1e-6)


@pytest.mark.parametrize("change", [{"beta": 0.0}, {"beta": math.inf}, {"beta": -1.0}])
def test_a_beta_that_means_nothing_is_refused(change: dict[str, Any]) -> None:
    for case in [*REFERENCED, *JUDGED, pair_cases.FREE[-2]]:
        with pytest.raises(ValueError, match="beta"):
            type(case.cfg)(**change)

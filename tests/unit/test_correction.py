"""What a loss does about samples of another policy: every rule by hand, alone and together, and what is reported."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from batches import targets
from torch import Tensor

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import merge, values
from rlhf.losses import common, correction
from rlhf.losses.correction import Correction

# Two answers; weights exp(old - rollout) of their tokens, whose products are 2 and 1/8.
COUNTS = (2, 3)
WEIGHTS = [0.5, 4.0, 0.25, 0.5, 1.0]
OLD = [-1.0, -2.0, -0.5, -3.0, -1.5]
ROLLOUT = [old - math.log(w) for old, w in zip(OLD, WEIGHTS, strict=True)]
MEANS = [math.sqrt(2)] * 2 + [0.5] * 3


def factors(
    cfg: Correction,
    *,
    new: Sequence[float] = OLD,
    rollout: Sequence[float] = ROLLOUT,
    advantages: Sequence[float] = (1.0,) * 5,
) -> tuple[list[float], dict[str, float]]:
    def tensor(x: Sequence[float]) -> Tensor:
        return torch.tensor(x, dtype=torch.float64)

    found, readings = correction.factors(
        cfg,
        targets(COUNTS),
        new_T=tensor(new).requires_grad_(),
        old_T=tensor(OLD),
        rollout_T=tensor(rollout),
        advantages_T=tensor(advantages),
    )
    assert not found.requires_grad
    return found.tolist(), values(common.measure(readings))


def near(expected: Sequence[float]) -> object:
    return pytest.approx(list(expected), abs=1e-12)


def test_token_weights_are_truncated_from_above() -> None:
    found, read = factors(Correction())
    assert found == near([0.5, 2.0, 0.25, 0.5, 1.0])
    assert read == pytest.approx(
        {
            "rollout_corr/is_truncated_fraction": 1 / 5,
            "rollout_corr/rollout_is_mean": 4.25 / 5,
            "rollout_corr/rollout_is_squared_mean": (0.25 + 4 + 0.0625 + 0.25 + 1) / 5,
            "rollout_corr/rollout_is_min": 0.25,
        }
    )


def test_a_sequence_weight_is_the_product_of_its_tokens() -> None:
    found, read = factors(Correction(tis_level="sequence", tis_cap=1.5))
    assert found == near([1.5, 1.5, 0.125, 0.125, 0.125])
    assert read["rollout_corr/is_truncated_fraction"] == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("rule", "lost", "share"),
    [
        ({"token_mask": [0.3, 3.0]}, [1, 2], "token"),
        ({"sequence_mask": [0.5, 3.0]}, [2, 3, 4], "sequence"),
        ({"geometric_mask": [0.6, 1.2]}, [0, 1, 2, 3, 4], "geometric"),
        ({"geometric_mask": [0.6, 1.5]}, [2, 3, 4], "geometric"),
    ],
)
def test_masks_leave_out_what_is_outside_their_range(rule: dict[str, list[float]], lost: list[int], share: str) -> None:
    found, read = factors(Correction(tis_cap=None, **rule))
    assert found == [float(t not in lost) for t in range(5)]
    assert read[f"rollout_corr/{share}_masked_fraction"] == len(lost) / 5
    weighed, _ = factors(Correction(tis_cap=100.0, **rule))
    assert weighed == near([0.0 if t in lost else WEIGHTS[t] for t in range(5)])


def test_the_geometric_mask_does_not_mind_length_where_the_product_does() -> None:
    counts, gap = (4, 400), math.log(1.01)
    batch, old = targets(counts), torch.zeros(sum(counts), dtype=torch.float64)
    given = {"new_T": old, "old_T": old, "rollout_T": old - gap, "advantages_T": old}
    by_mean, _ = correction.factors(Correction(tis_cap=None, geometric_mask=[0.9, 1.1]), batch, **given)
    by_product, _ = correction.factors(Correction(tis_cap=None, sequence_mask=[0.5, 2.0]), batch, **given)
    assert by_mean.tolist() == [1.0] * 404
    assert by_product.tolist() == [1.0] * 4 + [0.0] * 400


def test_a_bad_answer_that_the_policy_has_left_is_not_pushed_away_further() -> None:
    # From the sampler to the new weights: the first answer lost 0.5 nats a token, the second 0.1.
    new = [r - 0.5 for r in ROLLOUT[:2]] + [r - 0.1 for r in ROLLOUT[2:]]
    cfg = Correction(tis_cap=None, negative_max_kl=0.3)
    found, read = factors(cfg, new=new, advantages=[-1.0] * 5)
    assert found == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert read["rollout_corr/negative_masked_fraction"] == 2 / 5
    assert factors(cfg, new=new)[0] == [1.0] * 5, "what did well is kept"
    assert factors(cfg, new=new, advantages=[-1.0, 0.0, -1.0, -1.0, -1.0])[0] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert factors(cfg, new=[r + 9.0 for r in ROLLOUT], advantages=[-1.0] * 5)[0] == [1.0] * 5, "it came nearer"


def test_rules_multiply() -> None:
    cfg = Correction(token_mask=[0.3, 5.0], sequence_mask=[0.1, 3.0], geometric_mask=[0.4, 1.5])
    found, read = factors(cfg)
    assert found == near([0.5, 2.0, 0.0, 0.5, 1.0])
    shares = {name: read[f"rollout_corr/{name}_masked_fraction"] for name in ("token", "sequence", "geometric")}
    assert shares == {"token": 0.2, "sequence": 0.0, "geometric": 0.0}


def test_the_sampler_s_own_policy_is_left_as_it_is() -> None:
    cfg = Correction(tis_level="sequence", token_mask=[0.9, 1.1], geometric_mask=[0.999, 1.001], negative_max_kl=0.1)
    assert factors(cfg, rollout=OLD, advantages=[-1.0] * 5)[0] == [1.0] * 5


def test_absurd_gaps_stay_finite() -> None:
    found, _ = factors(Correction(tis_level="sequence", tis_cap=5.0), rollout=[-900.0, *OLD[1:3], 0.0, -1.5])
    assert found[:2] == [5.0, 5.0] and all(0 < x < 1 for x in found[2:])


def test_it_looks_at_the_sampler_when_any_rule_is_on() -> None:
    assert Correction().on and not Correction(tis_cap=None).on
    for name in ("token_mask", "sequence_mask", "geometric_mask"):
        assert Correction(tis_cap=None, **{name: [0.5, 2.0]}).on
    assert Correction(tis_cap=None, negative_max_kl=0.5).on


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tis_cap", 0.0),
        ("tis_cap", math.nan),
        ("tis_level", "tokens"),
        ("negative_max_kl", 0.0),
        ("negative_max_kl", math.inf),
        ("token_mask", [0.5]),
        ("token_mask", [0.5, 1.0, 2.0]),
        ("sequence_mask", [2.0, 0.5]),
        ("sequence_mask", [-0.1, 2.0]),
        ("geometric_mask", [1.0, 2.0]),
        ("geometric_mask", [math.nan, 2.0]),
    ],
)
def test_impossible_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Correction(**{field: value})
    assert caught.value.where == field


def test_mismatch_by_hand() -> None:
    old = torch.tensor([math.log(0.5), math.log(0.9)], dtype=torch.float64)
    rollout = torch.tensor([math.log(0.25), math.log(0.9)], dtype=torch.float64)
    got = values(common.measure(correction.mismatch(old, rollout)))
    assert got == pytest.approx(
        {
            "rollout_corr/kl": -math.log(2) / 2,
            "rollout_corr/k3_kl": (2 - 1 - math.log(2)) / 2,
            "rollout_corr/chi2_token": (4 + 1) / 2 - 1,
            "training/rollout_probs_diff_mean": 0.125,
            "training/rollout_probs_diff_max": 0.25,
            "training/rollout_logprobs_diff_mean": math.log(2) / 2,
            "training/rollout_logprobs_diff_max": math.log(2),
        }
    )


def test_the_effective_sample_size_is_that_of_the_whole_step() -> None:
    """Kish's formula on all tokens; a mean over micro-batches of their own sizes would be another number."""
    old, rollout = torch.tensor([0.0, -1.0, -0.5, -2.0]), torch.tensor([-0.5, -1.0, -2.5, -2.1])
    weights = (old - rollout).exp().clamp(max=2.0)

    def part(i: int, j: int) -> object:
        given = {"new_T": old[i:j], "old_T": old[i:j], "rollout_T": rollout[i:j], "advantages_T": old[i:j]}
        return common.measure(correction.factors(Correction(), targets([j - i]), **given)[1])

    got = values(correction.effective_sample_size(merge([part(0, 1), part(1, 4)])))  # type: ignore[list-item]
    expected = float(weights.sum() ** 2 / (4 * weights.square().sum()))
    assert got == pytest.approx({"rollout_corr/rollout_is_eff_sample_size": expected}, rel=1e-6)
    assert expected < 0.99
    assert correction.effective_sample_size(common.measure(correction.mismatch(old, rollout))) == {}

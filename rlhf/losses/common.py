"""What losses share: aggregation, KL estimators, ratios, sums over sequences, and readings turned into metrics.

Every loss is a sum over tokens. How they are averaged is decided by what one token weighs in that sum, here, and by
one division by a global count, in the learner (`divisor`). This table is the only place that says which is which:

    aggregate   weight of a token's loss        divided by    known from
    token       1                               tokens        DAPO (arXiv 2503.14476), verl and TRL default
    sequence    1 / targets of its sequence     sequences     GRPO (arXiv 2402.03300)
    constant    1 / constant_length             sequences     Dr.GRPO (arXiv 2503.20783)

So `Denominator.CONSTANT` counts sequences, like SEQUENCES: the loss has already divided by the length. TRL's `dr_grpo`
is the same; verl's `seq-mean-token-sum-norm` lacks the division by sequences. A mean of micro-batch means appears
nowhere, hence gradients do not depend on micro-batches, packing or ranks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from rlhf.core.errors import ConfigError, DivergedError, did_you_mean
from rlhf.core.metrics import Max, Mean, Metric, Min
from rlhf.core.protocols import Counts
from rlhf.core.training import Batch, Denominator, Stream

DENOMINATORS: Mapping[str, Denominator] = {
    "token": Denominator.TOKENS,
    "sequence": Denominator.SEQUENCES,
    "constant": Denominator.CONSTANT,
}
"""The choices for an `aggregate` field and what each is divided by."""

KL_ESTIMATORS = ("k1", "k2", "k3", "k1+", "k3+")
"""The choices of `kl`."""

LOG_RATIO_BOUND = 20.0
"""Log-ratios are kept within ± this before `exp`, as in verl and TRL."""

K3_BOUNDS = (-10.999983298020256, 2.610868638149876)
"""The log-ratios at which k3 reaches 10, the value at which verl and TRL cut it off."""

Reading: TypeAlias = "tuple[type[Mean] | type[Max] | type[Min], Tensor]"
"""How to reduce a per-token quantity, and the quantity [T]."""


def check_choice(field: str, value: str, choices: Collection[str]) -> None:
    """Refuse a config value that is not one of the choices, naming the field and the nearest choice."""
    if value not in choices:
        raise ConfigError(field, f"'{value}' is not one of the choices", fix=did_you_mean(value, choices))


def divisor(denominator: Denominator, counts: Counts) -> int:
    """The global count that the learner divides a sum of losses by, once per update."""
    if denominator is Denominator.UNITS:
        return counts.units
    return counts.tokens if denominator is Denominator.TOKENS else counts.sequences


def weighed(loss_T: Tensor, batch: Batch, how: str, *, constant_length: int = 0) -> Tensor:
    """What each token adds to the sum of the module docstring [T]; `how` is a key of `DENOMINATORS`."""
    if how == "token":
        return loss_T
    if how == "sequence":
        return loss_T / batch.target_counts_S[batch.sequence_T]
    assert how == "constant" and constant_length > 0, "a loss Config lets only valid aggregates through"
    return loss_T / constant_length


def aggregate(loss_T: Tensor, batch: Batch, how: str, *, constant_length: int = 0) -> Tensor:
    """The sum of `weighed`."""
    return weighed(loss_T, batch, how, constant_length=constant_length).sum()


def stream(batch: Batch, which: Stream) -> Tensor:
    """A stream of the batch that the loss declared [T].

    Raises:
        ValueError: the batch was packed without it.
    """
    found = _streams(batch).get(which)
    if found is None:
        raise ValueError(f"the batch of samples {batch.ids} has no {which}, which its loss declares in `streams`")
    return found


def check_finite(batch: Batch, logprobs_T: Tensor | None = None) -> None:
    """Refuse nan and infinite values in any stream; replacing them by zeros would train on invented numbers.

    Args:
        logprobs_T: of the model; a bounded ratio would hide that they are infinite.

    Raises:
        ValueError: names the sample, its target, and the stream; a `DivergedError` if it is the model's.
    """
    present = {str(which): x_T for which, x_T in _streams(batch).items() if x_T is not None}
    if logprobs_T is not None:
        present["logprobs"] = logprobs_T.detach()
    if not present:
        return
    finite = torch.stack([x_T.isfinite() for x_T in present.values()])
    if bool(finite.all()):
        return
    t = int((~finite).any(dim=0).nonzero()[0])
    which, value = next((which, float(x_T[t])) for which, x_T in present.items() if not x_T[t].isfinite())
    sequence = int(batch.sequence_T[t])
    target = int((batch.sequence_T[:t] == sequence).sum())
    if which == "logprobs":
        where = f"sample '{batch.ids[sequence]}'"
        raise DivergedError(where, f"the model's log-prob of its target {target}, counted from 0, is {value}")
    raise ValueError(f"{which} of sample '{batch.ids[sequence]}' is {value} at its target {target}, counted from 0")


def bounded_exp(log_ratio_T: Tensor) -> Tensor:
    """`exp` of a log-ratio kept within its bound; beyond it there is no gradient."""
    return log_ratio_T.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()


def ratio(logprobs_T: Tensor, base_logprobs_T: Tensor) -> Tensor:
    """`exp(logprobs - base)` with a bounded exponent."""
    return bounded_exp(logprobs_T - base_logprobs_T)


def sequence_sum(x_T: Tensor, batch: Batch) -> Tensor:
    """For each token the sum over all tokens of its sequence [T]; the same on any device, in any order of sequences."""
    lengths_S = batch.target_counts_S.long()
    # On other devices the check of the lengths would make the host wait.
    unsafe = x_T.device.type != "cpu"
    sums_S = torch.segment_reduce(x_T, "sum", lengths=lengths_S, initial=0, unsafe=unsafe)
    return sums_S[batch.sequence_T]


def sequence_mean(x_T: Tensor, batch: Batch) -> Tensor:
    """For each token the mean over all tokens of its sequence [T]."""
    return sequence_sum(x_T, batch) / batch.target_counts_S[batch.sequence_T]


def kl(logprobs_T: Tensor, ref_logprobs_T: Tensor, *, estimator: str) -> Tensor:
    """Per-token estimate of KL(policy || reference), for tokens that the policy sampled [T].

    With `log r = ref - logprobs` (Schulman 2020, http://joschu.net/blog/kl-approx.html), and the expected gradient of
    each as a loss, prefixes taken as given (Tang and Munos 2025, arXiv 2506.09477):

        k1 = -log r             unbiased, high variance     zero: it does nothing as a loss, only as a reward
        k2 = (log r)^2 / 2      biased                      exactly that of KL(policy || reference)
        k3 = r - 1 - log r      unbiased, never negative    that of KL(reference || policy)
        k1+, k3+                the value of k1, of k3      that of k2

    The last two are straight-through, as with a `+` in verl's `kl_loss_type`; TRL gets the gradient of k2 on-policy by
    multiplying k3 with the ratio (`use_bias_correction_kl`).

    Bounds limit the value (log r to ±20, k3 to 10) but, unlike in verl and TRL, keep the gradient at the bound:
    otherwise the tokens that have drifted furthest would be the ones that nothing pulls back.
    """
    if estimator.endswith("+"):
        value_T = kl(logprobs_T, ref_logprobs_T, estimator=estimator[:-1])
        through_T = kl(logprobs_T, ref_logprobs_T, estimator="k2")
        return through_T + (value_T - through_T).detach()
    log_ratio_T = ref_logprobs_T - logprobs_T
    if estimator == "k1":
        return -_bound(log_ratio_T, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    if estimator == "k2":
        return 0.5 * _bound(log_ratio_T, -LOG_RATIO_BOUND, LOG_RATIO_BOUND).square()
    assert estimator == "k3", "a loss Config lets only known estimators through"
    log_ratio_T = _bound(log_ratio_T, *K3_BOUNDS)
    return log_ratio_T.expm1() - log_ratio_T


def measure(readings: Mapping[str, Reading]) -> dict[str, Metric]:
    """Reduce all readings on the device and copy them to the host together; a batch without targets gives none."""
    taken = {name: reading for name, reading in readings.items() if reading[1].numel()}
    if not taken:
        return {}
    with torch.no_grad():
        # One copy for everything: each `item()` would make the host wait for the device.
        reduced = torch.stack([_reduce(kind, x_T) for kind, x_T in taken.values()]).cpu()
    return {
        name: kind(float(value), x_T.numel()) if issubclass(kind, Mean) else kind(float(value))
        for value, (name, (kind, x_T)) in zip(reduced, taken.items(), strict=True)
    }


def _streams(batch: Batch) -> dict[Stream, Tensor | None]:
    return {
        Stream.ADVANTAGES: batch.advantages_T,
        Stream.OLD_LOGPROBS: batch.old_logprobs_T,
        Stream.ROLLOUT_LOGPROBS: batch.rollout_logprobs_T,
        Stream.REF_LOGPROBS: batch.ref_logprobs_T,
        Stream.VALUES: batch.values_T,
        Stream.RETURNS: batch.returns_T,
        Stream.WEIGHTS: batch.weights_T,
    }


def _bound(x_T: Tensor, low: float, high: float) -> Tensor:
    """The clamped value, with the gradient of the unclamped one."""
    return x_T + (x_T.clamp(low, high) - x_T).detach()


def _reduce(kind: type[Mean] | type[Max] | type[Min], x_T: Tensor) -> Tensor:
    reduced = x_T.sum() if kind is Mean else x_T.amax() if kind is Max else x_T.amin()
    return reduced.double()

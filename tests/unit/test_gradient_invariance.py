"""The gradient of one update does not depend on how its sequences are cut into micro-batches, ordered, or shared out.

Every loss in `rlhf/losses`, found there, with every aggregate and every option below that its Config has: the sum over
micro-batches, divided once by the global count, against one batch of all sequences. Means of micro-batch means would
fail here. Losses that compare answers with each other have their cases in `pair_cases`, for `test_pair_invariance`.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import pair_cases
import pytest
import torch
import torch.distributed as dist
from batches import TinyModel, pack
from torch import Tensor

from rlhf.core import component
from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Metric, merge, values
from rlhf.core.modules import LossModule
from rlhf.core.protocols import Counts
from rlhf.core.training import Head, Sample, Stream
from rlhf.learner.world import World
from rlhf.losses import common
from rlhf.losses.correction import Correction

VOCAB = 6


@dataclass(frozen=True)
class Case:
    """One loss with one config."""

    name: str
    module: Any
    cfg: Any


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "k1": {"kl_coef": 0.3, "kl_estimator": "k1"},
    "k2": {"kl_coef": 0.3, "kl_estimator": "k2"},
    "k3": {"kl_coef": 0.3, "kl_estimator": "k3"},
    "k3+": {"kl_coef": 0.3, "kl_estimator": "k3+"},
    "entropy": {"entropy_coef": 0.2},
    "no_weights": {"correction": Correction(tis_cap=None)},
    "sequence_tis": {"correction": Correction(tis_cap=3.0, tis_level="sequence")},
    "token_mask": {"correction": Correction(token_mask=[0.3, 3.0])},
    "sequence_mask": {"correction": Correction(tis_cap=None, sequence_mask=[0.02, 50.0])},
    "geometric_mask": {"correction": Correction(geometric_mask=[0.5, 2.0])},
    "negative_mask": {"correction": Correction(negative_max_kl=0.2)},
    "dual_clip": {"dual_clip": 1.5},
    "no_clip": {"clip": None},
    "wide_clip": {"clip_low": 0.3, "clip_high": 0.5},
    "per_token": {"form": "token"},
    "bad_weight": {"bad_weight": 1.7},
    "paper": {"form": "paper"},
    "detached": {"form": "released_detached"},
    "no_beta": {"beta": 0.0},
    "no_tail": {"tail": False},
}
"""By name, fields of a Config that it may have."""


def cases_of(name: str) -> Iterator[Case]:
    """A loss as it is by default with every aggregate, and with every option that it has."""
    module = component.resolve("rlhf.losses", name, where="loss")
    fields = {field.name for field in dataclasses.fields(module.Config)}
    length = {"constant_length": 9} if "constant_length" in fields else {}
    for how in common.DENOMINATORS if "aggregate" in fields else ():
        try:
            yield Case(f"{name}-{how}-plain", module, module.Config(aggregate=how, **length))
        except ConfigError:
            continue
    for option, changed in OPTIONS.items():
        try:
            if changed and changed.keys() <= fields:
                yield Case(f"{name}-{option}", module, module.Config(**changed))
        except ConfigError:
            continue
    if "aggregate" not in fields:
        yield Case(f"{name}-plain", module, module.Config())


COMPARING = {case.module.__name__.rsplit(".", 1)[-1] for case in pair_cases.ALL}
CASES = [case for name in component.names("rlhf.losses") if name not in COMPARING for case in cases_of(name)]


def make_samples(*, with_old: bool) -> list[Sample]:
    """Eight sequences of very unequal length; one has a hole in its targets, one has no target at all."""
    rng, critic, weigher, rng_k = (random.Random(seed) for seed in (7, 8, 9, 10))
    samples: list[Sample] = []
    for i, count in enumerate([1, 9, 2, 5, 1, 12, 4, 3]):

        def draw(count: int = count) -> tuple[float, ...]:
            return tuple(rng.uniform(-3.0, -0.5) for _ in range(count))

        mask = {3: (True, False, False, True, True), 7: (False, False, False)}.get(i)
        likeliest = tuple(rng_k.sample(range(VOCAB), 3) for _ in range(count if mask is None else sum(mask)))
        samples.append(
            Sample(
                id=f"s{i}",
                tokens=tuple(rng.randrange(VOCAB) for _ in range(2 + count)),
                target_start=2,
                target_mask=mask,
                advantages=(rng.choice([-1.5, 0.0, 0.7]),) * count,
                old_logprobs=draw() if with_old else None,
                rollout_logprobs=draw(),
                ref_logprobs=draw(),
                weights=tuple(weigher.uniform(0.0, 2.0) for _ in range(count)),
                topk_ids=tuple(map(tuple, likeliest)),
                topk_logprobs=((-0.5, -1.5, -3.0),) * len(likeliest),
                values=tuple(critic.uniform(-0.5, 0.5) for _ in range(count)),
                returns=tuple(critic.random() for _ in range(count)),
            )
        )
    return samples


def count(samples: Sequence[Sample]) -> Counts:
    """What the learner counts: targets, sequences that have any, and units, of which each sequence here is one."""
    targets = [len(s.tokens) - s.target_start if s.target_mask is None else sum(s.target_mask) for s in samples]
    sequences = sum(n > 0 for n in targets)
    return Counts(tokens=sum(targets), sequences=sequences, units=sequences)


@dataclass(frozen=True)
class Update:
    """What one update computes."""

    loss: float
    gradients: list[Tensor]
    metrics: dict[str, Metric]


def update(case: Case, micro_batches: Sequence[Sequence[Sample]], counts: Counts) -> Update:
    """Accumulate over micro-batches and divide once, as the learner does."""
    module = cast(LossModule, case.module)
    model = TinyModel(vocab=VOCAB)
    says = model if vars(case.module).get("HEAD", Head.LOGITS) is Head.LOGITS else model.values
    total, metrics = 0.0, []
    for samples in micro_batches:
        batch = pack(samples)
        out = module.loss(says(batch), batch, case.cfg)
        scaled = out.total / common.divisor(module.denominator(case.cfg), counts)
        scaled.backward()
        total += scaled.item()
        metrics.append(out.metrics)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return Update(total, gradients, merge(metrics))


def assert_same(got: Update, whole: Update) -> None:
    assert got.loss == pytest.approx(whole.loss, rel=1e-9, abs=1e-12)
    assert values(got.metrics) == pytest.approx(values(whole.metrics), rel=1e-9, abs=1e-12)
    for a, b in zip(got.gradients, whole.gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def partitions(samples: list[Sample]) -> list[list[list[Sample]]]:
    """One sample each, a lopsided cut, the other way round, and a random order with random cuts."""
    rng = random.Random(1)
    order = rng.sample(samples, len(samples))
    cuts = [0, *sorted(rng.sample(range(1, len(order)), 3)), len(order)]
    at_random = [order[a:b] for a, b in itertools.pairwise(cuts)]
    return [[[s] for s in samples], [samples[:1], samples[1:]], [samples[::-1]], at_random]


@pytest.mark.parametrize(
    ("case", "with_old"),
    [*((case, True) for case in CASES), *((case, False) for case in CASES if case.name.endswith("-plain"))],
    ids=lambda value: value.name if isinstance(value, Case) else "old" if value else "no_old",
)
def test_micro_batches_and_packing_order_change_nothing(case: Case, with_old: bool) -> None:
    samples = make_samples(with_old=with_old)
    counts = count(samples)
    whole = update(case, [samples], counts)
    assert max(g.abs().max().item() for g in whole.gradients) > 1e-3
    for micro_batches in partitions(samples):
        assert_same(update(case, micro_batches, counts), whole)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mean_of_micro_batch_means_would_be_noticed(case: Case) -> None:
    samples = make_samples(with_old=True)
    whole = update(case, [samples], count(samples))
    parts = [samples[:1], samples[1:]]
    means = [update(case, [part], count(part)) for part in parts]
    averaged = [(a + b) / 2 for a, b in zip(means[0].gradients, means[1].gradients, strict=True)]
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(averaged, whole.gradients, strict=True))


Ranks = Callable[[Case, Sequence[Sequence[Sequence[Sample]]], Counts], list[Update]]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    """An update by two ranks of gloo, each in a thread of its own; returns what each of them ends up with."""
    store, of_thread = dist.HashStore(), threading.local()

    def join(rank: int) -> None:
        of_thread.group = dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=20))

    def one(rank: int, case: Case, own: Sequence[Sequence[Sample]], counts: Counts) -> Update:
        found = update(case, own, counts)
        World(rank=rank, size=2, device=torch.device("cpu")).add_up(found.gradients)
        return found

    def run(case: Case, shares: Sequence[Sequence[Sequence[Sample]]], counts: Counts) -> list[Update]:
        began = [thread.submit(one, rank, case, shares[rank], counts) for rank, thread in enumerate(threads)]
        return [work.result(timeout=30) for work in began]

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        patch.setattr(dist, "all_reduce", lambda tensor: of_thread.group.allreduce([tensor]).wait())
        threads = [first, second]
        for work in [thread.submit(join, rank) for rank, thread in enumerate(threads)]:
            work.result(timeout=30)
        yield run


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_ranks_change_nothing(case: Case, ranks: Ranks) -> None:
    samples = make_samples(with_old=True)
    whole = update(case, [samples], count(samples))
    shares = [[samples[1:2], samples[4:8]], [[samples[2], samples[0]], [samples[3]]]]
    found = ranks(case, shares, count(samples))
    for update_of_rank in found:
        together = sum(part.loss for part in found), merge(part.metrics for part in found)
        assert_same(Update(together[0], update_of_rank.gradients, together[1]), whole)


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if Stream.ADVANTAGES in c.module.streams(c.cfg)],
    ids=lambda case: case.name,
)
def test_zero_advantage_is_free_keeps_its_word(case: Case) -> None:
    """Sequences without a signal may be skipped exactly when the loss says so, their count staying in the divisor."""
    samples = make_samples(with_old=True)
    counts = count(samples)
    skipped = [s for s in samples if any(s.advantages or ())]
    assert len(skipped) < len(samples)
    a, b = update(case, [samples], counts), update(case, [skipped], counts)
    same = all(torch.allclose(x, y, rtol=1e-9, atol=1e-12) for x, y in zip(a.gradients, b.gradients, strict=True))
    assert same == case.module.zero_advantage_is_free(case.cfg)


def test_sequences_do_not_see_each_other() -> None:
    """Guards the stand-in model: a sequence's log-probs are the same alone and packed."""
    samples = [replace(s, old_logprobs=None) for s in make_samples(with_old=False)]
    model = TinyModel(vocab=VOCAB)
    alone = torch.cat([model(pack([s])).logprobs_T for s in samples])
    assert torch.allclose(model(pack(samples)).logprobs_T, alone, rtol=0, atol=1e-15)


def test_options_are_tried() -> None:
    """An option that no loss has any more is a misspelt one."""
    tried = {case.name.rpartition("-")[2] for case in CASES}
    assert tried == set(OPTIONS)
    assert {case.name.split("-")[0] for case in CASES} | COMPARING == set(component.names("rlhf.losses"))

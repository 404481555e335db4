"""What losses ask of a reference: with every batch or once, in a file; and the KL from answers to other questions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from batches import TinyModel, pack
from torch import Tensor

from rlhf.core.config import build
from rlhf.core.errors import ConfigError
from rlhf.core.run_folder import RunFolder
from rlhf.core.sampling import Transforms
from rlhf.core.training import Batch, Sample, Stream
from rlhf.loops import offline, reference, references
from rlhf.loops.references import References, Units
from rlhf.loops.stage import LearnerRequest, Stage

VOCAB = 6


class Model:
    """A small model behind a learner's handle; counts how often it is asked, and whether it was given back."""

    ranks = 1

    def __init__(self, seed: int) -> None:
        self.model = TinyModel(vocab=VOCAB, seed=seed)
        self.asked, self.closed = 0, False

    async def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        assert not self.closed
        self.asked += 1
        with torch.no_grad():
            return [self.model(batch).logprobs_T.float() for batch in batches]

    async def close(self) -> None:
        self.closed = True


class Recorder:
    def phase(self, name: str) -> Any:
        return contextlib.nullcontext()


def stage(folder: Path, made: list[Model]) -> Stage:
    """As much of a stage as this needs."""

    async def spawn(request: Any) -> Model:
        made.append(Model(seed=1))
        return made[-1]

    parts: dict[str, Any] = dict.fromkeys(Stage.__dataclass_fields__)
    parts |= {"name": "dpo", "folder": RunFolder(folder), "spawn_reference": spawn, "recorder": Recorder()}
    return Stage(**parts)


def unit(n: int, *, mask: tuple[bool, ...] | None = None) -> list[Sample]:
    """A pair with a prompt of its own."""
    return [
        Sample(
            id=f"p{n}/{label}",
            tokens=(n % VOCAB, (n + 1) % VOCAB, *((n + k + label) % VOCAB for k in range(2 + label))),
            target_start=2,
            target_mask=None if mask is None else (*mask, True)[: 2 + label],
            unit=f"p{n}",
            label=float(label),
            anchor=0.25,
        )
        for label in (1, 0)
    ]


UNITS: list[list[Sample]] = [unit(n) for n in range(4)]


def config(loss: str, **more: Any) -> offline.Config:
    examples = "judged" if loss == "kto" else "pairs"
    return build(offline.Config, {"loss": {"name": loss}, "examples": {"name": examples}, **more})


def started(cfg: offline.Config, folder: Path, made: list[Model], draws: list[Units]) -> References:
    def drawn() -> Iterator[Units]:
        yield from draws

    async def start() -> References:
        made_for = stage(folder, made)
        if cfg.precompute_reference:
            return await references.once(cfg, made_for, drawn)
        if cfg.needs_reference:
            trained = cast(Any, Model(seed=2))
            request = LearnerRequest(cfg.loss, cfg.learner, Transforms(), cfg.steps)
            await reference.start(cfg.reference, made_for, trained, request)
        return references.beside(cfg, made_for)

    return asyncio.run(start())


def completed(found: References, units: Units, policy: Model) -> list[Sample]:
    return asyncio.run(found.completed(units, policy=cast(Any, policy)))


def test_a_loss_without_a_reference_gets_none(tmp_path: Path) -> None:
    made: list[Model] = []
    found = started(config("simpo"), tmp_path, made, [UNITS])
    samples = completed(found, UNITS, Model(seed=2))
    assert samples == [s for unit in UNITS for s in unit] and not made


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_both_ways_give_the_same_numbers(loss: str, tmp_path: Path) -> None:
    policy, made = Model(seed=2), list[Model]()
    online = started(config(loss), tmp_path, made, [])
    once = started(config(loss, precompute_reference=True), tmp_path, made, [UNITS[:2], UNITS[2:], UNITS])
    for units in (UNITS[:2], UNITS[2:]):
        assert completed(online, units, policy) == completed(once, units, policy), "the same batches, to the bit"
    for one, two in zip(completed(online, UNITS, policy), completed(once, UNITS, policy), strict=True):
        assert one.ref_logprobs is not None and two.ref_logprobs is not None
        assert one.ref_logprobs == pytest.approx(two.ref_logprobs, abs=1e-6)
        assert one.anchor == pytest.approx(two.anchor, abs=1e-6)


def test_what_was_computed_once_is_read_again_and_the_model_is_let_go(tmp_path: Path) -> None:
    policy, made = Model(seed=2), list[Model]()
    cfg = config("dpo", precompute_reference=True)
    first = completed(started(cfg, tmp_path, made, [UNITS]), UNITS, policy)
    assert len(made) == 1 and made[0].closed and made[0].asked == 1
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["dpo.reference.safetensors"]
    again = completed(started(cfg, tmp_path, made, []), UNITS, policy)
    assert again == first and len(made) == 1


def test_an_answer_is_asked_about_once_however_often_it_is_drawn(tmp_path: Path) -> None:
    made: list[Model] = []
    found = started(config("dpo", precompute_reference=True), tmp_path, made, [UNITS, UNITS[:2], UNITS])
    assert made[0].asked == 1 and len(found.known) == 8


def test_numbers_stand_where_the_targets_are(tmp_path: Path) -> None:
    units = [unit(0, mask=(False, True)), unit(1)]
    (first, *_) = completed(started(config("dpo"), tmp_path, [], []), units, Model(seed=2))
    assert first.ref_logprobs is not None and len(first.ref_logprobs) == 3
    assert first.ref_logprobs[0] == 0.0 and first.ref_logprobs[1] < 0 and first.ref_logprobs[2] < 0


def test_each_question_gets_the_answer_of_the_one_before() -> None:
    crossed = references.crossed(UNITS[:3])
    assert [s.id for s in crossed[:2]] == ["p0/1/crossed", "p0/0/crossed"]
    for n, (prompt, answer) in enumerate([(0, 2), (1, 0), (2, 1)]):
        for k in range(2):
            asked, given = UNITS[prompt][k], UNITS[answer][k]
            assert crossed[2 * n + k].tokens == asked.tokens[:2] + given.tokens[2:]


def test_the_kl_is_one_number_for_all_and_never_negative(tmp_path: Path) -> None:
    found = started(config("kto"), tmp_path, made := list[Model](), [])
    policy = Model(seed=2)
    strangers = references.crossed(UNITS)
    gained = sum(said(policy, s) - said(made[0], s) for s in strangers) / len(strangers)
    assert anchor(completed(found, UNITS, policy)) == pytest.approx(max(0.0, gained), abs=1e-6)
    assert anchor(completed(found, UNITS, Model(seed=1))) == 0.0, "a policy that is its reference"
    turned = References(asked=[Stream.REF_LOGPROBS, Stream.KL], token_budget=99, model=cast(Any, policy))
    lost = anchor(completed(turned, UNITS, made[0]))
    assert lost == pytest.approx(max(0.0, -gained), abs=1e-6), "what one has gained the other has lost"


def said(model: Model, sample: Sample) -> float:
    """The log-prob of an answer."""
    return model.model(pack([sample])).logprobs_T.sum().item()


def anchor(samples: Sequence[Sample]) -> float:
    """The one that all of them have."""
    [found] = {s.anchor for s in samples}
    assert found is not None
    return found


def test_the_kl_does_not_depend_on_micro_batches(tmp_path: Path) -> None:
    policy = Model(seed=2)
    policy = Model(seed=2)
    found = [
        anchor(completed(started(config("kto", learner={"micro_batch_tokens": n}), tmp_path, [], []), UNITS, policy))
        for n in (5, 8, 1000)
    ]
    assert found == pytest.approx([found[0]] * 3, abs=1e-6) and found[0] > 0


def test_what_makes_no_sense_is_refused() -> None:
    for more in ({}, {"reference": {"every": 3}}, {"learner": {"trainable": {"name": "lora"}}}):
        loss = "dpo" if more else "simpo"
        with pytest.raises(ConfigError, match="precompute_reference"):
            config(loss, precompute_reference=True, **more)
    with pytest.raises(ConfigError, match=r"reference\.every"):
        config("simpo", reference={"every": 3})
    with pytest.raises(ConfigError, match="batch_size"):
        config("kto", batch_size=1)

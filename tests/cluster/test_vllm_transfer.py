"""Weights from a learner in another process, through shared memory and vLLM's weight transfer; and what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_names import left_behind
from vllm_models import SHAPED, WIDE, engine, folder, gap, model, requests, trainer
from vllm_trainer import Order, Trainer

from rollout.vllm_engine import VllmEngine

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", params=[True, False], ids=["packed", "in place"])
def made(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[VllmEngine]:
    built = engine(folder(model(**WIDE), tmp_path_factory.mktemp("llama")), prepack=request.param)
    yield built
    built.close()


@pytest.fixture(scope="module")
def learner() -> Iterator[Trainer]:
    started = Trainer()
    yield started
    started.end()


def sent(made: VllmEngine, learner: Trainer, order: Order) -> dict[str, int]:
    """As a runtime does it."""
    made.pause()
    passes = learner.send(order, made)
    made.resume()
    return passes


def assert_samples_from(made: VllmEngine, seed: int) -> None:
    asked = requests()
    assert gap(trainer(model(seed=seed, **WIDE)), asked, made.generate(asked, sampling=SHAPED), SHAPED) < 1e-4


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("bucket_mib", [1, 64])
def test_weights_arrive(made: VllmEngine, learner: Trainer, verify: bool, bucket_mib: int) -> None:
    version = 10 + 2 * bucket_mib + verify
    passes = sent(made, learner, Order(seed=version, version=version, verify=verify, bucket_mib=bucket_mib))
    assert passes == {"rank 0": 1, "rank 1": 1}, "gathering weights takes all ranks"
    assert made.version == version
    assert_samples_from(made, version)
    updates = learner.called.count("update_weights")
    assert updates > 4 if bucket_mib == 1 else updates == 1
    assert learner.called[:2] == ["init_weight_transfer_engine", "start_weight_update"]
    assert learner.called[-1] == "finish_weight_update"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("damage", "1 weights arrived as other bytes than were sent"),
        ("omit", "1 weights did not come"),
        ("shape", r"is \(.*\), not \("),
    ],
)
def test_what_did_not_arrive_as_it_was_is_not_sampled_from(
    made: VllmEngine, learner: Trainer, fault: str, message: str
) -> None:
    sent(made, learner, Order(seed=1, version=1))
    made.pause()
    with pytest.raises((RuntimeError, ValueError), match=message):
        learner.send(Order(seed=2, version=2, fault=fault, bucket_mib=64 if fault == "shape" else 1), made)
    assert made.version == 1
    if fault == "shape":
        # The only bucket was refused as a whole: nothing has changed.
        made.resume()
        assert_samples_from(made, 1)
        return
    with pytest.raises(RuntimeError, match="half way"):
        made.resume()
    with pytest.raises(RuntimeError, match="load a whole set, or replace the engine"):
        made.generate(requests(), sampling=SHAPED)
    sent(made, learner, Order(seed=2, version=2))
    assert_samples_from(made, 2)


def test_without_checksums_damage_is_not_seen(made: VllmEngine, learner: Trainer) -> None:
    sent(made, learner, Order(seed=1, version=1, fault="damage", verify=False))
    assert made.version == 1


def test_updates_out_of_turn_are_refused(made: VllmEngine, learner: Trainer) -> None:
    sent(made, learner, Order(seed=1, version=1))
    with pytest.raises(RuntimeError, match="before the start"):
        made.update_weights({"names": [], "shapes": []})
    with pytest.raises(RuntimeError, match="had not begun"):
        made.finish_weight_update(3)
    made.start_weight_update()
    with pytest.raises(RuntimeError, match="has begun and not ended"):
        made.start_weight_update()
    made.start_weight_update()
    made.cancel_weight_update()
    made.cancel_weight_update()
    assert made.version == 1
    assert_samples_from(made, 1)


@pytest.mark.parametrize("made", [True], indirect=True, ids=["packed"])
def test_a_learner_that_dies_in_the_middle_leaves_nothing_and_another_takes_over(
    made: VllmEngine, learner: Trainer
) -> None:
    sent(made, learner, Order(seed=1, version=1))
    before = set(os.listdir("/dev/shm"))
    mortal = Trainer()
    made.pause()
    with pytest.raises(EOFError):
        mortal.send(Order(seed=2, version=2, fault="die"), made)
    assert left_behind(before) == set()
    with pytest.raises(RuntimeError, match="half way"):
        made.resume()
    sent(made, learner, Order(seed=2, version=2))
    assert_samples_from(made, 2)
    held = Path("/proc/self/maps").read_text().count("rlhf-weights")
    assert held <= 1, "the dead learner's memory is let go"

"""ZeRO on real ranks against plain torch in this process."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
import zero_work
from pair import Ranks
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from zero_work import LOSSES, Setup, Trained

from rlhf.core.errors import CheckpointError
from rlhf.data.packing import pack
from rlhf.learner.ranks import put_together, share

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")

pytestmark = pytest.mark.cluster

STAGES = [0, 1, 2, 3]
UPDATES = range(5)
TORCH = {"name": "torch_backend"}
SHARED_OUT = [
    *(name for name in LOSSES if name.endswith("-plain")),
    *("policy-k3", "policy-entropy", "policy-dual_clip", "value-no_clip"),
]
"""Every loss with every aggregate, and what adds streams; that no option depends on ranks is shown without them."""


def zero(stage: int, **settings: Any) -> dict[str, Any]:
    """Everything is sharded that can be, however small."""
    return {"name": "deepspeed_backend", "zero_stage": stage, "bucket_mib": 1, "whole_below": 0, **settings}


@pytest.fixture(scope="module")
def two(folders: dict[str, Path]) -> Iterator[Ranks]:
    ranks = Ranks(2)
    ranks.run(zero_work.ready, 2, Setup(folders["small"], zero(3)))
    yield ranks
    ranks.close()


@pytest.fixture(scope="module")
def alone(folders: dict[str, Path]) -> Iterator[Ranks]:
    """One process, with nothing in its environment that names ranks."""
    ranks = Ranks(1, named=False)
    ranks.run(zero_work.ready, 1, Setup(folders["small"], zero(3)))
    yield ranks
    ranks.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models, by name."""
    made = {
        "small": tiny_model.model("llama", num_hidden_layers=1),
        "llama": tiny_model.model("llama"),
        "gpt2": tiny_model.model("gpt2"),
        "tied": tiny_model.model("llama", tie_word_embeddings=True),
    }
    root = tmp_path_factory.mktemp("models")
    for name, model in made.items():
        model.save_pretrained(root / name)
    return {name: root / name for name in made}


@cache
def reference(folder: Path, loss: str, updates: range = UPDATES) -> Trained:
    """Plain torch with all batches in one process."""
    return zero_work.trained(0, 1, Setup(folder, TORCH, loss), updates)


def assert_same(found: Trained, expected: Trained, *, atol: float = 1e-5) -> None:
    assert found.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        torch.testing.assert_close(found.weights[name], tensor, atol=atol, rtol=0, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("loss", SHARED_OUT)
@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_train_as_plain_torch_does(two: Ranks, folders: dict[str, Path], stage: int, loss: str) -> None:
    expected = reference(folders["small"], loss)
    before = load_file(folders["small"] / "model.safetensors")
    moved = {name: (before.get(name, torch.zeros(())) - w).abs().max() for name, w in expected.weights.items()}
    assert min(moved.values()) > 1e-3, "updates must matter"
    parts = two.run(zero_work.trained, 2, Setup(folders["small"], zero(stage), loss), UPDATES)
    for part in parts:
        assert_same(part, expected)
        assert part.norms == pytest.approx(expected.norms, rel=1e-5)
        assert part.rates == expected.rates
    assert parts[0].norms == parts[1].norms
    assert min(expected.norms) > zero_work.CLIP, "clipping must matter"
    for found, wanted in zip(zero_work.merged(parts), zero_work.merged([expected]), strict=True):
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("stage", "family", "recompute"),
    [(2, "gpt2", False), (3, "gpt2", True), (3, "tied", False), (3, "tied", True)],
)
def test_tied_embeddings_chunks_and_recomputation(
    two: Ranks, folders: dict[str, Path], stage: int, family: str, recompute: bool
) -> None:
    # GPT-2's key biases have no gradient but rounding, which AdamW would turn into full steps without a large eps.
    settings: dict[str, Any] = {"optimizer": {"eps": 1e-3}, "learner": {"gradient_checkpointing": recompute}}
    expected = zero_work.trained(0, 1, Setup(folders[family], TORCH, **settings), range(3))
    parts = two.run(zero_work.in_small_chunks, 2, Setup(folders[family], zero(stage), **settings), range(3))
    for part in parts:
        assert_same(part, expected)


@pytest.mark.parametrize(
    ("stage", "offload"),
    [
        (1, {"offload_optimizer": "cpu"}),
        (2, {"offload_optimizer": "cpu"}),
        (3, {"offload_parameters": "cpu"}),
        (3, {"offload_optimizer": "cpu", "offload_parameters": "cpu"}),
    ],
)
def test_offloading_changes_nothing(two: Ranks, folders: dict[str, Path], stage: int, offload: dict[str, str]) -> None:
    loss = "policy-token-plain"
    for part in two.run(zero_work.trained, 2, Setup(folders["small"], zero(stage, **offload), loss), UPDATES):
        assert_same(part, reference(folders["small"], loss))
        assert part.norms == pytest.approx(reference(folders["small"], loss).norms, rel=1e-5)


@pytest.mark.parametrize(
    ("backend", "value", "bfloat16"),
    [
        *((zero(stage), math.nan, False) for stage in STAGES),
        (zero(2, offload_optimizer="cpu"), math.inf, False),
        *((zero(stage), math.inf, True) for stage in (1, 2, 3)),
        (zero(2, offload_optimizer="cpu"), math.nan, True),
        (zero(3, offload_optimizer="cpu"), math.nan, True),
    ],
    ids=str,
)
def test_a_gradient_that_is_not_finite_changes_nothing(
    two: Ranks, folders: dict[str, Path], backend: dict[str, Any], value: float, bfloat16: bool
) -> None:
    settings = {"precision": "bfloat16"} if bfloat16 else {}
    setup = Setup(folders["small"], backend, optimizer=settings)
    clean = two.run(zero_work.trained, 2, setup, range(3))
    for (said, _, after), undisturbed in zip(two.run(zero_work.poisoned, 2, setup, value), clean, strict=True):
        assert "update 2: the gradient norm is" in said and "lower learner.optimizer.lr" in said
        assert_same(after, undisturbed, atol=0)
        assert after.norms == undisturbed.norms[1:]


MOVES = [
    (("here", TORCH), [("two", zero(1)), ("two", zero(3))]),
    (("two", zero(0)), [("two", zero(2))]),
    (("two", zero(2)), [("alone", zero(3)), ("two", zero(0))]),
    (("two", zero(3)), [("alone", zero(1)), ("here", TORCH), ("two", zero(3))]),
    (("alone", zero(1)), [("two", zero(3)), ("here", TORCH)]),
]
"""From where and what a run moves, to where and what."""


@pytest.mark.parametrize(("start", "ends"), MOVES, ids=["torch", "two-0", "two-2", "two-3", "alone-1"])
def test_training_goes_on_elsewhere_as_if_it_had_never_stopped(
    two: Ranks, alone: Ranks, folders: dict[str, Path], tmp_path: Path, start: Any, ends: Any
) -> None:
    # A lower rate than elsewhere, since AdamW makes steps of that size of the rounding of vanishing gradients.
    loss, rate = "policy-k3", {"lr": 1e-3}

    def run(place: tuple[str, dict[str, Any]], work: Any, *arguments: Any) -> list[Trained]:
        where, backend = place
        setup = Setup(folders["small"], backend, loss, optimizer=rate)
        if where == "here":
            return [work(0, 1, setup, *arguments)]
        ranks, size = (two, 2) if where == "two" else (alone, 1)
        return ranks.run(work, size, setup, *arguments)

    run(start, zero_work.saved, range(3), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json"} <= names
    assert {name for name in names if not name.endswith((".json", ".jinja"))} == {"model.safetensors", "optimizer"}
    assert {path.name for path in (tmp_path / "optimizer").iterdir()} == {"moments.safetensors", "steps.json"}
    expected = zero_work.trained(0, 1, Setup(folders["small"], TORCH, loss, optimizer=rate), UPDATES)
    for end in ends:
        for part in run(end, zero_work.continued, tmp_path, range(3, 5)):
            assert_same(part, expected, atol=1e-6)
            assert part.norms == pytest.approx(expected.norms[3:], rel=1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bfloat16_goes_on_from_its_master_weights(
    two: Ranks, folders: dict[str, Path], tmp_path: Path, stage: int
) -> None:
    setup = Setup(folders["small"], zero(stage), optimizer={"precision": "bfloat16", "lr": 1e-4})
    whole = two.run(zero_work.saved, 2, setup, range(5), tmp_path / "whole")[0]
    two.run(zero_work.saved, 2, setup, range(3), tmp_path / "half")
    part, _ = two.run(zero_work.continued, 2, setup, tmp_path / "half", range(3, 5))
    assert all(tensor.dtype == torch.bfloat16 for tensor in part.weights.values())
    assert_same(part, whole, atol=0)
    assert part.norms == whole.norms[3:]
    masters, stored = (
        load_file(tmp_path / "half" / f"{name}.safetensors") for name in ("optimizer/master_weights", "model")
    )
    assert all(torch.equal(masters[name].bfloat16(), tensor) for name, tensor in stored.items())
    assert any(not torch.equal(masters[name], tensor.float()) for name, tensor in stored.items())


def test_plain_torch_takes_over_master_weights_or_says_that_it_cannot(
    two: Ranks, folders: dict[str, Path], tmp_path: Path
) -> None:
    setup = Setup(folders["llama"], zero(2), optimizer={"precision": "bfloat16"})
    two.run(zero_work.saved, 2, setup, range(2), tmp_path)
    masters = load_file(tmp_path / "optimizer" / "master_weights.safetensors")
    plain = zero_work.make(Setup(tmp_path, TORCH), lambda dtype: zero_work.load.load_model(tmp_path, dtype="float32"))
    plain.load(tmp_path)
    assert all(torch.equal(tensor, masters[name]) for name, tensor in plain.weights())
    with pytest.raises(CheckpointError, match=r"float32 master weights.*\n.*model\.dtype=float32"):
        zero_work.make(Setup(tmp_path, TORCH)).load(tmp_path)


def test_bfloat16_takes_over_the_float32_weights_of_plain_torch(
    two: Ranks, folders: dict[str, Path], tmp_path: Path
) -> None:
    zero_work.saved(0, 1, Setup(folders["llama"], TORCH), range(2), tmp_path / "plain")
    setup = Setup(tmp_path / "plain", zero(3), optimizer={"precision": "bfloat16"}, version=2)
    two.run(zero_work.taken_over, setup, tmp_path / "again")
    masters = load_file(tmp_path / "again" / "optimizer" / "master_weights.safetensors")
    for name, tensor in load_file(tmp_path / "plain" / "model.safetensors").items():
        assert torch.equal(masters[name], tensor)


@pytest.mark.parametrize("family", ["llama", "tied", "gpt2"])
def test_an_exported_model_is_what_save_pretrained_writes(
    two: Ranks, folders: dict[str, Path], tmp_path: Path, family: str
) -> None:
    seen = two.run(zero_work.exporting, Setup(folders[family], zero(3), loss=None), tmp_path)
    expected = load_file(folders[family] / "model.safetensors")
    largest = max(tensor.nbytes for tensor in expected.values())
    assert all(0 < whole <= largest for rank in seen for whole in rank), "one parameter at a time"
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    model, original = (AutoModelForCausalLM.from_pretrained(path) for path in (tmp_path, folders[family]))
    assert model.config.to_dict() == original.config.to_dict() | {"_name_or_path": model.config.name_or_path}
    assert (tmp_path / "tokenizer.json").exists()


@pytest.mark.parametrize("stage", [1, 3])
def test_weights_are_those_of_plain_torch_and_come_bucket_by_bucket(
    two: Ranks, folders: dict[str, Path], stage: int
) -> None:
    for family in ("tied", "gpt2"):
        found = two.run(zero_work.gathering, Setup(folders[family], zero(stage), optimizer={"eps": 1e-3}))
        expected = zero_work.trained(0, 1, Setup(folders[family], TORCH, optimizer={"eps": 1e-3}), [0])
        for rank in found:
            assert rank.metadata_matches
            assert rank.names == list(expected.weights), "the same order, tied ones once"
            assert_same(Trained(rank.weights, [], [], []), expected)


def test_no_more_than_a_bucket_is_whole_at_a_time(two: Ranks, folders: dict[str, Path]) -> None:
    setup = Setup(folders["llama"], zero(3), optimizer={"precision": "float32"})
    sizes = [tensor.nbytes for tensor in load_file(folders["llama"] / "model.safetensors").values()]
    for bucket in (max(sizes) // 2, 3 * max(sizes)):
        for rank in two.run(zero_work.gathering, setup, bucket):
            assert all(0 < whole <= max(bucket, max(sizes)) for whole in rank.whole)
            assert max(rank.whole) < sum(sizes) / 2


def test_gathered_weights_are_not_kept_for_the_backward_pass(two: Ranks, folders: dict[str, Path]) -> None:
    setup = Setup(folders["llama"], zero(3))
    assert two.run(zero_work.kept, setup, True) == [0, 0]
    assert min(two.run(zero_work.kept, setup, False)) > 0, "torch's own linear layers keep them"


@pytest.mark.parametrize("trains", [True, False], ids=["policy", "reference"])
@pytest.mark.parametrize("backend", [zero(1), zero(3), zero(3, offload_parameters="cpu")], ids=str)
def test_log_probs_are_those_of_plain_torch(
    two: Ranks, folders: dict[str, Path], backend: dict[str, Any], trains: bool
) -> None:
    loss = "policy-token-plain" if trains else None
    batches = pack(zero_work.samples_of(0), token_budget=zero_work.BUDGET)
    everything = list(range(len(batches)))
    [expected] = zero_work.scored(0, Setup(folders["tied"], TORCH, loss), [[everything]])
    splits = [share(batches, ranks=2), [everything[1:], everything[:1]], [[], everything]]
    ranks = two.run(zero_work.scored, Setup(folders["tied"], backend, loss), splits)
    for shares, *parts in zip(splits, *ranks, strict=True):
        for found, wanted in zip(put_together(shares, parts), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_model_is_opened_in_parts(two: Ranks, folders: dict[str, Path]) -> None:
    total = sum(tensor.numel() for tensor in load_file(folders["llama"] / "model.safetensors").values())
    for loss in ("policy-token-plain", None):
        for whole, part in two.run(zero_work.held, Setup(folders["llama"], zero(3), loss)):
            assert whole == 0
            assert total / 2 <= part <= total / 2 + 50, "half of it, and padding"


def test_two_learners_and_a_reference_live_in_one_process(two: Ranks, folders: dict[str, Path]) -> None:
    setups = [Setup(folders["llama"], zero(3)), Setup(folders["tied"], zero(2), "ce-token-plain")]
    frozen = Setup(folders["llama"], zero(3), None)
    both = two.run(zero_work.side_by_side, 2, *setups, frozen)
    for position, setup in enumerate(setups):
        for found, expected in zip(both, two.run(zero_work.trained, 2, setup, range(3)), strict=True):
            assert_same(found[position], expected, atol=0)
            assert found[position].norms == expected.norms
    batches = pack(zero_work.samples_of(0), token_budget=zero_work.BUDGET)
    shares = share(batches, ranks=2)
    for found, [expected] in zip(both, two.run(zero_work.scored, frozen, [shares]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found[2], expected, strict=True))


@pytest.mark.parametrize("stage", STAGES)
def test_one_process_needs_no_environment_and_forgets_what_it_does_not_need(
    alone: Ranks, folders: dict[str, Path], stage: int
) -> None:
    loss = "policy-token-plain"
    [found] = alone.run(zero_work.trained, 1, Setup(folders["small"], zero(stage), loss), UPDATES)
    assert_same(found, reference(folders["small"], loss), atol=1e-6)
    assert alone.run(zero_work.forgotten, Setup(folders["small"], zero(stage), loss)) == [True]


@pytest.mark.parametrize(("stage", "precision"), [(1, "bfloat16"), (2, "float32"), (3, "float32"), (3, "bfloat16")])
def test_nothing_is_printed(two: Ranks, folders: dict[str, Path], stage: int, precision: str) -> None:
    setup = Setup(folders["small"], zero(stage), optimizer={"precision": precision})
    assert two.run(zero_work.printed, 2, setup) == [b"", b""]

"""Checkpoints are whole or absent, damage is noticed and named, and only what may go is deleted."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError

from rlhf.core.errors import CheckpointError
from rlhf.learner import checkpoint


def write(root: Path, step: int, *, content: str = "weights") -> None:
    with checkpoint.writing(root, step, state={"step": step, "cursor": 3 * step}) as folder:
        (folder / "model.safetensors").write_text(f"{content} {step}")
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "vocab.json").write_text("{}")


def names(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "checkpoints", 7)
    found = checkpoint.read(tmp_path / "checkpoints", 7)
    assert (found.step, found.state) == (7, {"step": 7, "cursor": 21})
    assert found.folder == tmp_path / "checkpoints" / "step_7"
    assert (found.folder / "model.safetensors").read_text() == "weights 7"
    assert names(tmp_path / "checkpoints") == ["step_7"]


def test_steps_are_numbers_in_order_and_only_complete_ones_count(tmp_path: Path) -> None:
    assert checkpoint.steps(tmp_path / "none") == []
    for step in (100, 20, 3):
        write(tmp_path, step)
    (tmp_path / "step_50").mkdir()
    (tmp_path / ".writing_step_60").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert checkpoint.steps(tmp_path) == [3, 20, 100]


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_an_exception_inside_leaves_no_checkpoint_and_spares_the_earlier_ones(
    tmp_path: Path, error: BaseException
) -> None:
    write(tmp_path, 1)
    with pytest.raises(type(error)), checkpoint.writing(tmp_path, 2, state={}) as folder:
        (folder / "model.safetensors").write_text("half")
        raise error
    assert checkpoint.steps(tmp_path) == [1]
    assert checkpoint.read(tmp_path, 1).state["step"] == 1
    assert not (tmp_path / "step_2").exists()
    write(tmp_path, 3)
    assert names(tmp_path) == ["step_1", "step_3"], "the leftover is gone"
    assert (tmp_path / "step_3" / "model.safetensors").read_text() == "weights 3"


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("error", [FULL, SafetensorError("I/O error: No space left on device (os error 28)")])
def test_a_full_disk_is_an_error_that_names_what_is_kept(tmp_path: Path, error: Exception) -> None:
    write(tmp_path, 10)
    write(tmp_path, 20)
    with (
        pytest.raises(CheckpointError, match=r"step_30: could not be written: .*No space left.*\n.*step_10, step_20"),
        checkpoint.writing(tmp_path, 30, state={}) as folder,
    ):
        (folder / "model.safetensors").write_text("half")
        raise error
    assert names(tmp_path) == ["step_10", "step_20"], "what was half written no longer takes space"


def test_a_disk_that_fills_up_at_the_last_moment_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1)

    def fsync(_handle: int) -> None:
        raise FULL

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CheckpointError, match=r"No space left.*\n.*kept: step_1\)"):
        write(tmp_path, 2)
    assert names(tmp_path) == ["step_1"]


def test_every_file_is_on_disk_before_the_checkpoint_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[str] = set()
    fsync, move = os.fsync, os.rename

    def note(handle: int) -> None:
        flushed.add(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def rename(source: Path, target: Path) -> None:
        assert flushed == {"model.safetensors", "vocab.json", "state.json", "manifest.json", "tokenizer", source.name}
        move(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", rename)
    write(tmp_path, 4)
    assert tmp_path.name in flushed, "the rename itself is flushed, too"


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    write(tmp_path, 5, content="old")
    write(tmp_path, 5, content="new")
    assert (checkpoint.read(tmp_path, 5).folder / "model.safetensors").read_text() == "new 5"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer/vocab.json", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_damage_is_an_error_that_names_the_file_and_the_way_out(tmp_path: Path, name: str, damage: str) -> None:
    write(tmp_path, 10)
    write(tmp_path, 20)
    path = tmp_path / "step_20" / name
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(tmp_path, 20)
    assert str(path) in str(caught.value)
    assert caught.value.fix == f"delete {tmp_path / 'step_20'} to continue from step_10"
    assert checkpoint.read(tmp_path, 10).step == 10


@pytest.mark.parametrize("content", ["", "{", "\x00\x00"])
def test_a_damaged_manifest_is_an_error(tmp_path: Path, content: str) -> None:
    write(tmp_path / "run" / "checkpoints", 1)
    (tmp_path / "run" / "checkpoints" / "step_1" / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match="step_1") as caught:
        checkpoint.read(tmp_path / "run" / "checkpoints", 1)
    assert caught.value.fix == f"delete {tmp_path / 'run'} and start again"


def test_pruning_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 10):
        write(tmp_path, step)
    checkpoint.prune(tmp_path, keep=2, protect={0, 2})
    assert checkpoint.steps(tmp_path) == [2, 4, 10]
    checkpoint.prune(tmp_path, keep=5, protect=())
    checkpoint.prune(tmp_path, keep=0, protect=())
    assert checkpoint.steps(tmp_path) == [2, 4, 10], "0 keeps all"
    checkpoint.prune(tmp_path, keep=1, protect=())
    assert names(tmp_path) == ["step_10"]


def test_a_kill_while_deleting_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        write(tmp_path, step)

    def rmtree(_folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", rmtree)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.prune(tmp_path, keep=1, protect=())
    assert checkpoint.steps(tmp_path) == [2]
    write(tmp_path, 3)
    assert names(tmp_path) == ["step_2", "step_3"], "the next write clears up"

"""A run overwrites nothing that is not its own, survives a full disk and a damaged file, and says what to do."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import KILLED, Shell, reproducible, tree, write_config

ROW = "rlhf.loops.recorder:Recorder.step"
MODEL_BYTES = 4_100_000
CHECKPOINT_BYTES = 3 * MODEL_BYTES


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its time of change and content."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def killed_at(step: int, shell: Shell, cwd: Path, *overrides: str) -> Path:
    """Start `tiny.yaml` in a folder and kill it once the row of a step is written. Returns the config."""
    config = write_config(cwd, tree())
    assert shell.run("train", config, *overrides, cwd=cwd, kill=f"{ROW}#{step}+").code == KILLED
    return config


def continues(shell: Shell, config: Path, finished: Path, *overrides: str) -> None:
    """The same command ends like the uninterrupted run."""
    shell.run("train", config, *overrides, cwd=config.parent).ok()
    mine = config.parent / "runs" / "tiny" / "metrics.jsonl"
    assert reproducible(mine) == reproducible(finished / "metrics.jsonl")


def test_a_finished_run_is_left_as_it_is(shell: Shell, finished: Path) -> None:
    before = contents(finished)
    done = shell.run("train", finished.parents[1] / "config.yaml", cwd=finished.parents[1]).ok()
    assert "runs/tiny is complete: nothing to do" in done.stdout
    assert contents(finished) == before


def test_another_config_is_refused_with_the_keys_that_differ(shell: Shell, finished: Path) -> None:
    before = contents(finished)
    config, cwd = finished.parents[1] / "config.yaml", finished.parents[1]
    done = shell.run("train", config, "rl.steps=9", "sft.learner.optimizer.lr=0.5", cwd=cwd)
    done.refused("runs/tiny", "rl.steps is 7 there and 9 here", "sft.learner.optimizer.lr is 0.001 there", "run.name")
    assert contents(finished) == before


def test_a_folder_of_something_else_is_refused(shell: Shell, tmp_path: Path) -> None:
    config = write_config(tmp_path, tree())
    foreign = tmp_path / "runs" / "tiny"
    foreign.mkdir(parents=True)
    (foreign / "thesis.tex").write_text("years of work")
    shell.run("train", config, cwd=tmp_path).refused("runs/tiny", "thesis.tex", "choose another run.name")
    assert (foreign / "thesis.tex").read_text() == "years of work"


def test_the_folder_of_a_recipe_is_refused(shell: Shell, tmp_path: Path) -> None:
    """A config.yaml that no run wrote does not make a folder ours."""
    home = tmp_path / "runs" / "tiny"
    home.mkdir(parents=True)
    config = write_config(home, tree())
    before = config.read_text()
    shell.run("train", config, cwd=tmp_path).refused("runs/tiny", "another config")
    assert config.read_text() == before


def test_a_second_process_is_refused(shell: Shell, tmp_path: Path) -> None:
    config = killed_at(1, shell, tmp_path)
    with (tmp_path / "runs" / "tiny" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shell.run("train", config, cwd=tmp_path).refused("runs/tiny", "another process is writing this run", "wait")


def test_a_folder_that_cannot_be_made_is_refused(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder of all runs should be")
    shell.run("train", write_config(tmp_path, tree()), cwd=tmp_path).refused("runs/tiny", "run.folder")


def test_a_start_that_failed_does_not_block_its_name(shell: Shell, finished: Path, tmp_path: Path) -> None:
    content = tree()
    content["sft"]["data"] = "solutions.jsonl"
    (tmp_path / "solutions.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    config = write_config(tmp_path, content)
    shell.run("train", config, cwd=tmp_path).refused("solutions.jsonl, row 1", "prompt, answer", "completion")
    continues(shell, write_config(tmp_path, tree()), finished)


def test_a_full_disk_while_a_checkpoint_is_written(shell: Shell, finished: Path, tmp_path: Path) -> None:
    config = killed_at(3, shell, tmp_path)
    saved = tmp_path / "runs" / "tiny" / "checkpoints"
    for trouble in (
        {"file_limit": MODEL_BYTES // 2},
        {"full_disk": "rlhf.learner.backends.torch_backend:TorchBackend.save#1"},
    ):
        done = shell.run("train", config, cwd=tmp_path, **trouble)
        done.refused("checkpoints/step_4", "could not be written", "free disk space", "kept: step_2")
        assert [p.name for p in saved.iterdir()] == ["step_2"], "the good one alone, and no leftovers"
    continues(shell, config, finished)


@pytest.mark.parametrize(
    "where",
    [
        "rlhf.loops.recorder:append_lines#4",
        "rlhf.report.tensorboard:TensorBoard.write#2",
        "rlhf.loops.summary:write_report#1",
    ],
)
def test_a_full_disk_anywhere_else(where: str, shell: Shell, finished: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tree() | {"run": {"name": "tiny"}})
    shell.run("train", config, cwd=tmp_path, full_disk=where).refused("No space left", "free disk space")
    continues(shell, config, finished)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, too small for a model until it is remounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = MODEL_BYTES // 2
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def grow(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_disk_that_is_really_full(shell: Shell, finished: Path, small_disk: Path) -> None:
    """Too small for the model, then for the first checkpoint, then for the third one."""
    config, run = write_config(small_disk, tree()), small_disk / "runs" / "tiny"
    shell.run("train", config, cwd=small_disk).refused("runs/tiny/model", "No space left", "free disk space")
    grow(small_disk, MODEL_BYTES + CHECKPOINT_BYTES // 2)
    shell.run("train", config, cwd=small_disk).refused("step_2", "kept: none")
    grow(small_disk, MODEL_BYTES + 5 * CHECKPOINT_BYTES // 2)
    shell.run("train", config, cwd=small_disk).refused("step_5", "kept: step_2, step_4")
    grow(small_disk, 20 * CHECKPOINT_BYTES)
    continues(shell, config, finished)
    assert not list(run.rglob(".*tmp")) and not list(run.rglob(".writing*"))


def flip(path: Path) -> None:
    """Damage one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["optimizer/moments.safetensors", "manifest.json"])
def test_a_damaged_checkpoint_is_named_and_the_printed_fix_works(
    name: str, shell: Shell, finished: Path, tmp_path: Path
) -> None:
    config = killed_at(5, shell, tmp_path)
    damaged = tmp_path / "runs" / "tiny" / "checkpoints" / "step_4"
    if name == "manifest.json":
        (damaged / name).write_text("{")
    else:
        flip(damaged / name)
    done = shell.run("train", config, cwd=tmp_path)
    done.refused("checkpoints/step_4", "to continue from step_2")
    doomed = re.search(r"delete (\S+) to continue", done.stderr)
    assert doomed is not None
    shutil.rmtree(tmp_path / doomed[1])
    continues(shell, config, finished)


def test_a_damaged_first_checkpoint_means_starting_again(shell: Shell, finished: Path, tmp_path: Path) -> None:
    config = killed_at(3, shell, tmp_path)
    (tmp_path / "runs" / "tiny" / "checkpoints" / "step_2" / "model.safetensors").unlink()
    done = shell.run("train", config, cwd=tmp_path)
    done.refused("checkpoints/step_2", "model.safetensors", "and start again")
    doomed = re.search(r"delete (\S+) and start again", done.stderr)
    assert doomed is not None
    shutil.rmtree(tmp_path / doomed[1])
    continues(shell, config, finished)


@pytest.mark.parametrize("trouble", ["gone", "short"])
def test_a_log_that_lost_rows_is_not_continued(trouble: str, shell: Shell, tmp_path: Path) -> None:
    config = killed_at(8, shell, tmp_path)
    log = tmp_path / "runs" / "tiny" / "samples.jsonl"
    log.unlink() if trouble == "gone" else log.write_text("")
    shell.run("train", config, cwd=tmp_path).refused("samples.jsonl", "its checkpoint says", "restore the file")


def test_data_that_changed_since_the_start_are_refused(shell: Shell, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(f'{{"question": "{n}+1=", "answer": "#### {n + 1}"}}\n' for n in range(30)))
    content = tree() | {"task": {"name": "gsm8k", "train": "mine.jsonl", "test": None, "instruction": ""}}
    config = write_config(tmp_path, content)
    assert shell.run("train", config, cwd=tmp_path, kill=f"{ROW}#3+").code == KILLED
    kept = data.read_text()
    data.write_text(kept.replace("29+1=", "29+2="))
    shell.run("train", config, cwd=tmp_path).refused("runs/tiny", "other content of mine.jsonl", "restore")
    data.write_text(kept)
    shell.run("train", config, cwd=tmp_path).ok()

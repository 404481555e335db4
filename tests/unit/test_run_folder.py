"""A run folder has one writer and one config, and its logs are cut back to what a checkpoint recorded."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf.core.errors import RunFolderError
from rlhf.core.run_folder import RunFolder, append_lines, read_lines, write_whole

CONFIG = "run:\n  name: one\nsft:\n  steps: 10\nrl:\n  steps: 20\n  loss:\n    name: policy\n    clip_low: 0.2\n"


def begun(path: Path, config: str = CONFIG) -> RunFolder:
    """A folder that a run has started in and left."""
    folder = RunFolder(path)
    assert folder.open(config) is False
    write_whole(folder.config, config)
    write_whole(folder.environment, "{}")
    folder.close()
    return folder


def test_a_new_folder_is_made_and_an_own_one_is_continued(tmp_path: Path) -> None:
    folder = begun(tmp_path / "runs" / "one")
    assert folder.open(CONFIG) is True
    folder.close()


def test_a_second_process_is_kept_out_until_the_first_is_done(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(CONFIG)
    assert "another process is writing this run" in from_elsewhere(tmp_path)
    folder.close()
    assert from_elsewhere(tmp_path) == "opened: False"


def from_elsewhere(path: Path) -> str:
    """What another process gets to hear that opens the folder."""
    code = (
        "import sys; from pathlib import Path; from rlhf.core.run_folder import RunFolder\n"
        "try: print('opened:', RunFolder(Path(sys.argv[1])).open(sys.argv[2]))\n"
        "except Exception as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(path), CONFIG]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("clip_low: 0.2", "clip_low: 0.3", "rl.loss.clip_low is 0.2 there and 0.3 here"),
        ("rl:\n  steps: 20", "rl:\n  steps: 10", "rl.steps is 20 there and 10 here"),
        ("    clip_low: 0.2\n", "", "rl.loss.clip_low is 0.2 there and not set here"),
        ("sft:\n", "seed: 1\nsft:\n", "seed is not set there and 1 here"),
        ("name: policy", "name: ce", "rl.loss.name is policy there and ce here"),
    ],
)
def test_another_config_is_refused_and_the_changed_key_is_shown(tmp_path: Path, old: str, new: str, shown: str) -> None:
    folder = begun(tmp_path)
    append_lines(folder.metrics, [{"step": 1}])
    with pytest.raises(RunFolderError) as caught:
        folder.open(CONFIG.replace(old, new))
    assert caught.value.problem == f"holds a run with another config: {shown}" and "run.name" in caught.value.fix
    assert folder.config.read_text() == CONFIG
    assert folder.open(CONFIG) is True, "a refusal lets go of the folder"
    folder.close()


def test_of_many_changed_keys_the_first_are_shown(tmp_path: Path) -> None:
    folder = begun(tmp_path, "".join(f"key{i}: 0\n" for i in range(9)))
    append_lines(folder.metrics, [{"step": 1}])
    with pytest.raises(RunFolderError) as caught:
        folder.open("".join(f"key{i}: 1\n" for i in range(9)))
    shown = "; ".join(f"key{i} is 0 there and 1 here" for i in range(5))
    assert caught.value.problem.endswith(f": {shown}; and 4 more")


def test_a_start_that_failed_before_training_may_be_repeated_with_another_config(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    folder.model.mkdir()
    (folder.model / "config.json").write_text("{}")
    assert folder.open(CONFIG.replace("20", "30")) is False
    folder.close()
    assert not folder.model.exists(), "a model made for the other config must not be trained on"


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints/step_1/state.json", "data/select.jsonl", "notes.txt"])
def test_what_training_wrote_is_never_taken_over(tmp_path: Path, name: str) -> None:
    folder = begun(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(RunFolderError, match="another config"):
        folder.open(CONFIG.replace("20", "30"))
    assert (tmp_path / name).exists()


def test_only_a_folder_in_which_a_run_was_started_is_one_to_read(tmp_path: Path) -> None:
    assert RunFolder.existing(begun(tmp_path / "one").path).config.exists()
    with pytest.raises(RunFolderError, match=r"other: is not a run folder.*\n.*runs/<name>"):
        RunFolder.existing(tmp_path / "other")


def test_a_folder_with_other_files_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"thesis\.tex"):
        RunFolder(tmp_path).open(CONFIG)


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [{"step": n, "text": "naïve ∑\n"} for n in numbers]


def test_cut_takes_every_log_back_to_what_was_recorded(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.data.mkdir()
    append_lines(folder.metrics, rows(1, 2))
    append_lines(folder.data / "select.jsonl", rows(7))
    offsets = json.loads(json.dumps(folder.offsets()))
    assert offsets == {"metrics.jsonl": folder.metrics.stat().st_size, "data/select.jsonl": 36}
    before = folder.metrics.read_bytes()
    append_lines(folder.metrics, rows(3))
    append_lines(folder.data / "select.jsonl", rows(8, 9))
    append_lines(folder.samples, rows(3))
    folder.cut(offsets)
    assert folder.metrics.read_bytes() == before
    assert list(read_lines(folder.data / "select.jsonl")) == rows(7)
    assert list(read_lines(folder.samples)) == [], "a log that the checkpoint does not know is emptied"


@pytest.mark.parametrize("damage", ["cut", "deleted"])
def test_a_log_shorter_than_recorded_is_an_error(tmp_path: Path, damage: str) -> None:
    folder = RunFolder(tmp_path)
    append_lines(folder.metrics, rows(1, 2))
    append_lines(folder.samples, rows(1))
    offsets = folder.offsets()
    if damage == "cut":
        os.truncate(folder.metrics, 5)
    else:
        folder.metrics.unlink()
    have = 5 if damage == "cut" else 0
    with pytest.raises(RunFolderError, match=rf"metrics\.jsonl: has {have} bytes, its checkpoint says 72"):
        folder.cut(offsets)


def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert list(read_lines(path)) == []
    append_lines(path, rows(1, 2))
    cut = '{"step": 3, "text": "naïve'.encode()[:-3]  # inside a character
    with path.open("ab") as file:
        file.write(cut)
    assert list(read_lines(path)) == rows(1, 2)


def test_a_small_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    write_whole(path, "old")
    write_whole(path, "new ∑")
    assert path.read_text(encoding="utf-8") == "new ∑" and list(tmp_path.iterdir()) == [path]

    def replace(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(RunFolderError, match=r"config\.yaml: cannot be written: .*No space left"):
        write_whole(path, "newest")
    assert path.read_text(encoding="utf-8") == "new ∑"


def test_a_log_that_the_disk_refuses_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"gone/metrics\.jsonl: cannot be written"):
        append_lines(tmp_path / "gone" / "metrics.jsonl", rows(1))

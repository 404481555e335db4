"""What a command says when it ends other than well, and its exit code."""

from __future__ import annotations

import errno
import importlib
import signal
from pathlib import Path

import pytest

from rlhf.core.errors import ConfigError
from rlhf.loops.ending import ending
from rlhf.loops.interrupt import Interrupted


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("rl.steps", "is -1", fix="write 1"), 2, "error: rl.steps: is -1\n  fix: write 1\n"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), 2, "error: runs/a: No space left on device\n"),
        (KeyboardInterrupt(), 130, "the same command continues"),
        (Interrupted(signal.SIGUSR1, step=3), 75, "step 3"),
    ],
)
def test_what_ends_a_command(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(error) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("a bug"), PermissionError(errno.EACCES, "no"), SystemExit(2)])
def test_what_only_a_traceback_explains_gets_one(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(error) is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("folder", "code"), [("site-packages", 2), ("mylab", None)])
def test_a_package_that_does_not_import_is_for_the_doctor(
    folder: str, code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"broken_{folder.replace('-', '_')}"
    (tmp_path / folder).mkdir()
    (tmp_path / folder / f"{name}.py").write_text("from json import no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path / folder)
    with pytest.raises(ImportError) as caught:
        importlib.import_module(name)
    assert ending(caught.value) == code
    assert ("rlhf doctor" in capsys.readouterr().err) == (code is not None)

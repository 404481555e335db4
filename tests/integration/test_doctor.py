"""`rlhf doctor` on this machine, as it is and with an installation that is broken in a way that happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from commands import environment, tree, write_config


def doctor(*words: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlhf.cli", "doctor", *map(str, words)]
    around = environment() | {"COLUMNS": "80"} | env
    return subprocess.run(command, cwd=cwd, env=around, capture_output=True, text=True, timeout=300)


def test_this_installation_is_examined_for_a_config(tmp_path: Path) -> None:
    done = doctor(write_config(tmp_path, tree()), cwd=tmp_path)
    assert done.returncode == int("✗" in done.stdout), f"{done.stdout}\n{done.stderr}"
    assert all(
        title in done.stdout for title in ("packages", "devices", "machine", "network", "torch", "reward workers")
    )
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert not done.stderr and not (tmp_path / "runs").exists()


def test_a_companion_of_torch_that_does_not_fit_it_is_found_and_the_remedy_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "site"
    (broken / "torchvision").mkdir(parents=True)
    (broken / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    (broken / "torchvision-0.1.0.dist-info").mkdir()
    (broken / "torchvision-0.1.0.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 0.1.0\n")
    done = doctor(cwd=tmp_path, PYTHONPATH=f"{broken}:{environment()['PYTHONPATH']}")
    assert done.returncode == 1, f"{done.stdout}\n{done.stderr}"
    told = " ".join(done.stdout.split())
    assert "✗ torch extras torchvision cannot be imported" in told and "nms does not exist" in told
    assert "→ pip uninstall torchvision" in told


def test_a_config_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    done = doctor(write_config(tmp_path, tree()), "rl.stepz=1", cwd=tmp_path)
    assert done.returncode == 2 and "rl.stepz: unknown key" in done.stderr

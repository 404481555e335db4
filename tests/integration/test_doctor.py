"""`rlhf doctor` on this machine, with an installation that is broken in a way that happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from commands import Shell, environment, tree, write_config


def doctor(*, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlhf.cli", "doctor"]
    around = environment() | {"COLUMNS": "80"} | env
    return subprocess.run(command, cwd=cwd, env=around, capture_output=True, text=True, timeout=300)


def test_this_installation_is_examined_and_what_does_not_fit_is_named_with_its_remedy(tmp_path: Path) -> None:
    """A companion of torch that was built for another one keeps transformers from opening models."""
    broken = tmp_path / "site"
    (broken / "torchvision").mkdir(parents=True)
    (broken / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    (broken / "torchvision-0.1.0.dist-info").mkdir()
    (broken / "torchvision-0.1.0.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 0.1.0\n")
    path = f"{broken}:{environment()['PYTHONPATH']}"
    done = doctor(cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1 and not done.stderr, f"{done.stdout}\n{done.stderr}"
    assert all(
        title in done.stdout for title in ("packages", "devices", "machine", "network", "torch", "reward workers")
    )
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    told = " ".join(done.stdout.split())
    assert "✗ torch extras torchvision cannot be imported" in told and "nms does not exist" in told
    assert "→ pip uninstall torchvision" in told
    assert not (tmp_path / "runs").exists()


def test_a_config_that_cannot_be_used_is_refused(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("doctor", write_config(tmp_path, tree()), "rl.stepz=1", cwd=tmp_path)
    assert done.code == 2 and "rl.stepz: unknown key" in done.stderr

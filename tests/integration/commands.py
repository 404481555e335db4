"""What the integration tests start: `rlhf` commands in processes of their own, on runs that take a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import yaml

HERE = Path(__file__).parent
REPO = HERE.parents[1]
KILLED = -9


def environment() -> dict[str, str]:
    """That of every command: one thread, and the user's modules beside these tests on the path."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = os.pathsep.join([str(REPO), str(HERE)])
    return os.environ | one | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}


@dataclass(frozen=True)
class Done:
    """What a command left: exit status (-9 for SIGKILL) and output."""

    code: int
    stdout: str
    stderr: str

    def ok(self) -> Done:
        """This result of a command that must have worked."""
        assert self.code == 0, f"exit status {self.code}\n{self.stdout}\n{self.stderr}"
        return self

    def refused(self, *parts: str) -> Done:
        """This result of a command that must have ended with a message for its user that names all parts."""
        assert self.code == 2, f"exit status {self.code}\n{self.stdout}\n{self.stderr}"
        assert "Traceback" not in self.stderr, self.stderr
        assert self.stderr.startswith("error: ") and "\n  fix: " in self.stderr, self.stderr
        for part in parts:
            assert part in self.stderr, f"{part!r} is not in the message:\n{self.stderr}"
        return self


class Shell:
    """Runs commands in one folder, through the launcher. A context manager: it ends the launcher's process.

    Args:
        also: folders with further modules for the commands to find.
        more: environment variables, besides those of every command.
    """

    def __init__(self, *, also: Sequence[Path] = (), more: Mapping[str, str] = MappingProxyType({})) -> None:
        env = environment() | dict(more)
        env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], *map(str, also)])
        self._launcher = subprocess.Popen(
            [sys.executable, str(HERE / "launcher.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def run(
        self,
        *argv: str | Path,
        cwd: Path,
        kill: str | None = None,
        usr1: str | None = None,
        term: str | None = None,
        full_disk: str | None = None,
        bug: str | None = None,
        file_limit: int | None = None,
    ) -> Done:
        """Run one command to its end.

        Args:
            argv: what follows `rlhf`.
            cwd: folder to run in; its files `.stdout` and `.stderr` get the output.
            kill: SIGKILL at `module:function#n`, before its n-th call, or after it with `#n+`.
            usr1: likewise, but with SIGUSR1.
            term: likewise, but with SIGTERM.
            full_disk: likewise, but that call finds the disk full.
            bug: likewise, but that call divides by zero.
            file_limit: largest file that may be written, in bytes.
        """
        out, err = cwd / ".stdout", cwd / ".stderr"
        strikes = {"kill": kill, "usr1": usr1, "term": term, "full_disk": full_disk, "bug": bug}
        request: dict[str, Any] = {
            "argv": [str(word) for word in argv],
            "cwd": str(cwd),
            "stdout": str(out),
            "stderr": str(err),
            "strike": next((_strike(spec, how) for how, spec in strikes.items() if spec is not None), None),
            "file_limit": file_limit,
        }
        assert self._launcher.stdin is not None and self._launcher.stdout is not None
        self._launcher.stdin.write(json.dumps(request) + "\n")
        self._launcher.stdin.flush()
        code = int(self._launcher.stdout.readline())
        return Done(code, out.read_text(), err.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._launcher.stdin is not None
        self._launcher.stdin.close()
        self._launcher.wait(timeout=60)


def _strike(spec: str, how: str) -> dict[str, Any]:
    at, _, call = spec.partition("#")
    return {"at": at, "call": int(call.rstrip("+")), "when": "after" if call.endswith("+") else "before", "how": how}


def tree(name: str = "tiny") -> dict[str, Any]:
    """A fresh copy of one of the small configs that lie beside the tests."""
    return yaml.safe_load((HERE / f"{name}.yaml").read_text())


def with_critic() -> dict[str, Any]:
    """`tiny.yaml` with generalised advantages, and the critic that they need."""
    content = tree()
    content["rl"] |= {
        "advantage": {"name": "gae"},
        "critic": {"learner": {"optimizer": {"lr": 1.0e-3}, "schedule": {"name": "linear", "warmup_updates": 2}}},
    }
    return content


def write_config(folder: Path, content: dict[str, Any], name: str = "config.yaml") -> Path:
    """A config file in a folder."""
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, each of whose lines must be whole."""
    text = path.read_text()
    assert text.endswith("\n"), f"{path} ends in the middle of a line"
    return [json.loads(line) for line in text.splitlines()]


def strict_json(path: Path) -> Any:
    """A JSON file, by the letter of the standard: NaN and Infinity are no JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


def reproducible(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl` without what depends on the machine."""
    return [{k: v for k, v in row.items() if not k.startswith(("timing_s/", "perf/"))} for row in rows(path)]

"""A Slurm cluster of three nodes on this machine (`tests/slurm/rack.sh`), and the jobs that launch/slurm.sh submits."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

REPOSITORY = Path(__file__).parents[2]
LAUNCHER = REPOSITORY / "launch" / "slurm.sh"
DRIVER = REPOSITORY / "tests" / "slurm" / "driver.py"
TOOLS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "nsenter", "ip", "pgrep", "mknod")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NODES = 3
SMALL = "--object-store-memory=100000000 --num-cpus=1 --no-monitor --include-log-monitor=false"
"""Words for `ray start` that save memory and time."""


def why_not() -> str | None:
    """What this machine lacks for a rack; None when it can have one."""
    if os.geteuid() != 0:
        return "needs root, for namespaces with networks of their own"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if absent:
        return f"needs {', '.join(absent)} (Debian: apt install slurmctld slurmd slurm-client munge iproute2 procps)"
    if importlib.util.find_spec("ray") is None:
        return "needs ray"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"], capture_output=True, text=True
    )
    return f"needs namespaces: {tried.stderr.strip()}" if tried.returncode else None


def until(condition: Callable[[], bool], what: str, *, seconds: float = 60) -> None:
    """Wait for something; fails when it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


class Rack:
    """A running cluster. As a context manager: leaving it ends all that ran on it.

    Args:
        folder: for its files, and for the shared folder `work` that jobs are submitted from.
    """

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self._folder = folder / "rack"
        self._venv = make_environment(folder / "venv")
        self._broken: list[Path] = []
        command = [REPOSITORY / "tests" / "slurm" / "rack.sh", self._folder, str(NODES), "bash", "-c", "echo up; cat"]
        self._keeper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PATH": PATH}, text=True
        )

    def __enter__(self) -> Self:
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "up\n", "the rack did not come up"
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children").read_text().split()
        self._controller = children[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        self._keeper.stdin.close()
        try:
            self._keeper.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        self._keeper.stdout.close()

    def run(
        self, *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the controller, where users log in."""
        enter = ["nsenter", "--target", self._controller, "--all", f"--wd={cwd or self.work}", "--"]
        everything = {**os.environ, "PATH": PATH, "SLURM_CONF": str(self._folder / "slurm.conf"), **(env or {})}
        return subprocess.run([*enter, *command], env=everything, capture_output=True, text=True, timeout=60)

    def on_node(self, node: int, *command: str) -> str:
        """What a command on a node prints."""
        done = self.run(self._folder / "node.sh", "run", str(node), *command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def leftovers(self, *nodes: int) -> list[str]:
        """Processes on the nodes that are not Slurm's, and node-local files."""
        found: list[str] = []
        for node in nodes:
            told = self.on_node(node, "bash", "-c", "ps -e -o args=; ls /run/node").splitlines()
            slurms = ("bash -c", "slurmd", "slurmstepd", "ps -e", "mount ", "hostname ", "      ")
            found += [f"n{node}: {line}" for line in told if not line.startswith(slurms)]
        return found

    def is_clean(self, *nodes: int) -> None:
        """Nothing is left on the nodes; what was killed last may take a moment to be gone."""
        end = time.monotonic() + 20
        while left := self.leftovers(*nodes):
            assert time.monotonic() < end, f"left behind: {left}"
            time.sleep(0.1)

    def break_ray(self, node: int, script: str) -> None:
        """Have `ray` be something else on a node, until `mend`."""
        self._broken.append(self._venv / "bin" / f"ray.n{node}")
        self._broken[-1].write_text(f"#!/bin/bash\n{script}\n")
        self._broken[-1].chmod(0o755)

    def mend(self) -> None:
        """Undo `break_ray`."""
        while self._broken:
            self._broken.pop().unlink()

    def environment(self, driver: str | None = None) -> dict[str, str]:
        """Settings of the launcher for small jobs."""
        return {
            "RLHF_VENV": str(self._venv),
            "RLHF_RAY_TMP": "/run/node/ray",
            "RLHF_RAY_ARGS": SMALL,
            "RLHF_WAIT_S": "120",
            "RLHF_DRIVER": driver or f"{self._venv}/bin/python {DRIVER}",
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests/integration",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def submit(
        self,
        *words: str,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        config: str = "config.yaml",
    ) -> Job:
        """`launch/slurm.sh CONFIG words -- options` as a user calls it, on the first node if nothing is said."""
        if not (self.work / config).exists():
            (self.work / config).touch()
        options = ["--gpus-per-node=2", *(options or ("--nodelist=n1",))]
        command = ["bash", LAUNCHER, config, *words, "--", *options]
        done = self.run(*command, env={**self.environment(), **(env or {})})
        told = re.fullmatch(r"submitted: job (\d+), log (\S+)\n", done.stdout)
        assert told, f"{done.stdout}\n{done.stderr}"
        return Job(rack=self, number=int(told[1]), log=Path(told[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job on the rack, and what it has printed."""

    rack: Rack
    number: int
    log: Path

    def facts(self) -> dict[str, str]:
        """What Slurm says of it."""
        told = self.rack.run("scontrol", "-o", "show", "job", str(self.number)).stdout
        return dict(word.split("=", 1) for word in told.split() if "=" in word)

    @property
    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def until_it_says(self, text: str, *, seconds: float = 90) -> None:
        """Wait for words in its output."""
        until(
            lambda: text in self.output or self.is_over(),
            f"'{text}' in the output of job {self.number}",
            seconds=seconds,
        )
        assert text in self.output, f"ended without saying '{text}':\n{self.output}"

    def is_over(self) -> bool:
        return self.facts()["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def ended(self, *, seconds: float = 120) -> str:
        """Its state, exit code and number of restarts, once it is over."""
        until(self.is_over, f"job {self.number} is over\n{self.output}", seconds=seconds)
        facts = self.facts()
        return f"{facts['JobState']} {facts['ExitCode']} restarts {facts['Restarts']}"

    def signal(self, which: signal.Signals) -> None:
        """Signal its batch shell alone, as Slurm does before the time limit."""
        self.rack.run("scancel", "--batch", f"--signal={which.name.removeprefix('SIG')}", str(self.number))

    def ray_log(self, task: int, restart: int = 0) -> str:
        """What a node's task printed."""
        return (self.log.parent / f"{self.number}.{restart}" / f"ray-{task}.log").read_text()


def make_environment(folder: Path) -> Path:
    """What launch/slurm.sh takes for a finished virtual environment: this interpreter, its ray and our rlhf."""
    binaries = folder / "bin"
    binaries.mkdir(parents=True)
    scripts = {
        "python": f'exec {sys.executable} "$@"',
        # A test may put another program in its place on one node.
        "ray": f'[ ! -x "$0.$(uname -n)" ] || exec "$0.$(uname -n)"; exec {sys.executable} -m ray.scripts.scripts "$@"',
        "rlhf": f'exec {sys.executable} -m rlhf.cli "$@"',
    }
    for name, line in scripts.items():
        (binaries / name).write_text(f"#!/bin/bash\n{line}\n")
        (binaries / name).chmod(0o755)
    note = f'. "{REPOSITORY}/launch/_venv.sh"; echo "cluster $(fingerprint)" >"$INSTALLED"'
    subprocess.run(["bash", "-c", note], check=True, env=os.environ | {"RLHF_VENV": str(folder)})
    return folder

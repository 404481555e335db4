"""`rlhf sweep --ray` on a real Ray cluster that is started here: results, failures, and death at either end."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import environment, tree, write_config
from test_sweep import SWEEP, children_in, results

from rlhf.core.errors import UserError
from rlhf.sweeps import ray_server

pytest.importorskip("ray", reason="needs ray[default]")
pytestmark = pytest.mark.cluster

BAD = {"rewards": {"digits": {"name": "user_function", "path": "user_rewards.no_such_function", "isolate": False}}}


def sweep(folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "rlhf.cli", "sweep", "fight.yaml", *options]
    return subprocess.run(command, cwd=folder, env=environment() | env, capture_output=True, text=True)


@dataclass(frozen=True)
class Cluster:
    """A cluster of one node with two CPUs, which lets in only who has its token."""

    address: str
    token: str

    @property
    def env(self) -> dict[str, str]:
        """What gets a command in. RAY_ADDRESS leads nowhere: what the user writes counts."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_ADDRESS": "http://127.0.0.1:9"}

    def jobs(self, folder: Path) -> dict[str, str]:
        """Status of the jobs that run in a folder, by the name of the run and the attempt."""
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            jobs: list[dict[str, Any]] = json.load(answer)
        mine = [job for job in jobs if f"cd {folder} " in job["entrypoint"]]
        return {f"{job['metadata']['run']} {job['submission_id'].rpartition('-')[2]}": job["status"] for job in mine}

    def start(self, folder: Path) -> subprocess.Popen[str]:
        """The sweep of a folder on this cluster, under way."""
        command = [sys.executable, "-m", "rlhf.cli", "sweep", "fight.yaml", "--ray", self.address]
        env = environment() | self.env
        return subprocess.Popen(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(happened: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """What a question answers once it is true."""
    deadline = time.monotonic() + seconds
    while not (answer := happened()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return answer


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    dashboard, agent, client = free_ports(3)
    made = Cluster(f"http://127.0.0.1:{dashboard}", secrets.token_hex(16))
    home = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # A longer path would not fit into the name of a socket.
    options = {
        "port": 0,
        "node-ip-address": "127.0.0.1",
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "num-cpus": 2,
        "object-store-memory": 100_000_000,
        "temp-dir": home,
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    with (Path(home) / "start.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            env=environment() | made.env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def answers() -> bool:
        assert process.poll() is None, (Path(home) / "start.log").read_text()
        try:
            return made.jobs(Path("nowhere")) == {}
        except (urllib.error.URLError, TimeoutError):
            return False

    try:
        until(answers, "a job server that answers", 120)
        yield made
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


def prepare(folder: Path, **changes: Any) -> Path:
    """A folder with a sweep file and its base config."""
    folder.mkdir(exist_ok=True)
    write_config(folder, tree() | {"device": "auto"})
    write_config(folder, SWEEP | changes, "fight.yaml")
    return folder


def runs_in(folder: Path) -> dict[int, str]:
    """Command lines of the runs that are under way in a folder, by process."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in children_in(folder)}
    return {pid: line for pid, line in lines.items() if "\0train\0" in line}


def test_killed_it_finds_its_jobs_again_and_gives_what_local_processes_give(cluster: Cluster, tmp_path: Path) -> None:
    there, here = prepare(tmp_path / "there", seeds=[0]), prepare(tmp_path / "here", seeds=[0])
    killed = cluster.start(there)
    ((run, _), *_) = until(lambda: runs_in(there), "a run that is under way").items()
    # Held, so that it surely goes on when the sweep is called again.
    os.kill(run, signal.SIGSTOP)
    killed.kill()
    killed.communicate()
    again = cluster.start(there)
    assert again.stdout is not None
    said = [again.stdout.readline(), again.stdout.readline()]
    os.kill(run, signal.SIGCONT)
    rest, errors = again.communicate(timeout=120)
    assert again.returncode == 0, rest + errors
    assert "as Ray jobs on http://127.0.0.1:" in said[0] and said[1].startswith("found "), said
    assert sorted(cluster.jobs(there).values()) == ["SUCCEEDED"] * 2, "nothing was submitted twice"
    for log in (there / "sweeps" / "fight" / "logs").glob("*.log"):
        assert log.read_text().count(f"run {log.stem}: ") == 1
    done = sweep(here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(there) == results(here)


def test_a_failed_arm_and_a_job_that_dies_with_its_node_are_reported_and_tried_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    prepare(tmp_path, arms={"fine": {}, "bad": BAD}, seeds=[0])
    process = cluster.start(tmp_path)
    fine = until(lambda: [pid for pid, line in runs_in(tmp_path).items() if "fine-seed0" in line], "the run")[0]
    # As the loss of a node does, this takes the process away that looks after the job.
    supervisor = int(Path(f"/proc/{fine}/stat").read_text().rpartition(")")[2].split()[1])
    assert b"JobSupervisor" in Path(f"/proc/{supervisor}/cmdline").read_bytes()
    os.kill(supervisor, signal.SIGKILL)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in errors, said + errors
    members = [arm["members"][0] for arm in results(tmp_path)["arms"]]
    assert [member["status"] for member in members] == ["failed", "failed"]
    assert "actor died" in members[0]["error"], members[0]["error"]
    assert members[1]["error"].startswith("exit code 2\n") and "no_such_function" in members[1]["error"]
    until(lambda: not runs_in(tmp_path), "the end of the run that lost its supervisor")
    done = sweep(tmp_path, "--ray", cluster.address, "--share", "0/2", **cluster.env)
    assert done.returncode == 0 and "1 runs, 0 of them done" in done.stdout, done.stdout + done.stderr
    names = {name.partition("-")[0] + name[-2:]: status for name, status in cluster.jobs(tmp_path).items()}
    assert names == {"fine 1": "FAILED", "bad 1": "FAILED", "fine 2": "SUCCEEDED"}


def test_an_interrupt_stops_running_and_waiting_jobs(cluster: Cluster, tmp_path: Path) -> None:
    prepare(tmp_path, seeds=[0], threads=2)
    process = cluster.start(tmp_path)
    until(lambda: sorted(cluster.jobs(tmp_path).values()) == ["PENDING", "RUNNING"], "one that runs, one that waits")
    until(lambda: runs_in(tmp_path), "a run that is under way")
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "not known" not in said, said + errors
    assert list(cluster.jobs(tmp_path).values()) == ["STOPPED"] * 2
    assert children_in(tmp_path) == []
    assert not list(tmp_path.glob("sweeps/fight/logs/*.failed"))


def test_without_the_token_nothing_is_run(cluster: Cluster, tmp_path: Path) -> None:
    prepare(tmp_path)
    done = sweep(tmp_path, "--ray", cluster.address)
    assert done.returncode == 2 and "RAY_AUTH_TOKEN" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert cluster.jobs(tmp_path) == {}


def test_an_address_without_a_cluster_is_refused() -> None:
    (port,) = free_ports(1)
    with pytest.raises(UserError, match=r"no job server answers: Failed to connect"):
        ray_server.connect(f"http://127.0.0.1:{port}")


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_server, "CALL_S", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(UserError, match="no job server answers: TimeoutError"),
    ):
        ray_server.connect(f"http://127.0.0.1:{silent.getsockname()[1]}")

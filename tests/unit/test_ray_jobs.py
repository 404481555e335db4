"""Runs as jobs: ids, commands, places, and what the end of a job means, on a scripted job server."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from test_runner import make_run

from rlhf.core.errors import UserError
from rlhf.sweeps import ray_jobs, ray_server
from rlhf.sweeps.ray_jobs import RayJobs, entrypoint, stem
from rlhf.sweeps.ray_server import JobServer
from rlhf.sweeps.runner import Ended
from rlhf.sweeps.runs import Run


@dataclass
class Job:
    submission_id: str | None
    status: str = "PENDING"
    message: str | None = None
    error_type: str | None = None
    driver_exit_code: int | None = None
    cpus: int = 0
    gpus: int = 0


class Server:
    """Remembers jobs; the test says what becomes of them."""

    def __init__(self) -> None:
        self.known: dict[str, Job] = {}
        self.away = 0
        """Calls that fail."""
        self.told: list[str] = []

    def get_address(self) -> str:
        return "http://server"

    def submit_job(
        self,
        *,
        entrypoint: str,
        submission_id: str,
        metadata: dict[str, str],
        entrypoint_num_cpus: int,
        entrypoint_num_gpus: int,
    ) -> str:
        if submission_id in self.known:
            raise RuntimeError(f"{submission_id} already exists")
        self.known[submission_id] = Job(submission_id, cpus=entrypoint_num_cpus, gpus=entrypoint_num_gpus)
        self._answer()
        return submission_id

    def stop_job(self, job_id: str) -> bool:
        self.told.append(job_id)
        self.known[job_id].status = "STOPPED"
        return True

    def get_job_info(self, job_id: str) -> Job:
        self._answer()
        if job_id not in self.known:
            raise RuntimeError("status code 404")
        return self.known[job_id]

    def list_jobs(self) -> Sequence[Job]:
        self._answer()
        return list(self.known.values())

    def _answer(self) -> None:
        self.away -= 1
        if self.away >= 0:
            raise ConnectionError("nobody is there")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(ray_server, "RETRY_S", 0.0)
    monkeypatch.setattr(RayJobs, "poll_s", 0.0)
    monkeypatch.setattr(ray_jobs, "SETTLE_S", 0.0)
    return Server()


def jobs_on(server: Server, *, parallel: int = 0, gpus: int = 0, said: list[str] | None = None) -> RayJobs:
    notice = ([] if said is None else said).append
    return RayJobs(JobServer(server, gpus=lambda: gpus), parallel=parallel, threads=2, cache=None, notice=notice)


def run_on(folder: Path, device: str = "cpu", name: str = "one") -> Run:
    (folder / "config.yaml").write_text("stages: [rl]\nmodel: {init: tiny}\nrl: {loop: online}\n")
    return replace(make_run(folder, name), overrides=(f"device={device}", f"run.name={name}"))


def end_of(server: Server, run: Run, **said: object) -> Ended:
    """What a job's end is taken for."""
    jobs = jobs_on(server)
    jobs.start(run)
    newest = list(server.known)[-1]
    server.known[newest] = replace(server.known[newest], **said)  # pyright: ignore[reportArgumentType]
    (ended,) = jobs.ended()
    return ended


def test_an_id_follows_from_the_place_of_a_run_and_is_safe_in_an_address(tmp_path: Path) -> None:
    odd = make_run(tmp_path, "größe=4,lr=0.1-seed0-0123abcd")
    assert stem(odd) == stem(make_run(tmp_path, odd.name))
    assert stem(odd) != stem(make_run(tmp_path, odd.name[:-1] + "e"))
    (tmp_path / "elsewhere").mkdir()
    assert stem(odd) != stem(make_run(tmp_path / "elsewhere", odd.name))
    assert stem(odd).isascii() and not set(stem(odd)) & set("/=,% ?#")
    assert len(stem(make_run(tmp_path, "x" * 200))) < 120


def test_a_job_changes_to_the_folder_and_keeps_tokens_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "my lab"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("HF_HOME", "/models of all")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = entrypoint(run_on(home), cache=Path("sweeps/cache"), threads=3)
    assert "hf_secret" not in text
    words = shlex.split(text)
    assert words[:5] == ["cd", str(home), "&&", "exec", "env"]
    assert {"HF_HOME=/models of all", "OMP_NUM_THREADS=3"} <= set(words)
    assert words[words.index("-m") : words.index("-m") + 3] == ["-m", "rlhf.cli", "train"]
    assert words[-5:] == ["--cache", "sweeps/cache", f">>{home}/logs/one.log", "2>&1", "</dev/null"]


@pytest.mark.parametrize(
    ("device", "there", "reserved"), [("cpu", 8, 0), ("cuda", 0, 1), ("cuda:0", 8, 1), ("auto", 8, 1), ("auto", 0, 0)]
)
def test_a_job_reserves_its_threads_and_a_gpu_if_it_takes_one(
    tmp_path: Path, server: Server, device: str, there: int, reserved: int
) -> None:
    jobs_on(server, gpus=there).start(run_on(tmp_path, device))
    (job,) = server.known.values()
    assert (job.cpus, job.gpus) == (2, reserved)


def test_one_job_waits_for_a_place_or_as_many_as_the_user_says(tmp_path: Path, server: Server) -> None:
    jobs = jobs_on(server)
    assert jobs.has_room()
    jobs.start(run_on(tmp_path))
    assert not jobs.has_room()
    next(iter(server.known.values())).status = "RUNNING"
    assert jobs.ended() == [] and jobs.has_room()
    jobs = jobs_on(server, parallel=2)
    jobs.start(run_on(tmp_path, name="two"))
    assert jobs.has_room()
    jobs.start(run_on(tmp_path, name="three"))
    assert not jobs.has_room()


def test_a_job_of_an_earlier_call_is_found_unless_it_is_over(tmp_path: Path, server: Server) -> None:
    runs = [run_on(tmp_path, name=name) for name in ("one", "two")]
    for run in runs:
        jobs_on(server).start(run)
    server.known[f"{stem(runs[0])}-1"].status = "FAILED"
    again = jobs_on(server)
    assert again.resume(runs) == [runs[1]]
    again.start(runs[0])
    assert list(server.known) == [f"{stem(runs[0])}-1", f"{stem(runs[1])}-1", f"{stem(runs[0])}-2"]


def test_of_two_calls_at_once_the_second_waits_for_the_job_of_the_first(tmp_path: Path, server: Server) -> None:
    run = run_on(tmp_path)
    first, second = jobs_on(server), jobs_on(server)
    assert first.resume([run]) == second.resume([run]) == []
    first.start(run)
    second.start(run)
    (job,) = server.known.values()
    job.status, job.message = "FAILED", "no node"
    assert second.ended() == first.ended() == [Ended(run=run, failure="no node")]


def test_a_submission_whose_answer_is_lost_is_not_repeated(tmp_path: Path, server: Server) -> None:
    server.away = 1
    jobs_on(server).start(run_on(tmp_path))
    assert len(server.known) == 1


def test_the_last_words_are_those_of_the_run_if_it_spoke_else_those_of_ray(tmp_path: Path, server: Server) -> None:
    run = run_on(tmp_path)
    failed = {"status": "FAILED", "driver_exit_code": 2}
    assert end_of(server, run, **failed, message="cd: no such folder").failure == "cd: no such folder"
    run.log.write_text("error: rl.steps: is negative\n")
    assert end_of(server, run, **failed, message="a lot").failure == "exit code 2\nerror: rl.steps: is negative"
    died = end_of(server, run, status="FAILED", message="Job supervisor actor died: its node is gone")
    assert died.failure.endswith("\nJob supervisor actor died: its node is gone")


def test_a_job_that_somebody_stopped_has_failed_but_one_that_was_found_runs_again(
    tmp_path: Path, server: Server
) -> None:
    run = run_on(tmp_path)
    assert "not by this command" in end_of(server, run, status="STOPPED").failure
    jobs_on(server).start(run)
    jobs = jobs_on(server)
    assert jobs.resume([run]) == [run]
    list(server.known.values())[-1].status = "STOPPED"
    assert jobs.ended() == [Ended(run=run, again=True)]


def test_a_job_without_a_place_waits_on_while_others_of_the_sweep_run(tmp_path: Path, server: Server) -> None:
    gone: dict[str, object] = {"status": "FAILED", "error_type": ray_jobs.NO_PLACE, "message": "no room"}
    assert end_of(server, run_on(tmp_path), **gone).failure == "no room"
    jobs = jobs_on(server, parallel=2)
    for name in ("runs", "waits"):
        jobs.start(run_on(tmp_path, name=name))
    running, waiting = list(server.known.values())[-2:]
    running.status = "RUNNING"
    waiting.status, waiting.error_type = "FAILED", ray_jobs.NO_PLACE
    assert [(end.run.name, end.again) for end in jobs.ended()] == [("waits", True)]


def test_a_cluster_that_forgot_a_job_has_lost_it(tmp_path: Path, server: Server) -> None:
    jobs = jobs_on(server)
    jobs.start(run_on(tmp_path))
    server.known.clear()
    (ended,) = jobs.ended()
    assert "knows no job" in ended.failure


def test_a_server_that_is_away_for_a_moment_is_waited_for_and_then_reported(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_on(server)
    jobs.start(run_on(tmp_path))
    server.away = 3
    assert jobs.ended() == [] and server.away < 0
    monkeypatch.setattr(ray_server, "PATIENCE_S", 0.05)
    server.away = 1_000_000
    with pytest.raises(UserError, match="nobody is there"):
        jobs.ended()


def test_stopping_tells_every_job_and_names_those_that_may_go_on(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()
    jobs = jobs_on(server, parallel=2, said=said)
    for name in ("one", "two"):
        jobs.start(run_on(tmp_path, name=name))
    jobs.stop()
    assert server.told == list(server.known) and said == []
    jobs.start(run_on(tmp_path, name="three"))
    monkeypatch.setattr(ray_jobs, "STOP_S", 0.05)
    server.away = 1_000_000
    jobs.stop()
    assert len(said) == 1 and list(server.known)[-1] in said[0] and "nobody is there" in said[0]

"""Runs the runs of a sweep as jobs of a Ray cluster (`rlhf sweep FILE --ray ADDRESS`).

A job is the same command that `local_processes` runs, in the same working directory and with the same Python: all nodes
share the file system, and nothing is uploaded. The run's output goes into its log in the sweep's folder, so continuing,
collecting and reporting do not ask who executed a run. Ray's own log of the job holds what went wrong before that.

Jobs outlive this process when it is killed. The next call knows them by their submission ids, which follow from the
place of the run, and waits for them; that the server takes an id once keeps two calls from starting one run twice.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from rlhf.core.errors import UserError
from rlhf.sweeps import ray_server
from rlhf.sweeps.ray_server import JobDetails, JobServer
from rlhf.sweeps.runner import Ended, Notice, command, last_words
from rlhf.sweeps.runs import Run, Status

STOP_S = 30.0
"""For which jobs that were told to stop are waited for. Ray kills them after 3 s."""
SETTLE_S = 60.0
"""For which a network file system may hide the result of a run that has ended on another node."""
WAIT_S = 60.0
"""After which it is said what a job waits for."""

WAITS, SUCCEEDED, STOPPED, FAILED = "PENDING", "SUCCEEDED", "STOPPED", "FAILED"
OVER = (SUCCEEDED, STOPPED, FAILED)
NO_PLACE = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
"""Ray gives a job up that has found no place for 15 minutes (RAY_JOB_START_TIMEOUT_SECONDS of the cluster)."""


@dataclass(slots=True, kw_only=True)
class _Job:
    run: Run
    name: str
    """Submission id."""
    found: bool = False
    """It was submitted by another call."""
    gpus: int = 0
    waits: bool = True
    """For a place in the cluster."""
    since: float = field(default_factory=time.monotonic)
    announced: bool = False
    """That it waits."""
    submission: Future[str] | None = None
    succeeded: float | None = None
    """When the server said so first."""


class RayJobs:
    """The executor of a Ray cluster.

    Args:
        server: of the cluster's jobs.
        parallel: jobs at once, waiting ones included. 0 leaves it to the cluster: there is always one that waits for a
            place, until no run is left.
        threads: CPUs that a job reserves. It reserves a GPU as well if its `device` is one, or is auto and the cluster
            has any.
        cache: of stages that runs share.
        notice: told what does not go on.
    """

    poll_s = 1.0
    begun = "submitted"

    def __init__(self, server: JobServer, *, parallel: int, threads: int, cache: Path | None, notice: Notice) -> None:
        self._server, self._notice = server, notice
        self._parallel, self._threads, self._cache = parallel, threads, cache
        self._has_gpus: bool | None = None
        self._used: set[str] = set()
        self._going: list[_Job] = []

    def describe(self) -> str:
        """How many at once, and where."""
        many = f"{self._parallel} at once" if self._parallel else "as many at once as there is room for"
        return f"as Ray jobs on {self._server.address}, {many}, {self._threads} thread(s) each"

    def resume(self, runs: Sequence[Run]) -> list[Run]:
        """Take charge of the runs whose jobs an earlier call has left behind, alive."""
        alive = {name.rpartition("-")[0]: name for name in self._server.patiently(self._alive)}
        self._going = [_Job(run=run, name=alive[stem(run)], found=True) for run in runs if stem(run) in alive]
        return [job.run for job in self._going]

    def has_room(self) -> bool:
        """Whether one more job may be submitted."""
        if self._parallel:
            return len(self._going) < self._parallel
        return not any(job.waits for job in self._going)

    def start(self, run: Run) -> None:
        """Submit a run; one that another call has submitted meanwhile is waited for instead.

        Raises:
            UserError: the server refuses it, or is away.
        """
        gpus = int(self._takes_gpu(run))
        for number in range(1, 1_000_000):
            job = _Job(run=run, name=f"{stem(run)}-{number}", gpus=gpus)
            if job.name in self._used:
                continue
            # Before it is submitted: a Ctrl-C during the call must find it.
            self._going.append(job)
            try:
                self._server.patiently(lambda job=job: self._submit(job))
                self._used.add(job.name)
                return
            except RuntimeError as refusal:
                job.found = job.name in self._server.patiently(self._alive)
                if job.found:
                    return
                self._going.remove(job)
                if job.name not in self._used:
                    problem = f"refuses a job: {str(refusal).strip().splitlines()[-1]}"
                    raise UserError(self._server.address, problem, fix="read the log of the cluster") from refusal

    def ended(self) -> list[Ended]:
        """Runs whose jobs have ended."""
        found: list[Ended] = []
        for job in list(self._going):
            info = self._server.patiently(lambda job=job: self._server.job(job.name))
            self._watch_wait(job, info)
            end = self._end(job, info)
            if end is not None:
                self._going.remove(job)
                found.append(end)
        return found

    def stop(self) -> None:
        """Stop every job and wait until it is over; say so when one may go on."""
        # A submission that was interrupted may still get through.
        wait([job.submission for job in self._going if job.submission is not None], timeout=ray_server.CALL_S)
        left, until, problem = [job.name for job in self._going], time.monotonic() + STOP_S, ""
        while left and time.monotonic() < until:
            try:
                alive = self._alive()
                left = [name for name in left if name in alive]
                # Each time again: a job that is just being placed does not hear it.
                for name in left:
                    self._server.stop(name)
            except Exception as error:
                problem = f": {error or type(error).__name__}"
            time.sleep(self.poll_s if left else 0)
        self._going.clear()
        if left:
            fix = "the same command finds them again, `ray job stop ID` stops one"
            self._notice(f"not known to have stopped{problem}: {' '.join(left)}\n  {fix}")

    def _submit(self, job: _Job) -> str:
        job.submission = ray_server.begin(
            lambda: self._server.client.submit_job(
                entrypoint=entrypoint(job.run, cache=self._cache, threads=self._threads),
                submission_id=job.name,
                metadata={"run": job.run.name, "folder": str(job.run.folder.path)},
                entrypoint_num_cpus=self._threads,
                entrypoint_num_gpus=job.gpus,
            )
        )
        return job.submission.result(ray_server.CALL_S)

    def _takes_gpu(self, run: Run) -> bool:
        device = run.experiment().settings.device
        if device == "auto" and self._has_gpus is None:
            self._has_gpus = self._server.gpus() > 0
        return device.startswith("cuda") or (device == "auto" and self._has_gpus is True)

    def _alive(self) -> set[str]:
        """Submission ids of jobs that are not over. Remembers all that there are."""
        jobs = self._server.jobs()
        self._used |= jobs.keys()
        return {name for name, job in jobs.items() if job.status not in OVER}

    def _watch_wait(self, job: _Job, info: JobDetails | None) -> None:
        job.waits = info is not None and info.status == WAITS
        if job.waits and not job.announced and time.monotonic() - job.since > WAIT_S:
            job.announced = True
            needs = f"{self._threads} CPU(s)" + (f" and {job.gpus} GPU" if job.gpus else "")
            self._notice(f"{'waits':<9} {job.run.name}  until a node of the cluster has {needs} to spare")

    def _end(self, job: _Job, info: JobDetails | None) -> Ended | None:
        """What has become of a job; None while it is under way."""
        if info is None:
            return Ended(run=job.run, failure=f"the cluster knows no job {job.name} any more: was it restarted?")
        if info.status == SUCCEEDED:
            job.succeeded = time.monotonic() if job.succeeded is None else job.succeeded
            hidden = job.run.status != Status.DONE and time.monotonic() - job.succeeded < SETTLE_S
            return None if hidden else Ended(run=job.run)
        said = last_words(job.run)
        if info.status == STOPPED:
            # An earlier call may have asked for it, and ended before the job did.
            if job.found:
                return Ended(run=job.run, again=True)
            return Ended(run=job.run, failure=f"{said}\njob {job.name} was stopped, and not by this command".strip())
        if info.status != FAILED:
            return None
        if info.error_type == NO_PLACE and any(not other.waits for other in self._going if other is not job):
            return Ended(run=job.run, again=True)
        if info.driver_exit_code is not None and said:
            return Ended(run=job.run, failure=f"exit code {info.driver_exit_code}\n{said}")
        # The run never spoke, for example for want of its folder, or its node died: Ray knows more.
        return Ended(run=job.run, failure=f"{said}\n{info.message or 'without a word'}".strip())


def stem(run: Run) -> str:
    """Submission id of a run without its last part, the number of the attempt: a readable name, and a digest of its
    place."""
    place = os.path.abspath(run.folder.path)
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", run.name)[:80]
    return f"rlhf-{readable}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def entrypoint(run: Run, *, cache: Path | None, threads: int) -> str:
    """Shell command of a job. It takes along where modules and models are found, and no secrets: everyone who may ask
    the job server can read it."""
    taken = {k: v for k, v in os.environ.items() if k.startswith(("HF_", "PYTHONPATH")) and "TOKEN" not in k}
    env = taken | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    words = ["env", *(f"{name}={value}" for name, value in sorted(env.items())), *command(run, cache=cache)]
    return f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(words)} >>{shlex.quote(str(run.log))} 2>&1 </dev/null"

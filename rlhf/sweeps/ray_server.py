"""The job server of a Ray cluster, asked so that nothing waits for ever: each call has a deadline, and a server that is
away for a while is waited for.

The official client (`ray.job_submission`) does the talking; it has neither.

Anyone who reaches a job server runs commands as its user. `ray start --head` keeps it on the loopback interface, but
other ports of Ray listen on every one; RAY_AUTH_MODE=token, set for the cluster and here, closes all of them to whoever
lacks the token (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token). The client sends it only if that is set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import Protocol, TypeVar, cast

from rlhf.core.errors import UserError

CALL_S = 20.0
"""A call may take as long."""
PATIENCE_S = 60.0
"""For which a server that has answered before may be away."""
RETRY_S = 1.0

T = TypeVar("T")


class JobDetails(Protocol):
    """What of Ray's description of a job is used here."""

    submission_id: str | None
    status: str
    message: str | None
    error_type: str | None
    driver_exit_code: int | None


class Client(Protocol):
    """What of `ray.job_submission.JobSubmissionClient` is used here. Calls raise OSError when the server is away and
    RuntimeError when it refuses."""

    def get_address(self) -> str: ...

    def submit_job(
        self,
        *,
        entrypoint: str,
        submission_id: str,
        metadata: dict[str, str],
        entrypoint_num_cpus: int,
        entrypoint_num_gpus: int,
    ) -> str: ...

    def stop_job(self, job_id: str) -> bool: ...

    def get_job_info(self, job_id: str) -> JobDetails: ...

    def list_jobs(self) -> Sequence[JobDetails]: ...


class _Node(Protocol):
    state: str
    resources_total: dict[str, float] | None


class JobServer:
    """A job server that has answered.

    Args:
        client: talks to it.
        gpus: how many GPUs the nodes of the cluster have.
    """

    def __init__(self, client: Client, *, gpus: Callable[[], int]) -> None:
        self.client, self.gpus = client, gpus
        self.address = client.get_address()

    def jobs(self) -> dict[str, JobDetails]:
        """Every job that the cluster remembers, by submission id.

        Raises:
            OSError: the server is away.
        """
        jobs = begin(self.client.list_jobs).result(CALL_S)
        return {job.submission_id: job for job in jobs if job.submission_id is not None}

    def job(self, name: str) -> JobDetails | None:
        """One job; None when the cluster does not know it.

        Raises:
            OSError: the server is away.
        """
        try:
            return begin(lambda: self.client.get_job_info(name)).result(CALL_S)
        except RuntimeError:
            return self.jobs().get(name)

    def stop(self, name: str) -> None:
        """Ask for a job's end; does not wait for it.

        Raises:
            OSError: the server is away.
            RuntimeError: it does not know the job.
        """
        begin(lambda: self.client.stop_job(name)).result(CALL_S)

    def patiently(self, ask: Callable[[], T]) -> T:
        """An answer of the server, which may be away for a while.

        Raises:
            UserError: for too long.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return ask()
            except OSError as error:
                if time.monotonic() < until:
                    time.sleep(RETRY_S)
                    continue
                problem = f"the job server has not answered for {PATIENCE_S:.0f} s: {_said(error)}"
                fix = "see to the cluster, then run the same command: it finds the jobs that are still running"
                raise UserError(self.address, problem, fix=fix) from error


def connect(address: str) -> JobServer:
    """The job server at an address: its own, `http://HOST:8265`, or what `ray.init` takes, `auto` or HOST:PORT.

    Raises:
        UserError: there is no Ray here, or no cluster there, or it wants another token.
    """
    where = f"--ray {address}"
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException
    except ImportError as error:
        fix = "pip install 'rlhf[cluster]'"
        raise UserError(where, f"Ray's job client cannot be imported: {error}", fix=fix) from error
    try:
        with _no_other_address(address):
            client = cast("Client", begin(lambda: JobSubmissionClient(address)).result(CALL_S))
    except AuthenticationError as error:
        fix = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the token of the cluster"
        raise UserError(where, error.message, fix=fix) from error
    except (OSError, RuntimeError, ValueError) as error:
        fix = "give the address of the cluster's job server, which `ray start --head` prints: http://127.0.0.1:8265"
        raise UserError(where, f"no job server answers: {_said(error)}", fix=fix) from error

    def gpus() -> int:
        try:
            with _no_other_address(address := client.get_address()):
                nodes = begin(lambda: cast("list[_Node]", list_nodes(address, limit=10_000))).result(CALL_S)
        except (OSError, RayStateApiException) as error:
            fix = "write `device: cuda` or `device: cpu` into the config instead of auto"
            raise UserError(where, f"does not say which GPUs it has: {_said(error)}", fix=fix) from error
        return sum(int((node.resources_total or {}).get("GPU", 0)) for node in nodes if node.state == "ALIVE")

    return JobServer(client, gpus=gpus)


def begin(call: Callable[[], T]) -> Future[T]:
    """Start a call in a thread that nobody has to wait for."""
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=work, daemon=True).start()
    return answer


@contextmanager
def _no_other_address(address: str) -> Generator[None]:
    """Ray prefers two variables of the environment to the address that it is given. Unless that leaves it to them, hide
    these for as long as an address is looked up."""
    names = () if address == "auto" else ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _said(error: Exception) -> str:
    """The last line of what an error says; its kind when it says nothing, as a deadline does."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]

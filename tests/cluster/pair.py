"""Processes that are the ranks of a learner, started once and asked again and again, since each start takes seconds."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

TIMEOUT_S = 240
"""The first start on a machine compiles an operator of DeepSpeed's."""


class Ranks:
    """Runs functions on every rank at once.

    Args:
        size: how many ranks; they meet over loopback.
        named: the environment says where they meet, as it must for more than one.
    """

    def __init__(self, size: int, *, named: bool = True) -> None:
        context = multiprocessing.get_context("spawn")
        port = _free_port() if named else 0
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            own, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, size, port), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(own)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The results of `function(rank, *arguments)`, by rank; the function is found by its name there."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers: list[Any] = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(TIMEOUT_S), f"rank {rank} hangs in {function.__name__}"
            answers.append(pipe.recv())
        failures = [f"rank {rank}: {text}" for rank, (ok, text) in enumerate(answers) if not ok]
        assert not failures, "\n".join(map(str, failures))
        return [answer for _, answer in answers]

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()


def _serve(pipe: Connection, rank: int, size: int, port: int) -> None:
    place = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if port:
        os.environ.update({name: str(value) for name, value in place.items()} | {"GLOO_SOCKET_IFNAME": "lo"})
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        faulthandler.dump_traceback_later(0.9 * TIMEOUT_S)
        try:
            pipe.send((True, function(rank, *arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
        faulthandler.cancel_dump_traceback_later()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""The loop that brings runs to their ends, on a scripted executor."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from rlhf.core.run_folder import RunFolder
from rlhf.sweeps import runner
from rlhf.sweeps.runner import Ended
from rlhf.sweeps.runs import Run, Status


def make_run(folder: Path, name: str) -> Run:
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "runs" / name).mkdir(parents=True, exist_ok=True)
    return Run(
        arm=name,
        seed=0,
        name=name,
        config=folder / "config.yaml",
        overrides=(),
        folder=RunFolder(folder / "runs" / name),
        log=folder / "logs" / f"{name}.log",
    )


class Scripted:
    """Ends a run at every look, the oldest first, as its name says."""

    poll_s = 0.0
    begun = "started"

    def __init__(self, room: int, *, left: Sequence[str] = ()) -> None:
        self.room, self.left = room, left
        self.going: list[Run] = []
        self.started: list[str] = []
        self.most = 0
        self.stopped = False

    def describe(self) -> str:
        return "scripted"

    def resume(self, runs: Sequence[Run]) -> list[Run]:
        self.going = [run for run in runs if run.name in self.left]
        return list(self.going)

    def has_room(self) -> bool:
        return len(self.going) < self.room

    def start(self, run: Run) -> None:
        self.going.append(run)
        self.started.append(run.name)
        self.most = max(self.most, len(self.going))

    def ended(self) -> list[Ended]:
        if not self.going:
            return []
        run = self.going.pop(0)
        if run.name == "terminated":
            os.kill(os.getpid(), signal.SIGTERM)
        if run.name.startswith("bad"):
            return [Ended(run=run, failure="exit code 1\nno luck")]
        if run.name == "unplaced" and self.started.count("unplaced") == 1:
            return [Ended(run=run, again=True)]
        if run.name != "silent":
            run.folder.summary.write_text("{}")
        return [Ended(run=run)]

    def stop(self) -> None:
        self.stopped = True


def execute(folder: Path, executor: Scripted, *names: str, seconds: float = 0) -> dict[str, Status]:
    runs = [make_run(folder, name) for name in names]
    runner.execute(runs, executor, seconds=seconds, notice=lambda line: None)
    return {run.name: run.status for run in runs}


def test_a_failure_is_marked_with_its_last_words_and_stops_no_other(tmp_path: Path) -> None:
    executor = Scripted(room=2)
    found = execute(tmp_path, executor, "one", "bad", "two")
    assert found == {"one": Status.DONE, "bad": Status.FAILED, "two": Status.DONE}
    assert (tmp_path / "logs" / "bad.failed").read_text() == "exit code 1\nno luck\n"
    assert executor.most == 2 and executor.stopped


def test_every_run_that_came_to_its_end_is_looked_at_when_it_has(tmp_path: Path) -> None:
    seen, runs = list[str](), [make_run(tmp_path, name) for name in ("one", "bad", "silent", "two")]
    runner.execute(runs, Scripted(room=1), seconds=0, notice=lambda line: None, look=lambda run: seen.append(run.name))
    assert seen == ["one", "two"]


def test_a_run_that_succeeds_without_a_result_has_failed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "silent.log").write_text("all is well")
    assert execute(tmp_path, Scripted(room=1), "silent") == {"silent": Status.FAILED}
    assert (tmp_path / "logs" / "silent.failed").read_text() == "exit code 0, but no result\nall is well\n"


def test_done_runs_are_left_alone_and_failed_ones_tried_again(tmp_path: Path) -> None:
    make_run(tmp_path, "done").folder.summary.write_text("{}")
    make_run(tmp_path, "one").failed.write_text("exit code 1")
    executor = Scripted(room=1)
    assert set(execute(tmp_path, executor, "done", "one").values()) == {Status.DONE}
    assert executor.started == ["one"] and not (tmp_path / "logs" / "one.failed").exists()


def test_runs_that_an_earlier_call_left_under_way_are_waited_for(tmp_path: Path) -> None:
    executor = Scripted(room=1, left=["two"])
    assert set(execute(tmp_path, executor, "one", "two").values()) == {Status.DONE}
    assert executor.started == ["one"]


def test_a_run_without_a_place_takes_its_turn_again(tmp_path: Path) -> None:
    executor = Scripted(room=1)
    assert set(execute(tmp_path, executor, "unplaced", "other").values()) == {Status.DONE}
    assert executor.started == ["unplaced", "unplaced", "other"]


def test_after_the_budget_no_run_starts(tmp_path: Path) -> None:
    executor = Scripted(room=1, left=["one"])
    found = execute(tmp_path, executor, "one", "two", seconds=1e-9)
    assert executor.started == [] and found == {"one": Status.DONE, "two": Status.OPEN}


def test_a_request_to_terminate_stops_what_is_under_way(tmp_path: Path) -> None:
    executor, before = Scripted(room=1), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path, executor, "terminated", "other")
    assert executor.stopped and executor.started == ["terminated"]
    assert signal.getsignal(signal.SIGTERM) is before

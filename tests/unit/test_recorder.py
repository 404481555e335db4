"""One row per step: metrics, phases, throughput; the same values in the file and in every sink."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rlhf.core.metrics import Max, Mean, Sum
from rlhf.core.run_folder import RunFolder, read_lines
from rlhf.loops.recorder import Recorder


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class ListSink:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", made)
    yield made


def test_a_step_is_one_row_in_the_file_and_in_every_sink(tmp_path: Path, clock: Clock) -> None:
    folder, sinks = RunFolder(tmp_path), [ListSink(), ListSink()]
    recorder = Recorder(folder, sinks, {})
    recorder.add({"critic/score/mean": Mean(3.0, 4), "batch/samples": Sum(8), "nothing": Mean(0.0, 0)})
    recorder.add({"actor/lr": 1e-6, "plain": 2})
    with recorder.phase("gen"):
        clock.now += 2
    with recorder.phase("reward"):
        clock.now += 0.5
    with recorder.phase("gen"):
        clock.now += 1
    recorder.count_tokens(30)
    recorder.count_tokens(10)
    clock.now += 0.5
    row = recorder.step(5, "rl")
    expected = {
        "critic/score/mean": 0.75,
        "batch/samples": 8.0,
        "actor/lr": 1e-6,
        "plain": 2.0,
        "timing_s/gen": 3.0,
        "timing_s/reward": 0.5,
        "timing_s/step": 4.0,
        "perf/throughput": 10.0,
    }
    assert row == expected
    assert list(read_lines(folder.metrics)) == [{"step": 5, "stage": "rl", **expected}]
    assert all(sink.rows == [(5, expected)] for sink in sinks)


def test_the_next_row_starts_from_nothing(tmp_path: Path, clock: Clock) -> None:
    recorder = Recorder(RunFolder(tmp_path), [], {})
    recorder.add({"a": 1.0})
    with recorder.phase("gen"):
        clock.now += 1
    recorder.count_tokens(9)
    recorder.step(1, "sft")
    clock.now += 2
    assert recorder.step(2, "sft") == {"timing_s/step": 2.0}


def test_a_later_value_of_the_same_step_wins(tmp_path: Path, clock: Clock) -> None:
    recorder = Recorder(RunFolder(tmp_path), [], {})
    recorder.add({"a": Max(1.0)})
    recorder.add({"a": 3.0})
    assert recorder.step(1, "rl")["a"] == 3.0


def test_seconds_add_up_over_steps_and_restarts(tmp_path: Path, clock: Clock) -> None:
    recorder = Recorder(RunFolder(tmp_path), [], {"gen": 10.0, "total": 20.0})
    for step in (1, 2):
        with recorder.phase("gen"):
            clock.now += 1.5
        recorder.step(step, "rl")
    assert recorder.seconds == {"gen": 13.0, "total": 23.0}


def test_a_phase_that_fails_is_counted(tmp_path: Path, clock: Clock) -> None:
    recorder = Recorder(RunFolder(tmp_path), [], {})
    with pytest.raises(ValueError), recorder.phase("gen"):
        clock.now += 1
        raise ValueError
    assert recorder.step(1, "rl")["timing_s/gen"] == 1.0


def test_the_file_keeps_nine_digits(tmp_path: Path, clock: Clock) -> None:
    folder = RunFolder(tmp_path)
    recorder = Recorder(folder, [], {})
    recorder.add({"third": 1 / 3, "large": 123456789012.0, "tiny": 1.23456789123e-12})
    recorder.step(1, "rl")
    (row,) = read_lines(folder.metrics)
    assert (row["third"], row["large"], row["tiny"]) == (0.333333333, 123456789000.0, 1.23456789e-12)
    assert math.isclose(row["third"], 1 / 3, rel_tol=1e-8)


def test_closing_closes_every_sink(tmp_path: Path) -> None:
    sinks = [ListSink(), ListSink()]
    Recorder(RunFolder(tmp_path), sinks, {}).close()
    assert all(sink.closed for sink in sinks)

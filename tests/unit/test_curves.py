"""Drawings: what is kept of a long curve, and that a drawing follows the page's colours."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from run_folder import accuracy, make_run, write_lines

from rlhf.report.curves import PALETTE, POINTS, Line, accuracy_chart, line_chart, smooth, thin, write_curve
from rlhf.report.record import read_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "sums-grpo")


def test_thinning_keeps_the_extremes_and_the_order() -> None:
    values = np.sin(np.arange(5000) / 50.0)
    values[1234], values[4321] = 9.0, -9.0
    kept = thin(values, 100)
    assert len(kept) <= 100
    assert {1234, 4321} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()
    assert thin(values[:80], 100).tolist() == list(range(80))


def test_smoothing_is_a_mean_over_what_there_is_of_the_window() -> None:
    assert smooth(np.asarray([0.0, 3.0, 6.0, 9.0, 12.0, 99.0])).tolist() == [3.0, 4.5, 6.0, 25.8, 31.5, 40.0]
    line = np.arange(400.0)
    assert smooth(line)[20:-20] == pytest.approx(line[20:-20])


def test_colours_of_a_chart_are_all_css_variables(finished: Path) -> None:
    chart = line_chart(
        read_run(finished), title="Reward", caption="", lines=[Line(key="critic/score/mean", label="score")]
    )
    assert chart is not None
    assert re.findall(r"#[0-9a-f]{6}\b", chart.svg) == []
    assert "var(--c0)" in chart.svg
    assert "var(--shade)" in chart.svg
    assert "grpo" in chart.svg


def test_no_step_is_named_that_was_not_made(tmp_path: Path) -> None:
    """A round number just behind the last step would stand half outside of the drawing."""
    write_lines(tmp_path / "metrics.jsonl", [{"step": s, "stage": "grpo", "loss": 1.0} for s in range(2375)])
    chart = line_chart(read_run(tmp_path), title="x", caption="", lines=[Line(key="loss", label="x")])
    assert chart is not None
    assert "2000</text>" in chart.svg and "2400</text>" not in chart.svg


def test_a_share_that_stands_still_is_drawn_on_the_whole_scale(tmp_path: Path) -> None:
    """Around itself, it would be labelled with shares below nothing."""
    write_lines(tmp_path / "metrics.jsonl", [{"step": s, "stage": "grpo", "cut": 0.0} for s in range(40)])
    chart = line_chart(read_run(tmp_path), title="x", caption="", lines=[Line(key="cut", label="x")], percent=True)
    assert chart is not None
    assert re.findall(r">(\S+%)<", chart.svg) == ["0%", "25%", "50%", "75%", "100%"]


def test_light_colours_are_distinct_so_that_they_can_be_told_apart() -> None:
    light = [value for value, _ in PALETTE.values()]
    assert len(set(light)) == len(light)


def test_a_chart_without_values_is_left_out(finished: Path) -> None:
    assert line_chart(read_run(finished), title="x", caption="", lines=[Line(key="no/such", label="x")]) is None


def test_a_chart_of_a_long_run_stays_small_and_keeps_its_spike(tmp_path: Path) -> None:
    rows = [{"step": s, "stage": "grpo", "actor/grad_norm": 1.0 + (s % 7) / 100} for s in range(20_000)]
    rows[777]["actor/grad_norm"] = 50.0
    write_lines(tmp_path / "metrics.jsonl", rows)
    chart = line_chart(
        read_run(tmp_path), title="Gradient", caption="", lines=[Line(key="actor/grad_norm", label="norm")]
    )
    assert chart is not None
    assert len(chart.svg) < 40 * 2 * POINTS
    assert "45" in re.findall(r">(\d+)<", chart.svg)


def test_of_many_evaluations_the_first_and_last_are_drawn(tmp_path: Path) -> None:
    rows = [{"step": s, "stage": "grpo"} | accuracy(s, 0.2 + s / 10_000) for s in range(4000)]
    write_lines(tmp_path / "metrics.jsonl", rows)
    chart = accuracy_chart(read_run(tmp_path), title="Accuracy", caption="")
    assert chart is not None
    assert len(chart.svg) < 120_000
    marks = re.findall(r'<use xlink:href="#[^"]*" x="([\d.]+)"', chart.svg)
    assert max(map(float, marks)) - min(map(float, marks)) > 330


def test_a_drawing_is_the_same_every_time(finished: Path) -> None:
    run, lines = read_run(finished), [Line(key="actor/entropy", label="entropy")]
    first, second = (line_chart(run, title="Entropy", caption="", lines=lines) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_standalone_curve(finished: Path, tmp_path: Path, suffix: str) -> None:
    out = write_curve(finished, tmp_path / f"curve.{suffix}")
    start = out.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in out.read_bytes()[:2000]
    assert out.stat().st_size > 10_000


def test_standalone_curve_of_an_empty_run_says_so(tmp_path: Path) -> None:
    assert write_curve(tmp_path, tmp_path / "curve.png").stat().st_size > 1000


def test_the_accuracy_chart_has_every_task_before_it_has_every_measure(tmp_path: Path) -> None:
    names = [f"val-core/{task}/{what}/mean" for task in "abc" for what in ("sampled_accuracy", "pass@2", "pass@4")]
    write_lines(
        tmp_path / "metrics.jsonl", [{"step": step, "stage": "rl", **dict.fromkeys(names, 0.5)} for step in (0, 1)]
    )
    chart = accuracy_chart(read_run(tmp_path), title="Accuracy", caption="")
    assert chart is not None
    assert [key.label for key in chart.legend[:4]] == ["a: sampled", "b: sampled", "c: sampled", "a: pass@2"]
    assert len(chart.legend) == 8

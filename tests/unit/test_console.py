"""The terminal sink: columns of a log, the live panel, and that errors pass through it."""

from __future__ import annotations

import io
from collections import deque
from pathlib import Path

import pytest
from rich.console import Console as Terminal

from rlhf.report.console import HEADER_EVERY, LiveConsole, PlainConsole, make_console, print_result, sparkline
from rlhf.report.stats import Change, Interval

STEP = {
    "critic/score/mean": 0.5,
    "response_length/mean": 41.25,
    "response_length/clip_ratio": 0.125,
    "actor/entropy": 0.75,
    "rollout_corr/k3_kl": 0.0004,
    "actor/grad_norm": 1.5,
    "perf/throughput": 1234.4,
    "timing_s/gen": 2.0,
    "timing_s/update_actor": 1.0,
    "timing_s/step": 3.25,
}
PRINTED = {"reward": "0.500", "length": "41.2", "cut%": "12.5", "entropy": "0.750", "kl gap": "4.0e-04", "grad": "1.5"}
EVALUATION = {f"val-core/sums/sampled_accuracy/{k}": v for k, v in (("mean", 0.412), ("low", 0.38), ("high", 0.444))}


class Clock:
    """Time that passes only when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def plain(total: int = 10, *, clock: Clock | None = None) -> tuple[PlainConsole, io.StringIO]:
    out = io.StringIO()
    return PlainConsole(total, run="sums", stream=out, clock=clock or Clock()), out


def live(out: io.StringIO, *, done: int = 0, clock: Clock | None = None) -> LiveConsole:
    terminal = Terminal(file=out, force_terminal=True, width=100, height=40, color_system=None)
    return LiveConsole(10, run="sums [run]", done=done, terminal=terminal, clock=clock or Clock())


def test_a_log_line_holds_each_value_under_its_name() -> None:
    console, out = plain()
    console.start_stage("grpo", steps=10)
    console.write(1, STEP)
    header, line = out.getvalue().splitlines()[-2:]
    got = {name: line[header.index(name) - 4 : header.index(name) + len(name)].split()[-1] for name in PRINTED}
    assert got == PRINTED
    assert line.split()[:2] == ["1/10", "grpo"]


def test_all_lines_of_a_log_are_equally_long_whatever_they_lack() -> None:
    console, out = plain()
    console.start_stage("a-stage-with-a-long-name", steps=10)
    console.write(1, STEP)
    console.write(2, {"train/ce_loss": 1.5})
    first, second = out.getvalue().splitlines()[-2:]
    assert len(first) == len(second)


def test_a_log_names_its_columns_again_now_and_then() -> None:
    console, out = plain(2 * HEADER_EVERY)
    console.start_stage("grpo", steps=2 * HEADER_EVERY)
    for step in range(1, HEADER_EVERY + 2):
        console.write(step, STEP)
    assert sum("entropy" in line for line in out.getvalue().splitlines()) == 2


def test_remaining_time_is_that_of_the_remaining_steps() -> None:
    clock = Clock()
    console, out = plain(clock=clock)
    console.start_stage("grpo", steps=10)
    console.write(1, STEP)
    clock.now = 3.0
    console.write(2, STEP)
    assert "24.0 s" in out.getvalue().splitlines()[-1]


def test_an_evaluation_shows_its_interval() -> None:
    console, out = plain()
    console.start_stage("grpo", steps=10)
    console.write(0, EVALUATION)
    assert out.getvalue().splitlines()[-1].endswith("sums 41.2% [38.0%, 44.4%]")


def test_a_log_has_no_control_characters() -> None:
    out = io.StringIO()
    with make_console(2, run="sums", done=1, stream=out) as console:
        console.start_stage("grpo", steps=2, done=1)
        console.write(2, STEP)
        console.message("saved [bold]checkpoint")
    assert isinstance(console, PlainConsole)
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().startswith("run sums: 2 steps, 1 already done\nstage grpo: 2 steps, 1 already done\n")
    assert "saved [bold]checkpoint\n" in out.getvalue()


def test_a_terminal_gets_the_live_display_unless_it_is_dumb(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    with make_console(2, run="sums", stream=out) as console:
        assert isinstance(console, LiveConsole)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_console(2, run="sums", stream=out), PlainConsole)


def test_live_panel_shows_the_run() -> None:
    out, clock = io.StringIO(), Clock()
    with live(out, clock=clock) as console:
        console.start_stage("sft", steps=4)
        console.write(4, {"train/ce_loss": 1.0, "timing_s/step": 1.0})
        console.start_stage("grpo", steps=6)
        clock.now = 3.0
        console.write(5, STEP | EVALUATION)
        console.message("saved [bold]checkpoint")
    screen = out.getvalue()
    for words in ("sums [run]", "saved [bold]checkpoint", "1/6 of stage, 5/10 of run", "sums 41.2% [38.0%, 44.4%]"):
        assert words in screen
    last = screen[screen.rindex("╭") :]
    assert "3.00 s so far, about 15.0 s left" in last
    assert "update_actor 1.00 s" in last
    assert "loss" not in last


def test_live_panel_counts_a_resumed_stage_from_where_it_was() -> None:
    out = io.StringIO()
    with live(out, done=7) as console:
        console.start_stage("grpo", steps=6, done=3)
        console.write(8, STEP)
    assert "4/6 of stage, 8/10 of run" in out.getvalue()


def test_an_error_passes_through_and_the_cursor_comes_back() -> None:
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), live(out) as console:
        console.write(1, STEP)
        raise KeyboardInterrupt
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert hidden in out.getvalue()
    assert out.getvalue().rindex(shown) > out.getvalue().rindex(hidden)
    console.close()


def test_an_error_of_the_display_reaches_the_caller() -> None:
    with live(io.StringIO()) as console, pytest.raises(TypeError):
        console.write(1, {"actor/entropy": None})  # pyright: ignore[reportArgumentType]


def test_sparkline_spans_lowest_to_highest() -> None:
    assert sparkline(deque([0.0, 0.5, 1.0])) == "▁▅█"
    assert sparkline(deque([2.0, 2.0])) == "▁▁"
    assert sparkline(deque()) == ""


def test_result_shows_both_accuracies_and_the_report() -> None:
    out = io.StringIO()
    base = Interval(mean=0.09, low=0.06, high=0.12, n=400)
    final = Interval(mean=0.69, low=0.645, high=0.735, n=400)
    change = Change(before=base, after=final)
    print_result({"sums": change}, report=Path("runs/sums/report.html"), stream=out)
    assert out.getvalue().startswith("\nheld-out accuracy (95% interval")
    assert "before   9.0%  [  6.0%,  12.0%]  on 400 prompts" in out.getvalue()
    assert "after   69.0%  [ 64.5%,  73.5%]  on 400 prompts" in out.getvalue()
    assert "+60.0 points; the intervals do not overlap" in out.getvalue()
    assert out.getvalue().endswith("report: runs/sums/report.html\n")


def test_result_without_an_evaluation_says_so() -> None:
    out = io.StringIO()
    print_result({"sums": Change(before=None, after=None)}, report=None, stream=out)
    assert out.getvalue().count("not evaluated") == 2


def test_results_of_several_tasks_are_named() -> None:
    out = io.StringIO()
    high, low = (Interval(mean=m, low=m - 0.04, high=m + 0.04, n=100) for m in (0.8, 0.5))
    changes = {"sums": Change(before=low, after=high), "differences": Change(before=high, after=low)}
    print_result(changes, report=Path("report.html"), stream=out)
    first, second = out.getvalue().split("held-out accuracy of ")[1:]
    assert first.startswith("sums (95%") and "+30.0 points" in first
    assert second.startswith("differences (95%") and "-30.0 points" in second
    assert out.getvalue().count("report: ") == 1

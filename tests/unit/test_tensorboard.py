"""What TensorBoard itself reads back from the sink's event files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

from rlhf.report.tensorboard import TensorBoard, overview


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    return events.Reload()


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def write(folder: Path, steps: range, value: float, *, purge_step: int | None = None) -> None:
    sink = TensorBoard(folder, purge_step=purge_step)
    for step in steps:
        sink.write(step, {"critic/score/mean": value, "timing_s/gen": 2.0})
    sink.close()


def test_scalars_come_back_under_their_names(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4), 0.5)
    assert curve(tmp_path, "critic/score/mean") == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert curve(tmp_path, "timing_s/gen") == [(1, 2.0), (2, 2.0), (3, 2.0)]


def test_a_resumed_run_hides_what_was_written_after_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, range(1, 11), 0.0)
    write(tmp_path, range(6, 8), 1.0, purge_step=6)
    assert curve(tmp_path, "critic/score/mean") == [(s, 0.0) for s in range(1, 6)] + [(6, 1.0), (7, 1.0)]


def test_layout_is_stored_and_names_each_task_with_its_interval(tmp_path: Path) -> None:
    TensorBoard(tmp_path, tasks=["sums"]).close()
    [event] = read(tmp_path).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])  # pyright: ignore[reportAttributeAccessIssue]
    margins = [chart for category in layout.category for chart in category.chart if chart.HasField("margin")]
    assert [chart.title for chart in margins] == ["Held-out accuracy: sums"]
    [series] = margins[0].margin.series
    assert series.value == "val-core/sums/sampled_accuracy/mean"
    assert series.lower == "val-core/sums/sampled_accuracy/low"
    assert series.upper == "val-core/sums/sampled_accuracy/high"


@pytest.mark.parametrize(
    "tag",
    [
        "critic/score/mean",
        "actor/entropy",
        "actor/grad_norm",
        "rollout_corr/k3_kl",
        "response_length/mean",
        "response_length/clip_ratio",
        "timing_s/update_actor",
        "perf/throughput",
        "verdict/timeout",
    ],
)
def test_every_vital_sign_is_on_the_overview_once(tag: str) -> None:
    lines = [
        pattern
        for charts in overview([]).values()
        for kind, patterns in charts.values()
        if kind == "Multiline"
        for pattern in patterns
    ]
    assert sum(re.match(pattern, tag) is not None for pattern in lines) == 1


def test_histograms_leave_out_what_is_not_finite(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    sink.write_histogram(7, "reward", [0.0, 1.0, 1.0, float("nan")])
    sink.write_histogram(8, "reward", [float("nan")])
    sink.close()
    [event] = read(tmp_path).Histograms("reward")
    assert (event.step, event.histogram_value.num, event.histogram_value.sum) == (7, 3.0, 2.0)


def test_sample_text_is_a_code_block(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    sink.write_text(4, "samples/last", "# not a heading\n<b>3+5=8</b>")
    sink.close()
    [event] = read(tmp_path).Tensors("samples/last/text_summary")
    assert event.step == 4
    assert event.tensor_proto.string_val[0] == b"    # not a heading\n    <b>3+5=8</b>"


def test_hparams_are_flat_and_in_the_run_s_own_folder(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path, tasks=["sums"])
    sink.write_hparams({"rl": {"lr": 1e-4, "steps": 20, "stop": ["\n"]}, "seed": None})
    sink.close()
    metadata = read(tmp_path).SummaryMetadata("_hparams_/session_start_info")
    got = parse_session_start_info_plugin_data(metadata.plugin_data.content).hparams
    assert set(got) == {"rl.lr", "rl.steps", "rl.stop", "seed"}
    assert got["rl.lr"].number_value == 1e-4
    assert got["rl.stop"].string_value == "['\\n']"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_steps_samples_become_distributions_and_one_text(tmp_path: Path) -> None:
    row = {"prompt": "1+1=", "text": "#### 3", "gold": "2", "verdict": "wrong", "reason": "mismatch"}
    rows = [row | {"value": 0.0, "length": 7, "advantage": None}, row | {"value": 1.0, "length": 9, "advantage": 0.5}]
    board = TensorBoard(tmp_path)
    board.write_samples(3, rows)
    board.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0, "histograms": 0})
    events.Reload()
    [histogram] = events.Histograms("samples/length")
    assert (histogram.step, histogram.histogram_value.num) == (3, 2)
    assert events.Histograms("samples/advantage")[0].histogram_value.num == 1
    [text] = events.Tensors("samples/first/text_summary")
    assert b"#### 3" in text.tensor_proto.string_val[0] and b"wrong (mismatch)" in text.tensor_proto.string_val[0]

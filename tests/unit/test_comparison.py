"""Results: what is read from run folders, how it is compared and judged, and that it comes back from its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf.core.errors import DataError, RunFolderError
from rlhf.core.run_folder import RunFolder
from rlhf.report import comparison, sweep_page
from rlhf.report.comparison import Comparison, changed_keys
from rlhf.report.contrast import Verdict
from rlhf.sweeps import compare, outcome
from rlhf.sweeps.compare import Entry, Frame
from rlhf.sweeps.spec import Expectation, Metric

ACCURACY = Metric(key="val-core/sums/sampled_accuracy/mean")
LENGTH = Metric(key="response_length/mean", window=2)


def run_folder(path: Path, *, seed: int, accuracy: tuple[float, ...], length: float, clip: float = 0.2) -> RunFolder:
    """A finished run of two stages: three prompts, evaluated twice."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    tree = {"run": {"name": path.name}, "seed": seed, "rl": {"loss": {"clip_high": clip}}}
    folder.config.write_text(yaml.safe_dump(tree))
    folder.environment.write_text("{}")
    mean = sum(accuracy) / len(accuracy)
    rows: list[dict[str, Any]] = [
        {"step": 1, "stage": "sft", "actor/loss": 2.0, "response_length/mean": 99.0},
        {"step": 2, "stage": "rl", "response_length/mean": length - 2, ACCURACY.key: 0.1},
        {"step": 3, "stage": "rl", "response_length/mean": length - 1},
        {"step": 4, "stage": "rl", "response_length/mean": length + 1, ACCURACY.key: mean},
    ]
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluated = [
        {
            "step": step,
            "stage": "rl",
            "task": "sums",
            "prompt_id": f"p{i}",
            "content": f"c{i}",
            "sampled_accuracy": value,
        }
        for step, values in ((2, (0.0, 0.1, 0.2)), (4, accuracy))
        for i, value in enumerate(values)
    ]
    folder.evaluations.write_text("".join(json.dumps(row) + "\n" for row in evaluated))
    folder.summary.write_text(json.dumps({"tokens": 1000 + seed, "seconds": {"total": 7.5}}))
    return folder


def two_arms(home: Path) -> list[Entry]:
    return [
        Entry(
            arm=arm,
            seed=seed,
            status="done",
            folder=run_folder(
                home / f"{arm}{seed}",
                seed=seed,
                accuracy=(0.2 + gain, 0.4 + gain + 0.01 * seed, 0.6 + gain),
                length=20 - 30 * gain,
                clip=0.2 + gain,
            ),
        )
        for arm, gain in (("plain", 0.0), ("better", 0.2))
        for seed in (0, 1, 2)
    ]


def frame(home: Path) -> Frame:
    return Frame(
        name="fight", title="Plain against better", command="rlhf sweep fight.yaml", baseline="plain", home=home
    )


def compared(home: Path, entries: list[Entry] | None = None) -> Comparison:
    expect = [
        Expectation(metric="accuracy", direction="higher", margin=0.1, says="Better is better"),
        Expectation(metric="length", direction="higher", margin=0.0, arm="better"),
    ]
    entries = two_arms(home) if entries is None else entries
    return compare.compare(entries, {"accuracy": ACCURACY, "length": LENGTH}, expect, frame(home))


def test_values_are_those_of_the_last_stage_and_the_last_evaluation(tmp_path: Path) -> None:
    found = outcome.read(run_folder(tmp_path / "run", seed=0, accuracy=(1.0, 0.0, 0.5), length=20.0))
    assert found.value(ACCURACY) == {"c0": 1.0, "c1": 0.0, "c2": 0.5}
    assert found.value(LENGTH) == {"": 20.0}
    assert found.value(Metric(key="response_length/mean", window=1, reduce="change")) == {"": 3.0}
    assert found.value(Metric(key="response_length/mean", window=3, reduce="max")) == {"": 21.0}
    assert found.value(Metric(key="response_length/mean", window=2, reduce="std")) == {"": 1.0}
    assert found.value(Metric(key=ACCURACY.key, window=2)) == {"": pytest.approx(0.3)}, "not of one evaluation"
    assert found.series(ACCURACY.key) == {2: 0.1, 4: 0.5}


def test_a_metric_that_no_run_recorded_names_the_nearest(tmp_path: Path) -> None:
    entries = two_arms(tmp_path)
    for key in ("response_length/men", "actor/loss"):
        with pytest.raises(DataError, match=rf"metrics\.x\.key: no run recorded '{key}'") as caught:
            compare.compare(entries, {"x": Metric(key=key)}, [], frame(tmp_path))
    with pytest.raises(DataError, match="perhaps response_length/mean"):
        compare.compare(entries, {"x": Metric(key="response_length/men")}, [], frame(tmp_path))
    assert "metrics.jsonl" in str(caught.value)


def test_a_metric_that_one_run_lacks_is_missing_there_alone(tmp_path: Path) -> None:
    entries = two_arms(tmp_path)
    path = entries[1].folder.metrics
    path.write_text(path.read_text().replace("response_length/mean", "elsewhere"))
    found = compare.compare(entries, {"length": LENGTH}, [], frame(tmp_path))
    plain, better = (arm.estimates["length"] for arm in found.arms)
    assert plain is not None and better is not None and (plain.seeds, better.seeds) == (2, 3)
    assert "length" not in found.arms[0].members[1].values


def test_arms_differences_and_verdicts(tmp_path: Path) -> None:
    found = compared(tmp_path)
    plain, better = found.arms
    gain = better.differences["accuracy"]
    assert plain.differences == {} and gain is not None and gain.over == "seeds and prompts"
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.2, 0.2, 0.2), abs=1e-12)
    length = better.differences["length"]
    assert length is not None and length.mean == pytest.approx(-6.0) and length.over == "seeds"
    assert [f.verdict for f in found.findings] == [Verdict.HOLDS, Verdict.FAILS]
    assert found.findings[0].sentence == (
        "accuracy, better less plain: +0.200 [+0.200, +0.200] over seeds and prompts;"
        " expected higher by more than 0.1: holds"
    )
    assert found.changed == {"rl.loss.clip_high": {"plain": 0.2, "better": 0.4}}
    assert [m.tokens for m in plain.members] == [1000, 1001, 1002] and found.complete
    assert plain.members[1].folder == "plain1", "links work from the file's own folder"
    band = better.curves["length"]
    assert list(band.steps) == [1, 2, 3, 4] and list(band.mean) == pytest.approx([99, 12, 13, 15])


def test_a_claim_may_speak_of_every_arm_by_itself(tmp_path: Path) -> None:
    """The arms have a mean accuracy of about 0.4 and 0.6; what is drawn beside differences is of them alone."""
    expect = [Expectation(metric="accuracy", direction="above", margin=0.5)]
    found = compare.compare(two_arms(tmp_path), {"accuracy": ACCURACY}, expect, frame(tmp_path))
    plain, better = found.findings
    assert (plain.arm, plain.verdict) == ("plain", Verdict.UNDECIDED)
    assert better.sentence.startswith("accuracy, better: 0.6")
    assert better.sentence.endswith("over seeds and prompts; expected above 0.5: undecided")
    (row,) = sweep_page.whiskers(found, "accuracy")
    assert row.expected == () and "above 0.5" in sweep_page.write(found, tmp_path / "report.html").read_text()


def test_an_arm_without_a_finished_run_is_undecided_and_shown_as_such(tmp_path: Path) -> None:
    entries = two_arms(tmp_path)[:3]
    missing = RunFolder(tmp_path / "better0")
    entries.append(Entry(arm="better", seed=0, folder=missing, status="failed", error="exit code 2\nerror: <no>"))
    found = compared(tmp_path, entries)
    assert not found.complete and {f.verdict for f in found.findings} == {Verdict.UNDECIDED}
    page = sweep_page.write(found, tmp_path / "report.html").read_text()
    assert "not complete" in page and "error: &lt;no&gt;" in page


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    found = compared(tmp_path)
    comparison.write(found, tmp_path / "results.json")
    assert comparison.read(tmp_path / "results.json") == found


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', '{"format": 1, "name": "x"}'])
def test_a_broken_result_is_an_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match=r"results\.json: cannot be read(.|\n)*run the sweep again"):
        comparison.read(tmp_path / "results.json")


def test_the_page_holds_the_verdicts_numbers_and_links_and_loads_nothing(tmp_path: Path) -> None:
    found = compared(tmp_path)
    page = sweep_page.write(found, tmp_path / "report.html").read_text()
    for text in (
        "Better is better",
        "does not hold",
        "+0.200 [+0.200, +0.200]",
        "rl.loss.clip_high",
        "plain1/report.html",
    ):
        assert text in page, text
    assert "http://" not in page and "https://" not in page and "<script" not in page
    (row,) = sweep_page.whiskers(found, "length")
    assert row.at < row.zero == row.expected[0], "shorter lies left of zero"


def test_keys_that_one_config_lacks_are_null() -> None:
    assert changed_keys({"a": {"x": {"y": 1}, "z": 2}, "b": {"z": 2}}) == {"x.y": {"a": 1, "b": None}}


def test_runs_are_grouped_by_config_and_compared_with_the_first(tmp_path: Path) -> None:
    paths = [entry.folder.path for entry in two_arms(tmp_path)]
    found = compare.of_runs(paths[::-1], tmp_path)
    assert (found.baseline, [arm.name for arm in found.arms]) == ("better2", ["better2", "plain2"])
    assert [[m.seed for m in arm.members] for arm in found.arms] == [[2, 1, 0], [2, 1, 0]]
    assert set(found.metrics) == {"sums/sampled_accuracy", "response length"}
    loss = found.arms[1].differences["sums/sampled_accuracy"]
    assert loss is not None and loss.mean == pytest.approx(-0.2)


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    entries = two_arms(tmp_path)
    with pytest.raises(DataError, match="the same config but for the seed"):
        compare.of_runs([entry.folder.path for entry in entries[:3]], tmp_path)
    with pytest.raises(DataError, match="plain0 with seed 0 is there twice"):
        compare.of_runs([entries[0].folder.path, entries[0].folder.path, entries[3].folder.path], tmp_path)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        compare.of_runs([tmp_path / "nowhere", entries[0].folder.path], tmp_path)
    entries[4].folder.summary.unlink()
    with pytest.raises(DataError, match="better1: has not finished"):
        compare.of_runs([entries[0].folder.path, entries[4].folder.path], tmp_path)

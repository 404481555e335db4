"""The HTML report on a realistic run folder, on damaged ones, and on model output that tries to break out of it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from run_folder import GRPO, SFT, make_run, metrics_rows, sample_row, write_lines

from rlhf.core.errors import RunFolderError
from rlhf.report.html import config_changes, headline, write_report
from rlhf.report.parts import Section
from rlhf.report.record import read_run
from rlhf.report.samples import DOUBTFUL, EXTREME, LATEST, LIMIT, select
from rlhf.report.sections import sections
from rlhf.report.units import amount, duration

HOSTILE = "</script><script>alert(1)</script>$\\frac{1}{2$<img src=x onerror=alert(2)><!-- {{ 7*7 }} \x00 \u2028 &amp;"


class Page(HTMLParser):
    """What a browser would make of the page, as far as these tests ask."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.data: list[dict[str, Any]] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._inside = "data" if ("id", "data") in attrs else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "data":
            self.data = json.loads(data)
        elif self._inside not in ("script", "style"):
            self.text += f" {data}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "sums-grpo")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def drawn(finished: Path) -> dict[str, Section]:
    return {section.id: section for section in sections(read_run(finished))}


def words(text: str) -> str:
    return " ".join(text.split())


def test_page_tells_the_result_and_where_the_time_went(finished: Path) -> None:
    page = words(Page(finished / "report.html").text)
    assert "sums-grpo finished" in page
    assert "before 9.0% [6.0, 12.0] on 400 prompts; after 69.0% [64.5, 73.5] on 400 prompts." in page
    assert "+60.0 points; the 95% intervals do not overlap" in page
    assert "tokens 832 k" in page
    assert "time 12 min 21 s" in page
    assert "peak memory 3.17 GiB" in page
    assert "git.commit 0f3c2ab91d5e" in page
    assert "rl.lr 1e-06 1e-05" in page


def test_page_loads_nothing_from_elsewhere(finished: Path) -> None:
    page = Page(finished / "report.html")
    assert not {"link", "img", "iframe", "object", "base"} & set(page.tags)
    references = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert references
    assert all(reference.startswith("#") for reference in references)
    assert "url(http" not in (finished / "report.html").read_text(encoding="utf-8")


def test_every_part_of_the_page_is_there(finished: Path, drawn: dict[str, Section]) -> None:
    assert list(drawn) == ["learning", "held-out", "rewards", "verdicts", "mismatch", "time"]
    titles = [chart.title for chart in drawn["learning"].charts]
    assert titles[:3] == ["Held-out accuracy", "Training reward", "Cross-entropy"]
    page = Page(finished / "report.html")
    assert page.tags.count("svg") == sum(len(section.charts) for section in drawn.values())
    anchors = {value for name, value in page.attributes if name == "id"}
    assert {*drawn, "look", "samples", "config", "environment"} <= anchors


def test_staleness_and_waiting_are_drawn_where_rollouts_ran_ahead(tmp_path: Path, drawn: dict[str, Section]) -> None:
    ahead = {"staleness/mean": 0.9, "staleness/max": 2.0, "staleness/crossed": 0.25, "timing_s/wait_rollout": 0.4}
    ahead |= {"perf/collect_s/wait": 0.1, "perf/collect_s/gen": 2.0, "rollout_corr/rollout_is_eff_sample_size": 0.9}
    write_lines(tmp_path / "metrics.jsonl", [{"step": s, "stage": "rl", "timing_s/step": 3.0} | ahead for s in (1, 2)])
    found = {section.id: section for section in sections(read_run(tmp_path))}
    titles = {chart.title for section in found.values() for chart in section.charts}
    more = {"Staleness", "Samples that crossed an update", "Who waits for whom", "Collecting a batch, beside training"}
    assert more | {"What the weights leave"} <= titles
    assert not more & {chart.title for section in drawn.values() for chart in section.charts}
    table = found["time"].table
    assert table is not None
    assert [row[0].text for row in table.rows] == ["wait_rollout", "other"], "what went on beside is no part of a step"


def test_who_judges_steps_or_own_answers_and_a_kl_in_the_reward_are_drawn(tmp_path: Path) -> None:
    keys = ("critic/kl/mean", "verify/balanced_accuracy", "verify/no_verdict", "prm/loss", "val-core/prm/f1")
    rows = [{"step": n, "stage": "rl"} | dict.fromkeys(keys, n / 10) for n in (1, 2)]
    write_lines(tmp_path / "metrics.jsonl", rows)
    titles = {chart.title for section in sections(read_run(tmp_path)) for chart in section.charts}
    assert {"KL in the reward", "Verdicts on own answers", "Process reward model", "First wrong step"} <= titles


def test_tables_hold_sums_over_the_whole_run(drawn: dict[str, Section]) -> None:
    verdicts, time = drawn["verdicts"].table, drawn["time"].table
    assert verdicts is not None
    counted = {row[0].text: int(row[1].text.replace(",", "")) for row in verdicts.rows}
    assert sum(counted.values()) == 64 * GRPO
    assert counted["correct"] == sum(row.get("verdict/correct", 0) for row in metrics_rows())
    assert time is not None
    assert sum(row[2].share or 0 for row in time.rows) == pytest.approx(1.0)
    assert [row[0].text for row in time.rows][:3] == ["gen", "reward", "update_actor"]


def test_hostile_text_stays_text_everywhere(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "<u>run & co")
    row = metrics_rows()[60]
    extra = {
        f"reward/{HOSTILE}/mean": 1.0,
        f"val-core/{HOSTILE}/sampled_accuracy/mean": 0.5,
        f"timing_s/{HOSTILE}": 1.0,
    }
    write_lines(
        folder / "metrics.jsonl", [row | extra | {"step": s, "stage": HOSTILE if s else "sft"} for s in (0, 9, 900)]
    )
    plain = sample_row(0, 61)
    sample = plain | {key: HOSTILE for key, value in plain.items() if isinstance(value, str)}
    write_lines(folder / "samples.jsonl", [sample | {"breakdown": {HOSTILE: 1.0}}])
    (folder / "config.yaml").write_text(json.dumps({"note": HOSTILE.replace("\x00", "")}))
    (folder / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    page = Page(write_report(folder, token_text=lambda _: HOSTILE))
    assert page.tags.count("script") == 2
    assert not {"img", "u"} & set(page.tags)
    assert [name for name, _ in page.attributes if name.startswith("on")] == []
    [shown] = page.data
    assert (shown["text"], shown["tokens"][0], list(shown["breakdown"])) == (HOSTILE, HOSTILE, [HOSTILE])
    assert "{{ 7*7 }}" in page.text


def test_text_that_utf8_cannot_hold_is_shown_escaped(tmp_path: Path) -> None:
    write_lines(tmp_path / "samples.jsonl", [sample_row(0, 61) | {"text": "a\ud800b"}])
    assert Page(write_report(tmp_path)).data[0]["text"] == "a\ud800b"


def test_values_that_json_lacks_become_null(tmp_path: Path) -> None:
    row = sample_row(0, 61) | {"value": float("nan"), "logprobs": [float("-inf"), -0.126]}
    write_lines(tmp_path / "samples.jsonl", [row])
    [shown] = Page(write_report(tmp_path)).data
    assert shown["value"] is None
    assert shown["logprobs"] == [None, -0.13]


def test_a_killed_run_still_has_a_page(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    for name in ("metrics.jsonl", "samples.jsonl"):
        content = (whole / name).read_text()
        (folder / name).write_text(content[: len(content) // 2])
    (folder / "environment.json").write_text('{"git": {"com')
    page = words(Page(write_report(folder)).text)
    assert "killed not finished" in page
    assert "the run is still going, or it ended before its last step" in page
    assert "metrics.jsonl: 1 line(s) could not be read" in page
    assert "samples.jsonl: 1 line(s) could not be read" in page
    assert "environment.json could not be read" in page
    assert "There is no config.yaml." in page
    assert "step 0 9.0% [4.5, 13.5]; step 100" in page


def test_an_empty_run_folder_has_a_page_that_says_so(tmp_path: Path) -> None:
    page = words(Page(write_report(tmp_path)).text)
    for sentence in ("no step has ended", "No evaluation has been recorded", "No trajectory has been scored"):
        assert sentence in page
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such run folder"):
        write_report(tmp_path / "nowhere")


def test_size_is_bounded_whatever_the_run_wrote(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    long = {"text": "<&数" * 2500, "prompt": "p" * 9000, "tokens": list(range(3000)), "logprobs": [-1.2345] * 3000}
    write_lines(folder / "samples.jsonl", [sample_row(i, 41 + i // 8) | long for i in range(2 * LATEST)])
    path = write_report(folder, token_text=lambda token: "<token>")
    assert path.stat().st_size < 3_000_000
    shown = Page(path).data
    assert len(shown) <= LIMIT
    assert "characters left out" in shown[0]["text"]
    assert shown[0]["text"].endswith("数")
    assert shown[0]["length"] == 3000 > len(shown[0]["tokens"])


def test_selection_keeps_extremes_and_doubtful_gradings_of_a_long_run() -> None:
    plain = [sample_row(i, i) | {"value": 0.5, "verdict": "wrong", "advantage": 0.0} for i in range(3000)]
    plain[7] |= {"value": 0.9}
    plain[8] |= {"value": 0.5, "advantage": -2.0}
    plain[9] |= {"value": None, "verdict": "crash", "advantage": None}
    selection = select(plain)
    why = {chosen.sample.id: chosen.why for chosen in selection.chosen}
    assert selection.total == 3000
    assert "best" in why[plain[7]["id"]]
    assert "worst" in why[plain[8]["id"]]
    assert "in doubt" in why[plain[9]["id"]]
    assert sum("latest" in reasons for reasons in why.values()) == LATEST
    assert sum("best" in reasons for reasons in why.values()) == EXTREME
    spread = [chosen.sample.step for chosen in selection.chosen if "spread" in chosen.why]
    assert min(spread) < 600
    assert max(spread) > 2400


def test_selection_is_bounded_and_counts_what_it_cannot_read() -> None:
    rows = [sample_row(i, i) | {"verdict": "timeout"} for i in range(500)]
    selection = select([*rows, None, {"id": "no step"}])
    assert (selection.total, selection.unreadable) == (500, 2)
    assert sum("in doubt" in chosen.why for chosen in selection.chosen) == DOUBTFUL
    assert len(selection.chosen) <= LIMIT


def test_a_sample_scored_again_after_a_resume_is_shown_once() -> None:
    before, after = sample_row(3, 50) | {"text": "before"}, sample_row(3, 50) | {"text": "after"}
    assert [chosen.sample.text for chosen in select([before, after]).chosen] == ["after"]


def test_a_resumed_run_reads_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    rows = [{"step": step, "stage": "grpo" if step > 2 else "sft", "critic/score/mean": 0.0} for step in range(1, 7)]
    again = [{"step": step, "stage": "grpo", "critic/score/mean": 1.0} for step in range(4, 6)]
    write_lines(tmp_path / "metrics.jsonl", rows + again)
    run = read_run(tmp_path)
    assert list(run.series["critic/score/mean"].steps) == [1, 2, 3, 4, 5]
    assert list(run.values("critic/score/mean")) == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert [(stage.name, stage.first, stage.last) for stage in run.stages] == [("sft", 1, 2), ("grpo", 3, 5)]


def test_stages_and_evaluations_are_read(finished: Path) -> None:
    run = read_run(finished)
    assert [(stage.name, stage.first, stage.last) for stage in run.stages] == [
        ("sft", 0, SFT),
        ("grpo", SFT + 1, SFT + GRPO),
    ]
    evaluations = {evaluation.what: evaluation for evaluation in run.evaluations()}
    assert set(evaluations) == {"sampled_accuracy", "greedy_accuracy", "pass@4"}
    first = evaluations["pass@4"].points[0]
    assert (first.step, first.mean) == (0, pytest.approx(0.26))
    assert (first.low, first.high) == (pytest.approx(0.215), pytest.approx(0.305))
    assert len(evaluations["pass@4"].points) == 2 + GRPO // 20


def test_headline_places_both_accuracies_on_one_scale(finished: Path) -> None:
    top = headline(read_run(finished))
    assert top is not None
    assert [tick.label for tick in top.ticks] == ["0%", "20%", "40%", "60%", "80%"]
    before, after = top.bars
    assert (before.at, before.left, before.width) == (11.25, 7.5, 7.5)
    assert after.at == 86.25


def test_headline_of_several_tasks_is_of_the_primary_and_says_so(tmp_path: Path) -> None:
    def evaluated(step: int, ours: float, other: float) -> dict[str, Any]:
        means = {"sums": ours, "differences": other}
        accuracies = {f"val-core/{task}/sampled_accuracy/mean": mean for task, mean in means.items() if mean}
        return {"step": step, "stage": "rl"} | accuracies | {f"val-aux/{task}/ungradable": 0.0 for task in means}

    # At first nothing of the primary could be graded, so that the other task's accuracy is written first.
    write_lines(tmp_path / "metrics.jsonl", [evaluated(0, 0.0, 0.9), evaluated(5, 0.2, 0.8), evaluated(9, 0.4, 0.7)])
    top = headline(read_run(tmp_path))
    assert top is not None and top.task == "sums"
    assert [(bar.label, bar.mean) for bar in top.bars] == [("step 5", 0.2), ("step 9", 0.4)]
    assert "Held-out accuracy: sums" in write_report(tmp_path).read_text()


def test_headline_of_one_task_names_none(finished: Path) -> None:
    top = headline(read_run(finished))
    assert top is not None and top.task == ""


def test_config_changes_against_the_parents() -> None:
    base = {"rl.steps": 100, "rl.loss": "policy", "rl.kl": 0.1, "model.dtype": "float32", "seed": 0}
    own = {"rl.steps": 160, "rl.loss.name": "policy", "rl.loss.clip": 0.2, "model.dtype": "bfloat16", "seed": 0}
    diff = config_changes(base, own)
    assert [(change.key, change.before, change.after) for change in diff.changed] == [
        ("rl.steps", "100", "160"),
        ("model.dtype", "float32", "bfloat16"),
        ("rl.kl", "0.1", "(none)"),
    ]
    assert diff.added == (("rl.loss.clip", "0.2"),)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.421, "0.42 s"),
        (9.999, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.7, "1 h 00 min"),
        (4330, "1 h 12 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (9_999, "9,999"), (832_000, "832 k"), (1.5e6, "1.5 M"), (2.25e9, "2.25 G")]
)
def test_amount(number: float, text: str) -> None:
    assert amount(number) == text

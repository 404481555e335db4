"""Builders in a run: what they ask of its models and rewards, and what they write down."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from commands import KILLED, Shell, rows, tree, write_config

DRAW = {"loop": "generate", "steps": 2, "prompts_per_step": 8, "samples_per_prompt": 4, "select": "all"}


@pytest.fixture(scope="module")
def run(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one builder after the other has asked the same model; the run was killed at the end of `sure`,
    its rows written and no checkpoint made."""
    cwd = tmp_path_factory.mktemp("builders")
    content: dict[str, Any] = tree() | {
        "run": {"name": "built", "report": False},
        "stages": ["sft", "draw", "choose", "ask", "sure", "label"],
        "draw": DRAW,
        "choose": DRAW | {"samples_per_prompt": 0, "build": {"name": "grape", "pool": ["draw"], "solution": False}},
        "ask": DRAW | {"samples_per_prompt": 0, "build": "r_tuning"},
        "sure": DRAW | {"build": "r_tuning_unsupervised"},
        "label": DRAW | {"samples_per_prompt": 0, "build": {"name": "length_tokens", "solution": True, "targets": [8]}},
    }
    # Every stage draws its prompts in an order of its own; so few are drawn by all of them.
    content["task"] |= {"train_size": 16, "max_terms": 2}
    content["sft"]["steps"] = 40
    config = write_config(cwd, content)
    killed = shell.run("train", config, cwd=cwd, kill="rlhf.loops.dataset:write_whole#1+")
    assert killed.code == KILLED, killed.stderr
    shell.run("train", config, cwd=cwd).ok()
    return cwd / "runs" / "built"


def test_the_likeliest_answer_is_that_whose_sampled_tokens_were(run: Path) -> None:
    # By question: two prompts may ask the same.
    sampled: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows(run / "samples.jsonl"):
        if row["stage"] == "draw" and row["verdict"] == "correct":
            sampled.setdefault((row["prompt"], row["text"]), row)
    chosen = rows(run / "data" / "choose.jsonl")
    assert chosen
    for row in chosen:
        asked = row["messages"][0]["content"]
        mine = [r for (question, _), r in sampled.items() if question == asked]
        assert {one["source"] for one in row["scores"]} == {"draw"}
        for one, own in zip(row["scores"], mine, strict=True):
            said = math.fsum(own["logprobs"])
            if own["stop"] == "eos":
                assert one["tokens"] == len(own["tokens"]) and one["logprob"] == pytest.approx(said, abs=1e-3)
            else:
                # Cut off when it was sampled; here its end is learnt, and is one more token.
                assert one["tokens"] == len(own["tokens"]) + 1 and one["logprob"] < said + 1e-3
        means = [one["logprob"] / one["tokens"] for one in row["scores"]]
        assert row["score"] == max(means) and row["completion"] == mine[means.index(max(means))]["text"]


def test_certainty_is_the_verdict_on_a_greedy_answer_that_is_on_record(run: Path) -> None:
    record = {r["id"]: r for r in rows(run / "samples.jsonl") if r["stage"] == "ask"}
    asked = rows(run / "data" / "ask.jsonl")
    assert len(asked) == len(record) == 16
    for row in asked:
        answer = record[row["sample_id"]]
        assert row["certain"] == (answer["verdict"] == "correct") and row["answer"] == answer["text"]
        assert row["verdict"] == answer["verdict"] and row["pieces"][2]["text"].endswith(
            "I am sure." if row["certain"] else "I am unsure."
        )


def test_rows_that_are_seen_together_are_written_once(run: Path) -> None:
    found, sure = rows(run / "data" / "sure.found.jsonl"), rows(run / "data" / "sure.jsonl")
    assert [row["prompt_id"] for row in sure] == [row["prompt_id"] for row in found]
    assert len({row["prompt_id"] for row in sure}) == len(sure) == 16
    certain = [row["entropy"] for row in sure if row["certain"]]
    assert len(certain) == 8 and max(certain) <= min(row["entropy"] for row in sure if not row["certain"])


def test_worked_solutions_are_labelled_without_a_sample(run: Path) -> None:
    labelled = rows(run / "data" / "label.jsonl")
    assert labelled and not [r for r in rows(run / "samples.jsonl") if r["stage"] == "label"]
    for row in labelled:
        assert row["completion"].startswith("[MLT:8]") and 3 < row["words"] <= 13 and row["sample_id"] is None

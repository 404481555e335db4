"""Rows of `samples.jsonl` as the objects that they were written from (`stage.sample_rows`): to replay a sample, or to
score all of them again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf.core.errors import RunFolderError
from rlhf.core.types import Group, Prompt, RewardOut, StopReason, Trajectory, Verdict
from rlhf.loops import online, verify
from rlhf.loops.stage import JUDGES

Record = dict[str, Any]
"""A row of `samples.jsonl`."""


def trajectory(record: Record) -> Trajectory:
    """The answer, without the seed that sampled it."""
    return Trajectory(
        id=record["id"],
        prompt_id=record["prompt_id"],
        index=record["index"],
        prompt_tokens=tuple(record["prompt_tokens"]),
        tokens=tuple(record["tokens"]),
        logprobs=tuple(record["logprobs"]),
        text=record["text"],
        stop=StopReason(record["stop"]),
        policy_version=record["policy_version"],
        sampled=tuple(map(bool, record.get("sampled", ()))),
        seed=0,
    )


def reward(record: Record) -> RewardOut:
    """What the answer got."""
    return RewardOut(
        value=record["value"],
        verdict=Verdict(record["verdict"]),
        reason=record["reason"],
        extracted=record["extracted"],
        breakdown=record["breakdown"],
        weights=record.get("weights", {}),
        per_token=tuple(record.get("per_token", ())),
    )


def groups(together: Iterable[Record]) -> list[Group]:
    """The scored groups of one step; their prompts have id, gold and task, but no text, except those of judgements."""
    by_prompt: dict[str, list[Record]] = {}
    for record in together:
        by_prompt.setdefault(record["prompt_id"], []).append(record)
    return [
        _group(verify.restored(rows[0]) if JUDGES in rows[0] else _prompt(rows[0]), rows)
        for name, rows in by_prompt.items()
    ]


def _prompt(record: Record) -> Prompt:
    return Prompt(id=record["prompt_id"], messages=(), gold=record["gold"], task=record["task"])


def _group(prompt: Prompt, rows: Sequence[Record]) -> Group:
    greedy = rows[0].get("greedy")
    return Group(
        prompt=prompt,
        trajectories=tuple(map(trajectory, rows)),
        rewards=tuple(map(reward, rows)),
        greedy=None if greedy is None else _group(prompt, [greedy | {"prompt_id": prompt.id}]),
    )


def kept(cfg: online.Config, scored: Sequence[Group], *, prompts: int | None = None) -> list[Group]:
    """The groups that a step trains on, filtered and cut as `Collector.collect` does.

    Args:
        cfg: of the stage; its filters decide.
        scored: the groups of a step.
        prompts: how many groups of answers at most; None for as many as the stage takes.
    """
    answers, judgements = list[Group](), list[Group]()
    for group in scored:
        left: Group | None = group
        for component in cfg.filters.values():
            left = component.module.keep(left, component.config).group if left is not None else None
        if left is not None:
            (judgements if verify.judges(left) else answers).append(left)
    return [*answers[: prompts or cfg.prompts_per_step], *judgements]


def asked(prompt_id: str, prompts: Mapping[str, Prompt]) -> Prompt:
    """The prompt of a record with its text; from the second epoch on its id ends in `~<epoch>`.

    Args:
        prompt_id: as recorded.
        prompts: of the task, by id.

    Raises:
        RunFolderError: the task has no such prompt any more.
    """
    for name in (prompt_id, prompt_id.rpartition("~")[0]):
        if name in prompts:
            return replace(prompts[name], id=prompt_id)
    fix = "restore the data that the run was trained on"
    raise RunFolderError(prompt_id, "is the prompt of the sample, but the task has no such prompt any more", fix=fix)

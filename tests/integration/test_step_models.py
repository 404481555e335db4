"""Models of steps learn to find the first wrong one, and a policy that is paid by them pads or does not."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards import process
from rlhf.advantages import grpo
from rlhf.core.component import Component
from rlhf.core.sampling import Transforms
from rlhf.core.training import Head
from rlhf.core.types import Group, Message, Prompt, StopReason, Trajectory
from rlhf.data import packing
from rlhf.data.examples import steps
from rlhf.data.examples.steps import Solution
from rlhf.learner import learner, optimizer, schedule
from rlhf.losses import prm
from rlhf.models import load
from rlhf.report import first_error
from rlhf.report.first_error import Scored
from rlhf.tasks import sums

STEPS, BATCH = 400, 64


def solutions(*, seed: int, held_out: bool, size: int) -> list[Solution]:
    """Traced sums of which a quarter of the additions are wrong; from the same questions several times."""
    cfg = sums.Config(min_terms=3, max_terms=5, max_operand=3, noise=0.25, train_size=size, held_out_size=64)
    found: list[Solution] = []
    while len(found) < size:
        task = sums.build(cfg, seed=seed)
        prompts = task.held_out() if held_out else task.train()
        traced = [steps.given(replace(p, id=f"{p.id}-{seed}"), steps.Config()) for p in prompts]
        found += [solution for solution in traced if solution is not None]
        seed += 1
    return found[:size]


def trained(folder: Path, data: list[Solution]) -> learner.Learner:
    tokenizer = load.load_tokenizer(folder)
    made = learner.Learner(
        lambda dtype: load.load_model(folder, device="cpu", dtype=dtype, head=Head.STEPS),
        tokenizer,
        learner.Config(
            optimizer=optimizer.Config(lr=3e-3, betas=[0.9, 0.98]),
            schedule=schedule.Config(name="cosine", warmup_updates=20),
        ),
        device="cpu",
        loss=Component("prm", prm, prm.Config()),
        transforms=Transforms(),
        total_updates=STEPS,
        version=0,
        first_version=0,
    )
    for n in range(STEPS):
        drawn = [data[(n * BATCH + k) % len(data)] for k in range(BATCH)]
        samples = [s for solution in drawn for s in steps.render(solution, steps.Config(), tokenizer)]
        made.forward_backward(packing.pack(samples, token_budget=8192), counts=packing.count(samples))
        made.optim_step()
    return made


def scored(model: learner.Learner, folder: Path, data: list[Solution]) -> list[Scored]:
    tokenizer = load.load_tokenizer(folder)
    batches = packing.pack([x for s in data for x in steps.render(s, steps.Config(), tokenizer)], token_budget=8192)
    odds = packing.by_sample(batches, model.values(batches))
    return [
        Scored(scores=tuple(1 / (1 + math.exp(-x)) for x in odds[s.prompt.id]), first_error=s.first_error) for s in data
    ]


def test_a_model_of_steps_finds_the_first_wrong_one(tmp_path: Path) -> None:
    """F1 as ProcessBench has it, on questions that it has not seen, with a threshold chosen on those that it has."""
    torch.set_num_threads(1)
    folder = load.prepare(load.Config(init="nano", max_positions=64), tmp_path / "model", texts=[], seed=0)
    model = trained(folder, solutions(seed=0, held_out=False, size=16_384))
    threshold = first_error.best_threshold(scored(model, folder, solutions(seed=0, held_out=False, size=512)))
    held_out = scored(model, folder, solutions(seed=100, held_out=True, size=512))
    found = first_error.measure(held_out, threshold=threshold)
    assert min(found.num_erroneous, found.num_correct) > 150
    assert found.f1 is not None and found.f1 >= 0.8
    by_chance = [replace(s, scores=tuple(random.Random(n).random() for _ in s.scores)) for n, s in enumerate(held_out)]
    luck = first_error.measure(by_chance, threshold=first_error.best_threshold(by_chance)).f1
    assert luck is not None and luck < 0.5


class Pleased:
    """Stands for a model that finds every line good, as all of them are."""

    def score(self, answers: list[process.Answer], **_: float) -> list[tuple[float, ...]]:
        return [tuple(0.9 for _ in answer.steps) for answer in answers]


def answered(pad: float, rng: random.Random) -> tuple[Group, list[list[tuple[int, bool]]]]:
    """Eight answers of two lines, before each of which idle lines stand as often as a coin says; and every throw, with
    the token that it decided."""
    trajectories: list[Trajectory] = []
    throws: list[list[tuple[int, bool]]] = []
    for index in range(8):
        text, decided = "", list[tuple[int, bool]]()
        for line in ("3+5=8", "8+9=17"):
            while len(decided) < 12:
                idle = rng.random() < pad
                decided.append((len(text), idle))
                if not idle:
                    break
                text += f"0+{len(decided)}={len(decided)}\n"
            text += line + "\n"
        throws.append(decided)
        tokens = tuple(range(len(text)))
        trajectories.append(
            Trajectory(
                id=f"0-0-p-{index}",
                prompt_id="p",
                index=index,
                prompt_tokens=(1,),
                tokens=tokens,
                logprobs=(0.0,) * len(text),
                text=text,
                stop=StopReason.EOS,
                policy_version=0,
                seed=0,
                ends=tuple(t + 1 for t in tokens),
            )
        )
    prompt = Prompt(id="p", messages=(Message(role="user", content="3+5+9="),), gold="17", task="sums")
    return Group(prompt=prompt, trajectories=tuple(trajectories)), throws


def padding_after(updates: int, *, credit: str, monkeypatch: pytest.MonkeyPatch) -> float:
    """How likely an idle line is for a policy of one logit, that GRPO with credit per step has trained."""
    monkeypatch.setattr(process, "scorer_of", lambda *_: Pleased())
    no_tools: Any = None
    cfg, logit, rng = process.Config(model="m", credit=credit), -2.0, random.Random(0)
    for _ in range(updates):
        pad = 1 / (1 + math.exp(-logit))
        group, throws = answered(pad, rng)
        graded = replace(group, rewards=tuple(process.score(group, cfg, no_tools)))
        [rows] = grpo.advantages([graded], grpo.Config(std="none", credit="steps"))
        for row, decided in zip(rows, throws, strict=True):
            assert row is not None
            logit += 0.05 * sum(row[token] * (float(idle) - pad) for token, idle in decided)
    return 1 / (1 + math.exp(-logit))


def test_a_policy_pads_where_steps_are_summed_and_not_where_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    start = 1 / (1 + math.exp(2.0))
    assert padding_after(150, credit="sum", monkeypatch=monkeypatch) > 0.9
    for credit in ("min", "potential"):
        assert padding_after(150, credit=credit, monkeypatch=monkeypatch) < 2 * start


def test_shares_of_the_least_as_pure_places_them_are_padded_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the reward departs from the paper's placement: of equally good steps each is paid a part."""

    def shares(rewards: Sequence[float]) -> tuple[float, ...]:
        weights = [math.exp(-reward / 0.1) for reward in rewards]
        return tuple(w / math.fsum(weights) * reward for w, reward in zip(weights, rewards, strict=True))

    monkeypatch.setattr(process.credit, "least_so_far", shares)
    assert padding_after(150, credit="min", monkeypatch=monkeypatch) > 0.5

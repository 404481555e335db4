"""The local runtime: roles are objects of this process, and what they compute is what the objects compute."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import tiny_model
from batches import group

from rewards.pool import WorkerPool
from rewards.rubric import RubricConfig
from rlhf.core import config
from rlhf.core.sampling import Sampling, Transforms
from rlhf.core.types import Request, Verdict
from rlhf.learner import learner
from rlhf.runtime import local
from rlhf.runtime.grading import GraderRole
from rlhf.runtime.roles import EngineRole, LearnerRole, ModelFolder, Site


def model_in(folder: Path) -> ModelFolder:
    tiny_model.model().save_pretrained(folder)
    tiny_model.tokenizer().save_pretrained(folder)
    return ModelFolder(path=folder, dtype="float32", trust_remote_code=False, chat_template=None)


def test_a_learner_gives_its_weights_to_an_engine_which_then_samples_from_them(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    runtime = local.start(local.Config(), Site(device="cpu", pool=WorkerPool()))
    sampler = EngineRole(component=config.build_component("rollout", "transformers_engine", "engine"), model=model)
    frozen = LearnerRole(
        model=model,
        loss=None,
        cfg=learner.Config(),
        transforms=Transforms(),
        total_updates=0,
        version=7,
        first_version=7,
    )
    request = Request(id="0-1-a-0", prompt_tokens=(1, 2, 3), seed=5)

    async def work() -> None:
        engine, trained = await runtime.engine(sampler), await runtime.learner(frozen)
        assert trained.ranks == 1
        sync = runtime.sync(trained, engine)
        await sync.push(7)
        await sync.wait_push()
        await sync.pull()
        await sync.wait_pull()
        [completion] = await engine.generate([request], sampling=Sampling(max_tokens=4))
        assert completion.policy_version == 7 and completion.versions == () and len(completion.tokens) <= 4
        await runtime.close()

    asyncio.run(work())


def test_a_grader_applies_the_rewards_of_its_role() -> None:
    runtime = local.start(local.Config(), Site(device="cpu", pool=WorkerPool()))
    rewards = {"math": config.build_component("rewards", "math", "rewards.math")}
    answers = replace(group(None, None), rewards=())

    async def work() -> None:
        grader = await runtime.grader(GraderRole(rewards=rewards, rubric=RubricConfig()))
        [graded] = await grader.grade([answers])
        assert [r.verdict for r in graded.rewards] == [Verdict.CORRECT, Verdict.CORRECT], "the text 2 answers 1+1="

    asyncio.run(work())


def test_verdicts_are_those_of_the_first_reward_and_others_are_not_asked() -> None:
    runtime = local.start(local.Config(), Site(device="cpu", pool=WorkerPool()))
    rewards = {
        "math": config.build_component("rewards", "math", "rewards.math"),
        "form": config.build_component("rewards", {"name": "format", "template": "<a>{}</a>"}, "rewards.form"),
    }
    role = GraderRole(rewards=rewards, rubric=RubricConfig(gates=["form"], truncated_value=-1.0))
    answers = replace(group(None, None), rewards=())

    async def work() -> None:
        grader = await runtime.grader(role)
        [whole], [first] = await grader.grade([answers]), await grader.verdicts([answers])
        assert [r.value for r in whole.rewards] == [0.0, 0.0] and "form" in whole.rewards[0].breakdown
        assert [(r.value, r.verdict, [*r.breakdown]) for r in first.rewards] == [(1.0, Verdict.CORRECT, ["math"])] * 2

    asyncio.run(work())

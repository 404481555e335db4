"""One side of `vs_trl.py`, in a process of its own: a recipe run by our pipeline, or by TRL's GRPOTrainer.

    python benchmarks/vs_trl_side.py ours|trl OUT.json CONFIG [key=value …]

Both sides read the same config: same starting weights, prompts in the same order, group size, sampling, reward,
optimizer and number of updates. Held-out accuracy is measured by our evaluator on both sides, between steps, with the
clock stopped. `OUT.json` holds one `Step` per step; step 0 is the start.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from rewards.math import verify
from rlhf.core.protocols import EngineHandle
from rlhf.core.run_folder import RunFolder, read_lines
from rlhf.core.types import Prompt
from rlhf.data.render import render_prompt
from rlhf.loops import online, pipeline, settings, setup
from rlhf.loops.prompts import PromptStream
from rlhf.loops.settings import Experiment
from rlhf.runtime.local import LocalEngine, LocalGrader

SPREAD = "vs_trl_side.spread"
"""Dotted path of the reward under which every group has signal."""
TRL_MICRO_BATCH = 64
"""Samples per forward pass on TRL's side: its fastest on a CPU, of 32, 64, 128 and 256."""
LOSS_TYPES = {"sequence": "grpo", "token": "dapo"}
"""Our `loss.aggregate` in TRL's words."""

Reward = Callable[..., list[float | None]]
"""TRL's kind of reward function."""


@dataclass(kw_only=True)
class Step:
    """What one step took, from the end of the step before, without evaluation and checkpoints."""

    step: int
    seconds: float
    length: float
    """Mean tokens per sample."""
    accuracy: float | None = None
    """Held-out, sampled, after the step."""


def main() -> None:
    side, out, config, *overrides = sys.argv[1:]
    experiment = settings.read(Path(config), overrides)
    steps = {"ours": ours, "trl": trl}[side](experiment)
    assert torch.get_num_threads() == experiment.settings.threads, "both sides compute with the same threads"
    Path(out).write_text(json.dumps([asdict(step) for step in steps]))


def spread(completions: Sequence[str], **columns: object) -> list[float | None]:
    """A reward in [0, 1) that differs between any two texts: no group is without signal, so that nothing is skipped."""
    return [zlib.crc32(text.encode()) / 2**32 for text in completions]


def ours(experiment: Experiment) -> list[Step]:
    """`rlhf train`, everything included but evaluation and checkpoints."""
    folder = RunFolder(pipeline.train(experiment))
    return [our_step(row) for row in read_lines(folder.metrics)]


def our_step(row: dict[str, Any]) -> Step:
    seconds = row["timing_s/step"] - row.get("timing_s/eval", 0.0) - row.get("timing_s/checkpoint", 0.0)
    accuracy = next((row[key] for key in row if key.endswith("/sampled_accuracy/mean")), None)
    length = row.get("response_length/mean", 0.0)
    return Step(step=row["step"], seconds=seconds, length=length, accuracy=accuracy)


def trl(experiment: Experiment) -> list[Step]:
    """The same recipe through TRL's public interface."""
    from datasets import Dataset
    from trl import GRPOTrainer

    chosen = experiment.settings
    torch.set_num_threads(chosen.threads)
    folder = RunFolder(chosen.run.path)
    folder.path.mkdir(parents=True)
    shared = setup.parts(chosen, folder.model)
    (stage,) = experiment.stages
    recipe: online.Config = stage.config
    stream = PromptStream(shared.task.train(), seed=chosen.seed, name=stage.name)
    prompts = stream.take(0, recipe.steps * recipe.prompts_per_step)
    rows = [{"prompt": as_text(prompt, shared.tokenizer), "gold": prompt.gold} for prompt in prompts]
    (evaluator,) = setup.evaluators(chosen, shared)

    async def accuracy(engine: EngineHandle) -> float:
        return (await evaluator.run(engine, LocalGrader(setup.grader(chosen), shared.pool))).sampled.mean

    with shared.pool:
        clock = Clock(
            engine=LocalEngine(setup.engine(chosen, shared.model_folder).build(str(shared.device))),
            evaluate=accuracy,
            every=recipe.evaluate_every,
            last=recipe.steps,
        )
        trainer = GRPOTrainer(
            model=setup.opened(chosen, shared.model_folder).open(str(shared.device)),
            processing_class=shared.tokenizer,
            args=trl_config(experiment, recipe, folder.path),
            reward_funcs=clock.counting(reward(experiment)),
            train_dataset=Dataset.from_list(rows),
            callbacks=[clock],
        )
        trainer.train()
    return clock.steps


def trl_config(experiment: Experiment, recipe: online.Config, folder: Path) -> Any:
    """Our recipe in TRL's words: every generation batch is one optimizer update."""
    from trl import GRPOConfig

    chosen, optimizer, schedule = experiment.settings, recipe.learner.optimizer, recipe.learner.schedule
    plain = recipe.epochs == recipe.minibatches == 1 and not (recipe.filters or recipe.max_refills)
    if not (plain and not recipe.needs_reference and recipe.advantage.name == "grpo" and schedule.name == "constant"):
        sys.exit("this recipe is no plain GRPO with one update per batch: the two sides would do different work")
    first, second = optimizer.betas or (0.9, 0.999)
    samples = recipe.prompts_per_step * recipe.samples_per_prompt
    passes = math.ceil(samples / TRL_MICRO_BATCH)
    return GRPOConfig(
        output_dir=str(folder),
        use_cpu=chosen.device == "cpu",
        bf16=optimizer.precision == "bfloat16",
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        seed=chosen.seed,
        max_steps=recipe.steps,
        per_device_train_batch_size=samples // passes,
        gradient_accumulation_steps=passes,
        steps_per_generation=passes,
        num_iterations=1,
        num_generations=recipe.samples_per_prompt,
        max_completion_length=chosen.sampling.max_tokens,
        temperature=chosen.sampling.temperature,
        top_p=chosen.sampling.top_p,
        top_k=chosen.sampling.top_k,
        use_vllm=False,
        shuffle_dataset=False,
        dataloader_num_workers=0,
        gradient_checkpointing=False,
        disable_dropout=True,
        beta=0.0,
        loss_type=LOSS_TYPES[recipe.loss.config.aggregate],
        scale_rewards=recipe.advantage.config.std,
        optim="adamw_torch_fused",
        learning_rate=optimizer.lr,
        adam_beta1=first,
        adam_beta2=second,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.grad_clip,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=schedule.warmup_updates,
    )


def as_text(prompt: Prompt, tokenizer: Any) -> str:
    """A prompt as TRL gets it: text that it turns into the very tokens that we sample from."""
    tokens = render_prompt(tokenizer, prompt)
    text = tokenizer.decode(tokens)
    assert tuple(tokenizer(text)["input_ids"]) == tokens, f"{text!r} does not keep its tokens"
    return text


def reward(experiment: Experiment) -> Reward:
    """The config's reward as a function for TRL: the math verifier, or `spread`."""
    (component,) = experiment.settings.rewards.values()
    if component.name == "user_function":
        assert component.config.path == SPREAD
        return spread

    def graded(completions: Sequence[str], gold: Sequence[str], **columns: object) -> list[float | None]:
        pairs = zip(completions, gold, strict=True)
        return [verify(completion, answer, spec=component.config).value for completion, answer in pairs]

    return graded


class Clock(TrainerCallback):
    """Times TRL's steps from outside and evaluates between them.

    Args:
        engine: for evaluations; has weights of its own.
        evaluate: held-out accuracy of an engine.
        every: steps between evaluations; 0 for the first and last only.
        last: number of steps.
    """

    def __init__(
        self, *, engine: EngineHandle, evaluate: Callable[[EngineHandle], Awaitable[float]], every: int, last: int
    ) -> None:
        self.steps: list[Step] = []
        self._engine, self._evaluate, self._every, self._last = engine, evaluate, every, last
        self._lengths: list[int] = []
        self._mark = 0.0

    def counting(self, function: Reward) -> Reward:
        """The reward, noting how long the samples are."""

        def counted(
            completions: Sequence[str], completion_ids: Sequence[Sequence[int]], **columns: Any
        ) -> list[float | None]:
            self._lengths = [len(ids) for ids in completion_ids]
            return function(completions=completions, **columns)

        return counted

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        self._note(0, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        self._note(state.global_step, kwargs["model"])

    def _note(self, step: int, model: nn.Module) -> None:
        seconds = time.perf_counter() - self._mark if step else 0.0
        length = sum(self._lengths) / len(self._lengths) if self._lengths else 0.0
        due = step in (0, self._last) or (self._every and step % self._every == 0)
        accuracy = asyncio.run(self._measure(step, model)) if due else None
        self.steps.append(Step(step=step, seconds=seconds, length=length, accuracy=accuracy))
        self._mark = time.perf_counter()

    async def _measure(self, step: int, model: nn.Module) -> float:
        await self._engine.load_weights(step, ((name, weight.detach()) for name, weight in model.named_parameters()))
        return await self._evaluate(self._engine)


if __name__ == "__main__":
    main()

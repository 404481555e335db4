"""The evaluate loop: held-out prompts to accuracies with intervals. Called inside training and by `rlhf evaluate`.

Accuracy counts samples whose verdict is correct, whatever the reward is shaped into. Every number comes with a 95 %
interval from a bootstrap over prompts (samples of one prompt are not independent). The same prompts and seeds are used
at every step, so that differences between steps are not differences between draws. Ungradable samples are left out
and counted; what no prompt is left to measure is None, not 0. What each prompt scored is kept too, so that two runs can
be compared prompt by prompt. Each held-out task is measured by an `Evaluator` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from rlhf.core.errors import ConfigError
from rlhf.core.outcomes import verified
from rlhf.core.protocols import EngineHandle, Grader
from rlhf.core.sampling import Sampling
from rlhf.core.seeding import content_key, derive_seed
from rlhf.core.types import Group, Json, Prompt, StopReason, Verdict
from rlhf.loops import honesty
from rlhf.loops.rollouts import sample_groups
from rlhf.report.stats import Interval, bootstrap_interval, pass_at_k


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured on held-out prompts; when is a matter of each stage."""

    prompts: int = 256
    """Held-out prompts per task, at most."""
    samples: int = 4
    """Samples per prompt for sampled accuracy and pass@k."""
    k: list[int] = field(default_factory=lambda: [1, 4])
    """The k of pass@k; none above `samples`."""
    temperature: float = 1.0
    """Of the sampled measures."""
    top_p: float = 1.0
    """Of the sampled measures."""
    likelihood: bool = False
    """Also measure whether the probability of a sampled answer says how often it is right: calibration error, Brier
    score, average precision."""
    greedy: bool = True
    """Also measure greedy decoding, one sample per prompt."""

    def __post_init__(self) -> None:
        if self.prompts < 1 or self.samples < 1:
            raise ConfigError("prompts", "nothing would be measured", fix="use at least 1 prompt and 1 sample")
        if any(k < 1 or k > self.samples for k in self.k):
            fix = f"use k between 1 and samples={self.samples}, or raise evaluation.samples"
            raise ConfigError("k", f"pass@k of {self.k} needs at least k samples per prompt", fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One evaluation of one task."""

    task: str
    sampled: Interval | None
    greedy: Interval | None
    pass_at: Mapping[int, Interval | None]
    mean_length: float
    truncated_share: float
    ungradable: int
    parts: Mapping[str, float]
    """Mean of each part of the rewards, by `sampled/<part>` and `greedy/<part>`."""
    groups: tuple[Group, ...]
    """What was sampled, scored; for `rlhf evaluate` and the report."""
    honesty: Mapping[str, Interval]
    """Measures of refusals and of confidence, where a reward looks for them or they are asked for
    (`rlhf.loops.honesty`)."""
    per_prompt: tuple[Mapping[str, Json], ...]
    """One record per prompt, under the names of `metrics`; null where nothing could be graded."""

    def metrics(self) -> dict[str, float]:
        """Flat names in verl's style: `val-core/<task>/sampled_accuracy/mean`."""
        intervals = {"sampled_accuracy": self.sampled} | {f"pass@{k}": v for k, v in self.pass_at.items()}
        intervals["greedy_accuracy"] = self.greedy
        named = {f"val-core/{self.task}/{name}": interval for name, interval in intervals.items()}
        named |= {f"val-aux/{self.task}/{name}": interval for name, interval in self.honesty.items()}
        out: dict[str, float] = {}
        for prefix, interval in named.items():
            if interval is None:
                continue
            out |= {f"{prefix}/mean": interval.mean, f"{prefix}/low": interval.low, f"{prefix}/high": interval.high}
        out[f"val-aux/{self.task}/response_length/mean"] = self.mean_length
        out[f"val-aux/{self.task}/response_length/clip_ratio"] = self.truncated_share
        out[f"val-aux/{self.task}/ungradable"] = float(self.ungradable)
        return out | {f"val-aux/{self.task}/{name}/mean": mean for name, mean in self.parts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Everything an evaluation of one task needs besides an engine and a grader."""

    cfg: Config
    task: str
    prompts: Sequence[Prompt]
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    """Token budget and stop strings; temperature and top-p come from `cfg`."""
    seed: int

    async def run(self, engine: EngineHandle, grader: Grader) -> Result:
        """Measure the engine's current weights."""
        sampling = replace(self.sampling, temperature=self.cfg.temperature, top_p=self.cfg.top_p, top_k=0)
        groups = await self._groups(engine, grader, sampling, count=self.cfg.samples)
        alone: list[Group] = []
        if self.cfg.greedy:
            alone = await self._groups(engine, grader, replace(sampling, temperature=0.0), count=1)
        values: dict[str, list[float | None]] = {"sampled_accuracy": [_accuracy(g) for g in groups]}
        values |= {f"pass@{k}": [_pass_at(g, k) for g in groups] for k in self.cfg.k}
        values |= {"greedy_accuracy": [_accuracy(g) for g in alone]} if alone else {}
        values["response_length"] = [sum(len(t.tokens) for t in g.trajectories) / len(g.trajectories) for g in groups]
        values |= honesty.by_prompt(groups)
        trajectories = [t for g in groups for t in g.trajectories]
        return Result(
            task=self.task,
            sampled=self._interval(values["sampled_accuracy"], "sampled"),
            greedy=self._interval(values["greedy_accuracy"], "greedy") if alone else None,
            pass_at={k: self._interval(values[f"pass@{k}"], f"pass@{k}") for k in self.cfg.k},
            mean_length=sum(len(t.tokens) for t in trajectories) / len(trajectories),
            truncated_share=sum(t.stop == StopReason.LENGTH for t in trajectories) / len(trajectories),
            ungradable=sum(not verified(r) for g in groups for r in g.rewards),
            parts=_parts("sampled", groups) | _parts("greedy", alone),
            groups=tuple(groups),
            honesty=honesty.measure(groups, seed=self.seed)
            | (honesty.likelihood(groups, seed=self.seed) if self.cfg.likelihood else {}),
            per_prompt=tuple(
                {"task": self.task, "prompt_id": g.prompt.id, "content": content_key(g.prompt)}
                | {name: column[i] for name, column in values.items()}
                for i, g in enumerate(groups)
            ),
        )

    async def _groups(self, engine: EngineHandle, grader: Grader, sampling: Sampling, *, count: int) -> list[Group]:
        prompts = self.prompts[: self.cfg.prompts]
        seed = derive_seed(self.seed, "evaluate")
        groups = await sample_groups(
            engine, prompts, tokenizer=self.tokenizer, sampling=sampling, seed=seed, step=0, count=count
        )
        return await grader.grade(groups)

    def _interval(self, values: Sequence[float | None], name: str) -> Interval | None:
        gradable = [v for v in values if v is not None]
        if not gradable:
            return None
        return bootstrap_interval(gradable, seed=derive_seed(self.seed, "bootstrap", name))


async def measure(evaluators: Sequence[Evaluator], engine: EngineHandle, grader: Grader) -> list[Result]:
    """Every task with the engine's current weights, one after the other."""
    return [await evaluator.run(engine, grader) for evaluator in evaluators]


def by_task(prompts: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """Prompts by the name of their task, in the order of first appearance."""
    out: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        out.setdefault(prompt.task, []).append(prompt)
    return out


def _parts(kind: str, groups: Sequence[Group]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for reward in (r for g in groups for r in g.rewards):
        for name, value in reward.breakdown.items():
            if value is not None:
                found.setdefault(f"{kind}/{name}", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _accuracy(group: Group) -> float | None:
    gradable = [r.verdict == Verdict.CORRECT for r in group.rewards if verified(r)]
    return sum(gradable) / len(gradable) if gradable else None


def _pass_at(group: Group, k: int) -> float | None:
    gradable = [r.verdict == Verdict.CORRECT for r in group.rewards if verified(r)]
    return pass_at_k(len(gradable), num_correct=sum(gradable), k=k) if len(gradable) >= k else None

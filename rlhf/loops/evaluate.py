"""The evaluate loop: held-out prompts to accuracies with intervals. Called inside training and by `rlhf evaluate`.

Accuracy counts samples whose verdict is correct, whatever the reward is shaped into. Every number comes with a 95 %
interval from a bootstrap over prompts (samples of one prompt are not independent). The same prompts and seeds are used
at every step, so that differences between steps are not differences between draws. A sample is what `sampler` finds,
one answer by a search of its own; greedy decoding does not search. Ungradable samples are left out and counted; what no
prompt is left to measure is None, not 0. What each prompt scored is kept too, so that two runs can be compared prompt
by prompt. Each held-out task is measured by an `Evaluator` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from rlhf.core.component import Component
from rlhf.core.config import slot
from rlhf.core.errors import ConfigError
from rlhf.core.outcomes import verified
from rlhf.core.protocols import EngineHandle, Grader
from rlhf.core.sampling import Sampling
from rlhf.core.search import Cost
from rlhf.core.seeding import content_key, derive_seed
from rlhf.core.types import Group, Json, Prompt, StopReason
from rlhf.loops import honesty, measures
from rlhf.loops.rollouts import sample_groups
from rlhf.loops.searching import Searched, search_groups
from rlhf.report.stats import Interval, bootstrap_interval


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured on held-out prompts; when is a matter of each stage."""

    prompts: int = 256
    """Held-out prompts per task, at most."""
    samples: int = 4
    """Samples per prompt for sampled accuracy (avg@n) and everything of k samples."""
    sampler: Component = slot("rollout.samplers", "single")
    """How a sample is found: one draw, or a search."""
    k: list[int] = field(default_factory=lambda: [1, 4])
    """The k of pass@k, and above 1 of pass^k, maj@k and best@k; none above `samples`."""
    temperature: float = 1.0
    """Of the sampled measures."""
    top_p: float = 1.0
    """Of the sampled measures."""
    likelihood: bool = False
    """Also measure whether the probability of a sampled answer says how often it is right: calibration error, Brier
    score, average precision, AUROC, selective accuracy."""
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
    parts: Mapping[str, Interval]
    """Mean of each part of the rewards, by `sampled/<part>` and `greedy/<part>`."""
    repeated: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    """Means over prompts by `pass^k`, `maj@k` and `best@k` (`rlhf.report.repeated`)."""
    lengths: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    """Tokens and truncation of the samples, and their wrong steps, by the names of `metrics`."""
    greedy_length: float = 0.0
    """Mean tokens of the greedy answers."""
    groups: tuple[Group, ...]
    """What was sampled, scored; for `rlhf evaluate` and the report."""
    honesty: Mapping[str, Interval]
    """Measures of refusals and of confidence, where a reward looks for them or they are asked for
    (`rlhf.loops.honesty`)."""
    cost: Cost
    """Of all samples together, without greedy decoding."""
    per_prompt: tuple[Mapping[str, Json], ...]
    """One record per prompt, under the names of `metrics`; null where nothing could be graded."""

    def metrics(self) -> dict[str, float]:
        """Flat names in verl's style: `val-core/<task>/sampled_accuracy/mean`."""
        intervals = {"sampled_accuracy": self.sampled} | {f"pass@{k}": v for k, v in self.pass_at.items()}
        intervals["greedy_accuracy"] = self.greedy
        intervals |= {name: interval for name, interval in self.repeated.items() if not name.startswith("best@")}
        beside = {name: interval for name, interval in self.repeated.items() if name.startswith("best@")}
        beside |= {**self.lengths, **self.parts, **self.honesty}
        named = {f"val-core/{self.task}/{name}": found for name, found in intervals.items() if found is not None}
        out = measures.flat(named | {f"val-aux/{self.task}/{name}": found for name, found in beside.items()})
        out[f"val-aux/{self.task}/response_length/mean"] = self.mean_length
        out[f"val-aux/{self.task}/response_length/clip_ratio"] = self.truncated_share
        out[f"val-aux/{self.task}/ungradable"] = float(self.ungradable)
        answers = sum(len(group.trajectories) for group in self.groups)
        return out | {f"val-aux/{self.task}/spent/{k}/mean": v / answers for k, v in asdict(self.cost).items() if v}


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
        searched = await self._searched(engine, grader, sampling)
        groups = await grader.grade(searched.groups)
        alone: list[Group] = []
        if self.cfg.greedy:
            alone = await self._greedy(engine, grader, replace(sampling, temperature=0.0))
        values: dict[str, list[float | None]] = {"sampled_accuracy": [measures.accuracy(g) for g in groups]}
        repeated = measures.repeated(groups, self.cfg.k)
        values |= repeated | ({"greedy_accuracy": [measures.accuracy(g) for g in alone]} if alone else {})
        values["response_length"] = [sum(len(t.tokens) for t in g.trajectories) / len(g.trajectories) for g in groups]
        values["tokens_spent"] = [sum(c.completion_tokens for c in costs) / len(costs) for costs in searched.costs_PG]
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
            parts=measures.parts("sampled", groups, seed=self.seed) | measures.parts("greedy", alone, seed=self.seed),
            repeated={
                name: interval
                for name, column in repeated.items()
                if not name.startswith("pass@") and (interval := self._interval(column, name)) is not None
            },
            greedy_length=sum(len(g.trajectories[0].tokens) for g in alone) / max(1, len(alone)),
            lengths=measures.lengths(groups, seed=self.seed) | measures.process(groups, seed=self.seed),
            groups=tuple(groups),
            cost=searched.cost,
            honesty=honesty.measure(groups, seed=self.seed)
            | (honesty.likelihood(groups, seed=self.seed) if self.cfg.likelihood else {}),
            per_prompt=tuple(
                {"task": self.task, "prompt_id": g.prompt.id, "content": content_key(g.prompt)}
                | {name: column[i] for name, column in values.items()}
                for i, g in enumerate(groups)
            ),
        )

    async def _searched(self, engine: EngineHandle, grader: Grader, sampling: Sampling) -> Searched:
        prompts = self.prompts[: self.cfg.prompts]
        return await search_groups(
            engine,
            grader,
            prompts,
            [range(self.cfg.samples)] * len(prompts),
            sampler=self.cfg.sampler,
            tokenizer=self.tokenizer,
            sampling=sampling,
            seed=derive_seed(self.seed, "evaluate"),
            step=0,
        )

    async def _greedy(self, engine: EngineHandle, grader: Grader, sampling: Sampling) -> list[Group]:
        prompts, seed = self.prompts[: self.cfg.prompts], derive_seed(self.seed, "evaluate")
        groups = await sample_groups(
            engine, prompts, tokenizer=self.tokenizer, sampling=sampling, seed=seed, step=0, count=1
        )
        return await grader.grade(groups)

    def _interval(self, values: Sequence[float | None], name: str) -> Interval | None:
        gradable = [v for v in values if v is not None]
        if not gradable:
            return None
        seed = derive_seed(self.seed, "bootstrap", name)
        return bootstrap_interval(gradable, seed=seed, share=not name.startswith("best@"))


async def measure(evaluators: Sequence[Evaluator], engine: EngineHandle, grader: Grader) -> list[Result]:
    """Every task with the engine's current weights, one after the other."""
    return [await evaluator.run(engine, grader) for evaluator in evaluators]


def by_task(prompts: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """Prompts by the name of their task, in the order of first appearance."""
    out: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        out.setdefault(prompt.task, []).append(prompt)
    return out

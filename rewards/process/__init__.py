"""How good the steps of an answer are, by a process reward model: one number, or credit where each step ends.

    rewards:
      math: {}
      process:
        model: models/my-prm            # or `stage: prm`, a stage of this run that trains one
        credit: min
        weight: 0.5

A process reward model gives the step j of a solution a score s_j in [0, 1], the chance that the solution is right up to
its end (Lightman et al. 2023, arXiv 2305.20050; Math-Shepherd, Wang et al. 2023, arXiv 2312.08935). With `signed` it is
r_j = 2 s_j - 1, as PURE has it, else r_j = s_j. `rewards.process.credit` has the formulas:

    credit       value                               placed on tokens (`RewardOut.per_token`)
    outcome      last, min, product or mean of r     nothing; min is Math-Shepherd's, product that of Lightman et al.
    min          min_j r_j                           what step j takes from the least so far, where it ends; r_1 where
                                                     the first ends (the aim of PURE, arXiv 2504.15275)
    potential    0                                   gamma r_j - r_(j-1) where step j ends, -r_n on the last token
                                                     (Ng et al. 1999)
    sum          sum_j r_j                           r_j where step j ends; hackable, to compare with

Placed values reach single steps with generalised advantages, or with `credit: steps` of group-relative ones.

How it can be hacked, and the guards. A model that adds correct but idle steps earns more by `sum` with each of them;
`min` gives nothing for them, and `potential` nothing at all in sum. `product` falls and `mean` rises with idle steps.
By `min` and `product` fewer steps are fewer occasions to lose: a model may learn to leave the way out.
Further: pieces without letter or digit are no steps; `repeats` of earlier steps earn nothing; an answer of more than
`max_steps` steps or `max_chars` characters is worth as little as one can be. Text that looks like a token that marks
steps or turns is broken up before the model reads it. None of this makes the model right: a policy finds the steps that
it scores too high. Keep a verifier first, and look at both curves.

    what happened                           value   verdict                reason
    scored                                  above   skipped, or as below   process/scored
    no step                                 lowest  no_answer              process/empty
    more than max_steps, max_chars          lowest  unparsable             limit/steps, limit/chars
    no answer within `deadline_s`           None    timeout                timeout/process
    too long for the model, or it failed    None    crash                  crash/process_too_long, …

`lowest` is 0, with `signed` -1. Scores are an opinion: the reward cannot come first, be a gate or a factor, unless
`decides` says so; then an answer is `correct` when no step scores below `correct_from`.

The model lives in a worker process (`rewards.process.local`): importing this needs no torch.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rewards import base
from rewards.process import credit, steps
from rewards.process.form import Form
from rewards.process.local import Answer, Unscored, scorer_of
from rewards.process.steps import Step
from rewards.served import Serving as Local
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import Tools
from rlhf.core.types import Group, Prompt, RewardOut, Trajectory, Verdict

__all__ = ["Answer", "Config", "Form", "Local", "Unscored", "answer", "score", "step_scores"]

CREDITS = ("outcome", "min", "potential", "sum")
REPEATS = ("ignore", "lowest", "keep")


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """Which model scores, and what its scores are worth."""

    model: str = ""
    """Folder of the process reward model; this or `stage` is required."""
    stage: str = ""
    """Stage of this run that trains it (`loss.name: prm`); before its end the reward is left out."""
    form: Form = field(default_factory=Form)
    """How the model reads a solution."""
    separator: str = "\n"
    """What separates the steps of an answer."""
    credit: str = "outcome"
    """`outcome` (one number), or credit per step: `min`, `potential`, or `sum`, which is there to be compared with."""
    aggregate: str = "min"
    """Of `outcome`: `last`, `min`, `product` or `mean` of the steps."""
    gamma: float = 1.0
    """Discount per step of `potential`."""
    signed: bool = False
    """Scores from -1 to 1 instead of 0 to 1; not for `product`."""
    repeats: str = "ignore"
    """What a step is worth that says what an earlier one has said: `ignore` (nothing, and the model does not see it),
    `lowest`, or `keep` to score it like any other."""
    max_steps: int = 64
    """Answers with more steps are worth as little as one can be."""
    max_chars: int = 50_000
    """The same for longer answers; they are not read."""
    decides: bool = False
    """Let scores decide what is right: allow it as first reward, gate, factor and verifier."""
    correct_from: float = 0.5
    """With `decides`: the score that every step of a correct answer has at least."""
    timeout_s: float = 60.0
    """Deadline of one batch."""
    deadline_s: float = 300.0
    """Deadline of all answers to a prompt."""
    local: Local = field(default_factory=Local)
    """How the model is served."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.model) == bool(self.stage):
            problem = "both model and stage are set" if self.model else "neither model nor stage is set"
            fix = "name the folder of a process reward model, or the stage that trains it"
            raise ConfigError("stage" if self.model else "model", problem, fix=fix)
        for name, choices in (("credit", CREDITS), ("aggregate", credit.AGGREGATES), ("repeats", REPEATS)):
            if (value := vars(self)[name]) not in choices:
                raise ConfigError(name, f"'{value}' is not one of the choices", fix=did_you_mean(value, choices))
        if not self.separator:
            raise ConfigError("separator", "is empty", fix="use a line break, or two for paragraphs")
        if self.signed and self.credit == "outcome" and self.aggregate == "product":
            problem = "makes a product of two bad steps a good one"
            raise ConfigError("signed", problem, fix="use aggregate: min, or signed: false")
        _check_numbers(self)

    @property
    def advisory(self) -> bool:
        return not self.decides

    @property
    def costly(self) -> bool:
        return True

    @property
    def places(self) -> bool:
        return self.credit != "outcome"

    @property
    def awaits(self) -> base.Awaited | None:
        return base.Awaited(stage=self.stage, loss="prm", asking=self.asking) if self.stage else None

    def asking(self, model: Path) -> Config:
        """The same reward, with the model in a folder."""
        return replace(self, stage="", model=str(model))

    @property
    def lowest(self) -> float:
        """What the worst answer is worth."""
        return -1.0 if self.signed else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """The steps of an answer."""

    steps: tuple[Step, ...]
    repeated: tuple[bool, ...]
    shown: tuple[int, ...]
    """Which of them the model is to score."""


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """The reward of every answer of a group; equal answers are asked about once.

    Raises:
        ConfigError: the model cannot be used.
    """
    texts = list(dict.fromkeys(t.text for t in group.trajectories))
    parts = {text: _parts(text, cfg) for text in texts if len(text) <= cfg.max_chars}
    asked = [text for text, found in parts.items() if 0 < len(found.steps) <= cfg.max_steps]
    wanted = [answer(group.prompt, [parts[text].steps[n].text for n in parts[text].shown]) for text in asked]
    scores = dict(zip(asked, step_scores(wanted, cfg), strict=True))
    return [_out(t, parts.get(t.text), scores.get(t.text), cfg) for t in group.trajectories]


def step_scores(answers: Sequence[Answer], cfg: Config) -> list[tuple[float, ...] | Unscored]:
    """The scores in [0, 1] that the model gives the steps of each answer, or why there are none.

    Raises:
        ConfigError: the model cannot be used, or its stage has not run.
    """
    if cfg.stage:
        fix = "run the stage first, or name the folder of a model"
        raise ConfigError("stage", f"'{cfg.stage}' has not trained its model yet", fix=fix)
    if not answers:
        return []
    scorer = scorer_of(Path(cfg.model), cfg.form, cfg.local)
    return scorer.score(answers, timeout_s=cfg.timeout_s, deadline_s=cfg.deadline_s)


def answer(prompt: Prompt, steps: Sequence[str]) -> Answer:
    """What a model is to read."""
    return Answer(messages=tuple(prompt.chat), steps=tuple(steps))


def _check_numbers(cfg: Config) -> None:
    if not 0 < cfg.gamma <= 1:
        raise ConfigError("gamma", f"{cfg.gamma} is out of range", fix="use 1")
    if not 0 < cfg.correct_from <= 1:
        raise ConfigError("correct_from", f"{cfg.correct_from} is not in (0, 1]", fix="use 0.5")
    for name in ("max_steps", "max_chars"):
        if vars(cfg)[name] < 1:
            raise ConfigError(name, f"{vars(cfg)[name]} leaves nothing to score", fix="use 64, or 50000 characters")
    for name in ("timeout_s", "deadline_s"):
        if not 0 < vars(cfg)[name] < math.inf:
            raise ConfigError(name, f"{vars(cfg)[name]} leaves no time", fix="use 60 or more")


def _parts(text: str, cfg: Config) -> _Parts:
    found = steps.split(text, separator=cfg.separator)
    repeated = steps.repeats(found) if cfg.repeats != "keep" else [False] * len(found)
    shown = tuple(n for n, again in enumerate(repeated) if not again)
    return _Parts(steps=tuple(found), repeated=tuple(repeated), shown=shown)


def _out(
    trajectory: Trajectory, parts: _Parts | None, scores: tuple[float, ...] | Unscored | None, cfg: Config
) -> RewardOut:
    if parts is None:
        return _worthless(Verdict.UNPARSABLE, "limit/chars", cfg)
    if not parts.steps:
        return _worthless(Verdict.NO_ANSWER, "process/empty", cfg)
    if len(parts.steps) > cfg.max_steps:
        return _worthless(Verdict.UNPARSABLE, "limit/steps", cfg, count=len(parts.steps))
    assert scores is not None, "every answer with steps has been asked about"
    if isinstance(scores, Unscored):
        out = base.timeout("process") if scores.kind == "timeout" else base.crash(f"process_{scores.kind}")
        return replace(out, breakdown=_measured(len(parts.steps), unscored=1.0))
    return _graded(trajectory, parts, scores, cfg)


def _graded(trajectory: Trajectory, parts: _Parts, scores: tuple[float, ...], cfg: Config) -> RewardOut:
    """What scores are worth."""
    earned = dict(zip(parts.shown, scores, strict=True))
    if cfg.repeats == "lowest":
        earned |= {n: 0.0 for n, again in enumerate(parts.repeated) if again}
    order = sorted(earned)
    rewards = [2 * earned[n] - 1 if cfg.signed else earned[n] for n in order]
    placed = _placed(rewards, cfg)
    ends = [parts.steps[n].end for n in order]
    verdict = Verdict.SKIPPED
    if cfg.decides:
        verdict = Verdict.CORRECT if min(earned.values()) >= cfg.correct_from else Verdict.WRONG
    return RewardOut(
        value=math.fsum(placed) if placed else credit.aggregate(rewards, cfg.aggregate),
        verdict=verdict,
        reason="process/scored",
        breakdown=_measured(
            len(parts.steps), repeats=sum(parts.repeated), least=min(scores), mean=math.fsum(scores) / len(scores)
        ),
        per_token=_on_tokens(placed, ends, trajectory),
    )


def _placed(rewards: Sequence[float], cfg: Config) -> tuple[float, ...]:
    """What is due where each step ends, and for `potential` where the answer does; nothing for `outcome`."""
    if cfg.credit == "min":
        return credit.least_so_far(rewards)
    if cfg.credit == "potential":
        return credit.shaping(rewards, gamma=cfg.gamma)
    return tuple(rewards) if cfg.credit == "sum" else ()


def _on_tokens(placed: Sequence[float], ends: Sequence[int], trajectory: Trajectory) -> tuple[float, ...]:
    """[tokens] Each value on the token that completes its step; nothing where nobody knows where tokens end.

    Args:
        ends: of the steps; a value more than these stands on the last token.
    """
    if not placed or not trajectory.ends:
        return ()
    out = [0.0] * len(trajectory.ends)
    tokens = [min(bisect_left(trajectory.ends, end), len(out) - 1) for end in ends]
    for value, token in zip(placed, [*tokens, len(out) - 1][: len(placed)], strict=True):
        out[token] += value
    return tuple(out)


def _worthless(verdict: Verdict, reason: str, cfg: Config, *, count: int = 0) -> RewardOut:
    return RewardOut(value=cfg.lowest, verdict=verdict, reason=reason, breakdown=_measured(count))


def _measured(
    count: int, *, repeats: int = 0, least: float | None = None, mean: float | None = None, unscored: float = 0.0
) -> dict[str, float | None]:
    """Steps of the answer, repeats among them, its least and mean score, and whether the model failed."""
    return {"steps": float(count), "repeats": float(repeats), "least": least, "mean": mean, "unscored": unscored}

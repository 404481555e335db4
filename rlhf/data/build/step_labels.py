"""Labels the steps of sampled solutions by what becomes of them: completions from the end of each step.

From the end of step j `completions` answers are sampled and graded. With c of n graded ones correct,

    hard        y_j = 1 if c > 0 else 0                 Math-Shepherd (Wang et al. 2023, arXiv 2312.08935), its choice
    soft        y_j = c / n =: p_j                      the same paper; goes to the chance of success as n grows
    progress    y_j = 1 if p_j >= r p_(j-1) else 0      GenPRM (Zhao et al. 2025, arXiv 2504.00891), r = 0.8

With `progress` a step is bad that costs much of the chance of success, also where some completions mend it; the chance
before the first step is that from the question itself, sampled once for all its solutions, and where it is 0 no step is
good. The last step's label is the verdict of the solution itself. `search: binary` looks for the first step from which
nothing succeeds, halving what is left (OmegaPRM, Luo et al. 2024, arXiv 2406.06592): about log2 of the number of steps
are sampled from instead of all, steps before it are 1 and from it on 0, and all are 1 where the solution is correct; so
it goes with hard labels. We search each solution once, and grow no tree.

What the labels mean: a policy that repairs errors, or guesses, makes wrong steps good; a weak one makes right steps
bad. Solutions in which a label could not be told, since no completion could be graded, are left out.

`consensus` keeps the solutions alone whose first error, the first step that no completion succeeds from, the reward
`step_judge` of the run finds at the same step (or none, like the completions); where it has no opinion, the solution is
left out. Zhang et al. 2025 (arXiv 2501.07301, sections 3.1.3 and 4.1) keep 40 % of theirs so; hard labels did better
than soft ones behind it (3.1.4). They also drop the steps after the first error: `examples.until_error` of the stage
that learns from the rows. Agreement of two sets of completions would need no judge, but is no substitute: where success
makes a step good, it leaves out just those solutions that both sets together label rightly.

Rows have `messages`, `steps` and `labels`, which a stage with `loss.name: prm` learns from, and `successes`: of each
step, how many of how many completions were correct, null where none were sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import Continuer
from rlhf.core.outcomes import FIRST_ERROR, NO_ERROR, reported
from rlhf.core.steps import Step, split
from rlhf.core.types import Group, Json, Prompt, RewardOut, Start, Trajectory, Verdict

CONTINUES = True
WHOLE_GROUPS = False
WRONG_TOO = False
_ESTIMATES = ("hard", "soft", "progress")
_SEARCHES = ("all", "binary")
_READ = (Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER, Verdict.UNPARSABLE)
"""Verdicts of a verifier that read the answer."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How steps are labelled."""

    separator: str = "\n"
    """What separates the steps of an answer."""
    completions: int = 8
    """Answers sampled from the end of each step (Math-Shepherd 8)."""
    estimate: str = "hard"
    """`hard`: 1 where any completion is correct; `soft`: the share that is; `progress`: 1 where that share is not much
    smaller than before the step."""
    progress: float = 0.8
    """With `estimate: progress`, the least ratio of the shares after and before a good step (r)."""
    search: str = "all"
    """`all` samples from every step; `binary` searches for the first error, with hard labels."""
    consensus: bool = False
    """Keep the solutions alone whose first error the reward `step_judge` finds at the same step."""

    def __post_init__(self) -> None:
        for name, choices in (("estimate", _ESTIMATES), ("search", _SEARCHES)):
            if (value := vars(self)[name]) not in choices:
                raise ConfigError(name, f"'{value}' is not one of the choices", fix=did_you_mean(value, choices))
        if self.search == "binary" and self.estimate != "hard":
            problem = "knows no share of the steps that it does not sample from"
            raise ConfigError("search", f"'binary' {problem}", fix="use search: all, or estimate: hard")
        if not self.progress > 0:
            raise ConfigError("progress", f"{self.progress} lets every step pass", fix="use 0.8")
        if self.completions < 1:
            raise ConfigError("completions", f"{self.completions} tell nothing", fix="use 8")
        if not self.separator:
            raise ConfigError("separator", "is empty", fix="use a line break, or two for paragraphs")


@dataclass(slots=True)
class _Labelled:
    """A solution on its way to its labels."""

    prompt: Prompt
    trajectory: Trajectory
    reward: RewardOut
    steps: list[Step]
    successes: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    """By step: correct and graded completions; those from the question itself under -1."""
    good_before: int = 0
    """Binary search: steps before this one are good."""
    bad_from: int = 0
    """The first step that nothing succeeds from; their number where there is none."""

    @property
    def correct(self) -> bool:
        return self.reward.verdict is Verdict.CORRECT

    @property
    def told(self) -> bool:
        """Whether some completion of every step that was sampled from could be graded."""
        return all(graded for _, graded in self.successes.values())

    @property
    def first_error(self) -> int:
        return self.bad_from if self.bad_from < len(self.steps) else NO_ERROR

    @property
    def judged(self) -> float | None:
        """Where a judge found the first error."""
        return reported(self.reward, FIRST_ERROR)


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the samples."""
    found = [
        _Labelled(group.prompt, t, reward, split(t.text, separator=cfg.separator))
        for group in groups
        for t, reward in zip(group.trajectories, group.rewards, strict=True)
        if reward.verdict in _READ
    ]
    found = [s for s in found if s.steps and not (cfg.consensus and s.judged is None)]
    if cfg.search == "binary":
        await _search(found, cfg, continuer)
    else:
        await _sample_all(found, cfg, continuer)
    told = [solution for solution in found if solution.told]
    return [_row(s, _labels(s, cfg)) for s in told if not cfg.consensus or s.first_error == s.judged]


async def _sample_all(found: Sequence[_Labelled], cfg: Config, continuer: Continuer) -> None:
    """Sample from every step but the last, whose label is the verdict."""
    await _sample([(s, n) for s in found for n in range(len(s.steps) - 1)], cfg, continuer)
    if cfg.estimate == "progress":
        await _sample_questions(found, cfg, continuer)
    for solution in found:
        if cfg.estimate == "progress":
            failing = [n for n, label in enumerate(_labels(solution, cfg)) if not label] if solution.told else []
        else:
            failing = [n for n, (correct, _) in sorted(solution.successes.items()) if not correct]
        last = len(solution.steps) - (not solution.correct)
        solution.bad_from = failing[0] if failing else last


async def _sample_questions(found: Sequence[_Labelled], cfg: Config, continuer: Continuer) -> None:
    """Fill in what comes of each question without any step, once for all its solutions."""
    prompts = {solution.prompt.id: solution for solution in found}
    starts = [continuer.begun(s.prompt, "", name=f"{s.trajectory.id}~question") for s in prompts.values()]
    groups = await continuer.go_on(starts, count=cfg.completions)
    rates = {name: _counted(group) for name, group in zip(prompts, groups, strict=True)}
    for solution in found:
        solution.successes[-1] = rates[solution.prompt.id]


async def _search(found: Sequence[_Labelled], cfg: Config, continuer: Continuer) -> None:
    """Narrow every wrong solution's first error down to one step, all of them together."""
    for solution in found:
        # A wrong solution's last step is bad; a correct one has no bad step.
        solution.bad_from = len(solution.steps) if solution.correct else len(solution.steps) - 1
    while open_ones := [s for s in found if not s.correct and s.good_before < s.bad_from]:
        asked = [(s, (s.good_before + s.bad_from) // 2) for s in open_ones]
        await _sample(asked, cfg, continuer)
        for solution, step in asked:
            if solution.successes[step][0]:
                solution.good_before = step + 1
            else:
                solution.bad_from = step


async def _sample(asked: Sequence[tuple[_Labelled, int]], cfg: Config, continuer: Continuer) -> None:
    """Fill in the successes from the ends of steps."""
    starts = [
        Start(
            name=f"{solution.trajectory.id}~{step}",
            prompt=solution.prompt,
            trajectory=solution.trajectory,
            # The separator is sampled with the step, lest a completion goes on in its last word.
            characters=solution.steps[step].end + len(cfg.separator),
        )
        for solution, step in asked
    ]
    for (solution, step), group in zip(asked, await continuer.go_on(starts, count=cfg.completions), strict=True):
        solution.successes[step] = _counted(group)


def _counted(group: Group) -> tuple[int, int]:
    """Correct and graded completions."""
    read = [reward.verdict for reward in group.rewards if reward.verdict in _READ]
    return sum(verdict is Verdict.CORRECT for verdict in read), len(read)


def _labels(solution: _Labelled, cfg: Config) -> list[float]:
    """One per step."""
    last = len(solution.steps) - 1
    if cfg.search == "binary":
        return [float(n < solution.bad_from) for n in range(last + 1)]
    if cfg.estimate == "progress":
        return _progress(solution, cfg.progress)
    labels: list[float] = []
    for n in range(last):
        correct, graded = solution.successes[n]
        labels.append(correct / graded if cfg.estimate == "soft" else float(correct > 0))
    return [*labels, float(solution.correct)]


def _progress(solution: _Labelled, least: float) -> list[float]:
    """1 for every step that does not lower the chance of success by much."""
    counts = [solution.successes[n] for n in range(-1, len(solution.steps) - 1)]
    rates = [correct / graded for correct, graded in counts]
    labels = [float(before > 0 and after >= least * before) for before, after in pairwise(rates)]
    return [*labels, float(solution.correct)]


def _row(solution: _Labelled, labels: list[float]) -> dict[str, Json]:
    t = solution.trajectory
    successes = [solution.successes.get(n) for n in range(len(solution.steps))]
    return {
        "prompt_id": t.prompt_id,
        "messages": solution.prompt.chat,
        "steps": [step.text for step in solution.steps],
        "labels": labels,
        "successes": [None if pair is None else list(pair) for pair in successes],
        "gold": solution.prompt.gold,
        "verdict": solution.reward.verdict.value,
        "sample_id": t.id,
        "seed": t.seed,
        "policy_version": t.policy_version,
    }

"""Self-verification: the policy judges answers of its own, and is rewarded for verdicts that the verifier shares.

    rl:
      verify: {share: 0.25, samples: 8}

    answers, scored -> a share of them, each as a prompt to judge it -> judgements -> 1 where the verdict is the
    verifier's, else 0 -> with the answers into the same update

Answers and judgements are groups like any other: the advantages of a judgement compare it with the other judgements of
the same answer, and one loss adds up both. Only answers that the verifier has read are judged; an answer without a
final answer counts as wrong. What is judged is a function of the seed and of the answers' names, as evenly over the
step's questions as the number allows, so that a run continues exactly, with `max_staleness` too. Called by
`rlhf.loops.collect`; in `samples.jsonl` a judgement says under `judges_sample` which one it is about.

    verify/accuracy     verdicts that the verifier shares / judgements
    verify/f1           of finding wrong answers, from verify/precision and verify/recall
    verify/no_verdict   judgements without a verdict, which get 0 / judgements
    verify/wrong_share  judgements of wrong answers / judgements: what calling everything wrong would get right
    verify/balanced_accuracy    mean of the shares of right and of wrong answers that are judged rightly: 0.5 for a
                                verdict that does not look

Source: RISE, "Trust, But Verify" (Liu et al. 2025, arXiv 2505.13445), and its code (github.com/xyliu-cs/RISE, on a fork
of verl): equal numbers of random answers per question, 128 of 1024 x 8 in its example, judged as often as questions are
answered, in one batch with the answers and without a weight of their own. There a judgement names the outcome reward
(1 correct, -0.5 wrong, -1 without a final answer) and gets 1, -0.5 or -1 for it, and PPO with a critic learns from
both. Ours names one of two words and gets 1 or 0; any loss and any advantage may learn from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Mean, Metric, Sum, mean_of
from rlhf.core.outcomes import verified
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Group, Message, Prompt, RewardOut, Verdict
from rlhf.data import judging
from rlhf.data.judging import Judging
from rlhf.loops import greedy
from rlhf.loops.rollouts import sample_groups
from rlhf.loops.stage import JUDGES, Stage

if TYPE_CHECKING:
    from rlhf.loops.records import Record

_TRUTH = {Verdict.CORRECT: True, Verdict.WRONG: False, Verdict.NO_ANSWER: False}


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Whether the policy learns to judge its own answers; by default it does not."""

    share: float = 0.0
    """Share of a step's answers that are judged; 0 judges none."""
    balance: bool = False
    """Judge as many wrong answers as right ones, and no more of either than there are of the other. Without it a policy
    that is mostly right learns to call everything right."""
    samples: int = 8
    """Judgements per answer: the group size."""
    weight: float = 1.0
    """What the advantages of judgements count beside those of answers; 0 measures without training."""
    judging: Judging = field(default_factory=Judging)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError("share", f"{self.share} is not a share", fix="use 0 to 1, for example 0.25")
        if self.samples < 1:
            raise ConfigError("samples", f"{self.samples} judges nothing", fix="use 1 or more, or share: 0")
        if self.weight < 0:
            raise ConfigError("weight", f"{self.weight} would reward wrong verdicts", fix="use 0 or more")

    @property
    def on(self) -> bool:
        """Whether anything is judged."""
        return self.share > 0


def judges(group: Group) -> bool:
    """Whether the samples of a group are judgements of an answer."""
    return JUDGES in group.prompt.columns


async def judgements(
    cfg: VerifyConfig, scored: Sequence[Group], *, stage: Stage, step: int, with_greedy: bool
) -> list[Group]:
    """Have a share of a step's answers judged by the engine's weights, and grade the judgements.

    Args:
        scored: the answers.
        step: global.
        with_greedy: every group of judgements gets the greedy one beside it.
    """
    prompts = _prompts(cfg, scored, seed=stage.seed)
    groups = await sample_groups(
        stage.engine,
        prompts,
        tokenizer=stage.tokenizer,
        sampling=stage.sampling,
        seed=stage.seed,
        step=step,
        count=cfg.samples,
    )
    alone = await greedy.sampled(stage, prompts, step=step) if with_greedy else []
    return greedy.beside([graded(cfg, group) for group in groups], [graded(cfg, group) for group in alone])


def graded(cfg: VerifyConfig, group: Group) -> Group:
    """The same judgements with what they are worth."""
    truth = group.prompt.gold == cfg.judging.right
    return replace(
        group, rewards=tuple(_reward(cfg.judging.read(t.text), truth, cfg.judging) for t in group.trajectories)
    )


def weighted(
    cfg: VerifyConfig, groups: Sequence[Group], advantages: Sequence[Sequence[tuple[float, ...] | None]]
) -> list[list[tuple[float, ...] | None]]:
    """Advantages, those of judgements times their weight."""
    factors = [cfg.weight if judges(group) else 1.0 for group in groups]
    return [
        list(rows) if factor == 1 else [row and tuple(factor * x for x in row) for row in rows]
        for factor, rows in zip(factors, advantages, strict=True)
    ]


def restored(record: Record) -> Prompt:
    """The prompt of a recorded judgement, without messages before its own."""
    message = Message(role="user", content=record["prompt"])
    return Prompt(
        id=record["prompt_id"],
        messages=(message,),
        gold=record["gold"],
        task=record["task"],
        columns={JUDGES: record[JUDGES]},
    )


def metrics(cfg: VerifyConfig, groups: Sequence[Group]) -> dict[str, Metric]:
    """How good judgements are."""
    pairs = [
        (group.prompt.gold == cfg.judging.right, cfg.judging.read(t.text))
        for group in groups
        for t in group.trajectories
    ]
    found = sum(not truth and said is False for truth, said in pairs)
    wrong, called = sum(not truth for truth, _ in pairs), sum(said is False for _, said in pairs)
    right, let_through = len(pairs) - wrong, sum(truth and said is True for truth, said in pairs)
    balanced = [(found / wrong + let_through / right) / 2] if wrong and right else []
    return {
        "verify/answers": Sum(len(groups)),
        "verify/samples": Sum(len(pairs)),
        "verify/accuracy": Mean(sum(said is truth for truth, said in pairs), len(pairs)),
        "verify/balanced_accuracy": mean_of(balanced),
        "verify/precision": Mean(found, called),
        "verify/recall": Mean(found, wrong),
        "verify/f1": Mean(2 * found, called + wrong),
        "verify/no_verdict": Mean(sum(said is None for _, said in pairs), len(pairs)),
        "verify/wrong_share": Mean(wrong, len(pairs)),
    }


def check(cfg: VerifyConfig, answers: int) -> None:
    """A share of a step's answers is one answer or more.

    Raises:
        ConfigError: it is none.
    """
    if cfg.on and not _count(cfg, answers):
        problem = f"{cfg.share} of the {answers} answers of a step is none"
        raise ConfigError("verify.share", problem, fix=f"use {1 / answers:.2g} or more, or 0")


def arithmetic(cfg: VerifyConfig, answers: int) -> Mapping[str, str]:
    """What a step's judgements are, for `rlhf plan`."""
    if not cfg.on:
        return {}
    count = _count(cfg, answers)
    text = f"{count} of {answers} answers × {cfg.samples} judgements = {count * cfg.samples} further samples"
    return {"verify": f"{text} per step, their advantages times {cfg.weight:g}"}


def _count(cfg: VerifyConfig, answers: int) -> int:
    return round(cfg.share * answers)


def _prompts(cfg: VerifyConfig, scored: Sequence[Group], *, seed: int) -> list[Prompt]:
    """Prompts to judge the chosen answers, in the order of the answers."""
    chosen = _chosen(cfg, scored, seed=seed)
    return [
        replace(
            judging.judged(group.prompt, t.text, _TRUTH[out.verdict], cfg.judging, name=f"{group.prompt.id}:{t.index}"),
            columns={JUDGES: t.id},
        )
        for group in scored
        for t, out in zip(group.trajectories, group.rewards, strict=True)
        if t.id in chosen
    ]


def _chosen(cfg: VerifyConfig, scored: Sequence[Group], *, seed: int) -> set[str]:
    """Ids of the answers to judge: a first one of every group that has one, then a second one, and so on."""
    right, wrong = (_in_turns([_answers(group, truth, seed=seed) for group in scored]) for truth in (True, False))
    if cfg.balance:
        each = min(len(right), len(wrong), round(cfg.share * (len(right) + len(wrong)) / 2))
        return {*right[:each], *wrong[:each]}
    every = _in_turns([_answers(group, None, seed=seed) for group in scored])
    return set(every[: _count(cfg, len(every))])


def _in_turns(found: Sequence[Sequence[str]]) -> list[str]:
    return [name for turn in zip_longest(*found) for name in turn if name is not None]


def _answers(group: Group, truth: bool | None, *, seed: int) -> list[str]:
    """Ids of a group's answers that can be judged, of those that are right or wrong, or of both; in random order."""
    readable = [
        t.id
        for t, out in zip(group.trajectories, group.rewards, strict=True)
        if verified(out) and out.verdict in _TRUTH and t.tokens and truth in (None, _TRUTH[out.verdict])
    ]
    return sorted(readable, key=lambda name: derive_seed(seed, "verify", name))


def _reward(said: bool | None, truth: bool, cfg: Judging) -> RewardOut:
    if said is None:
        return RewardOut(value=0.0, verdict=Verdict.NO_ANSWER, reason="verdict/none", breakdown={"verdict": 0.0})
    agrees = said is truth
    return RewardOut(
        value=float(agrees),
        verdict=Verdict.CORRECT if agrees else Verdict.WRONG,
        reason="verdict/agrees" if agrees else "verdict/differs",
        extracted=cfg.word(said),
        breakdown={"verdict": float(agrees)},
    )

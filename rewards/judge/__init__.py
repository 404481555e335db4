"""What another language model thinks of an answer, by criteria in words. An opinion: it adds, and decides nothing.

    rewards:
      math: {}
      judge:
        url: http://localhost:8000/v1
        model: Qwen/Qwen2.5-7B-Instruct
        criteria: {clarity: 'Every step follows from the one before it.'}
        weight: 0.1

A pointwise judge, with or without a reference (Zheng et al. 2023, arXiv 2306.05685, section 3.1), that grades criteria
with weights, as in Rubrics as Rewards (Gunjal et al. 2025, arXiv 2507.17746). With a number s_k for each criterion k,

    value = sum_k w_k (s_k - lowest) / (highest - lowest) / sum_k w_k                in [0, 1]

One request grades all criteria of one answer. Answers are not compared, so there is no order whose bias would need
guarding against; a judge still favours length and its own style (section 3.3 of the first paper).

Trust. The judge reads what it grades, and the text may address it; `rewards.judge.sheet` lists the guards, and none is
a proof. So its verdict is `skipped`, and a config in which it comes first, is a gate, a factor or the verifier of
another reward is refused (`rewards.trust`). `decides: true` is the way out: from `correct_from` an answer is `correct`.

    what happened                                     value   verdict                 reason
    the reply holds the grades                        [0, 1]  skipped, or as above    judge/graded
    nothing to grade: no letter and no digit          0.0     no_answer               judge/empty
    the answer has more than `max_chars`              0.0     unparsable              limit/chars
    the reply holds no grades, or stopped early       None    crash                   judge/unreadable, judge/cut_off
    no reply within `deadline_s`                      None    timeout                 timeout/judge
    the server refused, or failed to the end          None    crash                   crash/judge_http_503, …

`unanswered` and `unreadable` of the breakdown are the rates of the last three. A model that learns to upset its judge
has its sample left out; a rising rate shows it.

How the judge is asked, over HTTP or in a worker, and that its replies are kept, `rewards.judge.asking` says.
"""

from __future__ import annotations

from dataclasses import dataclass

from rewards import base
from rewards.judge import asking, reading, sheet
from rewards.judge.asking import Asking
from rewards.judge.endpoint import Failure, Reply
from rewards.judge.local import Local
from rewards.judge.sheet import Sheet
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut, Verdict

__all__ = ["Config", "Local", "Sheet", "score"]


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig, Asking, Sheet):
    """Who judges, by which criteria, and how it is asked."""

    decides: bool = False
    """Let an opinion decide what is right: allow it as first reward, gate, factor and verifier."""
    correct_from: float = 0.5
    """With `decides`: the value from which an answer is correct."""

    def __post_init__(self) -> None:
        base.RewardConfig.__post_init__(self)
        Sheet.__post_init__(self)
        Asking.__post_init__(self)
        asking.check_read(self, self.read)
        if not 0 < self.correct_from <= 1:
            raise ConfigError("correct_from", f"{self.correct_from} is not in (0, 1]", fix="use 0.5")

    @property
    def advisory(self) -> bool:
        return not self.decides

    @property
    def costly(self) -> bool:
        return True


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Have every answer of a group graded; equal answers are asked about once.

    Raises:
        ConfigError: the key is not set, the folder of model or cache cannot be used.
    """
    texts = [sheet.shown(trajectory.text, cfg) for trajectory in group.trajectories]
    outs = {text: _worthless(text, cfg) for text in texts}
    asked = [text for text, out in outs.items() if out is None]
    form = sheet.schema(cfg) if cfg.read == "schema" else None
    replies = asking.replies([sheet.ask(cfg, group.prompt, text) for text in asked], cfg, form=form)
    graded = {text: _out(reply, cfg) for text, reply in zip(asked, replies, strict=True)}
    return [outs[text] or graded[text] for text in texts]


def _worthless(text: str, cfg: Config) -> RewardOut | None:
    """The outcome of an answer that is not shown to a judge."""
    if len(text) > cfg.max_chars:
        return RewardOut(value=0.0, verdict=Verdict.UNPARSABLE, reason="limit/chars", breakdown=asking.rates())
    if not any(character.isalnum() for character in text):
        return RewardOut(value=0.0, verdict=Verdict.NO_ANSWER, reason="judge/empty", breakdown=asking.rates())
    return None


def _out(reply: Reply | Failure, cfg: Config) -> RewardOut:
    if isinstance(reply, Failure):
        return asking.failed(reply)
    numbers = None if reply.cut else reading.grades(reply.text, cfg)
    if numbers is None:
        return asking.unreadable(cut=reply.cut)
    value = reading.value(numbers, cfg)
    verdict = Verdict.SKIPPED
    if cfg.decides:
        verdict = Verdict.CORRECT if value >= cfg.correct_from else Verdict.WRONG
    return RewardOut(value=value, verdict=verdict, reason="judge/graded", breakdown={**numbers, **asking.rates()})

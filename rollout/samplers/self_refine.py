"""Self-refine: the policy says what is wrong with its answer, and writes it again, until it finds nothing wrong.

    y_0 ~ p(. | x)
    f_t ~ p(. | x, y_t, `feedback`);    unless f_t is `satisfied`:    y_(t+1) ~ p(. | x, y_t, f_t, `again`)

Source: Madaan et al. 2023 (arXiv 2303.17651); three rounds and an agreed phrase that ends them as in Liu et al. 2025
(arXiv 2502.07191). Each round sees the answer and the feedback before it, not those of earlier rounds. Nothing is
scored. An answer that has no room left in the model's context is not written: the one before it stays. Cost: up to 1 +
2 * rounds requests, with prompts that hold the answer and the feedback.

Known failure: without outside help models often turn a right answer into a wrong one, and find faults where there are
none (Huang et al. 2023, arXiv 2310.01798); a model that was never trained to judge says the agreed phrase always or
never.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.search import Draft, SearchTools
from rlhf.core.types import StopReason
from rollout.samplers.asking import reply, talk
from rollout.samplers.common import check_positive


@dataclass(frozen=True, kw_only=True)
class Config:
    """How often, and in what words."""

    rounds: int = 3
    """Rounds of feedback, at most."""
    feedback: str = "Check this answer step by step. If it is right, say: no error. Otherwise say what is wrong."
    """What the policy is asked about its answer."""
    satisfied: str = "no error"
    """What it says, in any case of letters, when nothing is to be done."""
    again: str = "Write the whole answer again, without these errors."
    """What it is asked then."""

    def __post_init__(self) -> None:
        check_positive(rounds=self.rounds)
        if not self.satisfied.strip():
            raise ConfigError("satisfied", "is empty, and every feedback says that", fix="use a phrase: no error")


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The last answer."""
    [[answer]] = await tools.extend([tools.root])
    for _ in range(cfg.rounds):
        said = await reply(tools, talk(tools, answer.text, cfg.feedback))
        if said.stop is StopReason.ABORTED or cfg.satisfied.lower() in said.text.lower():
            break
        better = await reply(tools, talk(tools, answer.text, cfg.feedback, said.text, cfg.again))
        if better.stop is StopReason.ABORTED:
            break
        answer = better
    return answer

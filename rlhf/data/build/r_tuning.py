"""Questions with their known answers, and beside each whether the policy itself knew it: to teach it to say so.

    certain_i = [the greedy answer to question i is right]      by the run's verifier

    unknown: unsure     question, answer, "Are you sure …?", "I am sure." or "I am unsure."
    unknown: refuse     question, answer; where it is not certain one of `refusals` in place of the answer

The answer is the worked solution of a prompt; where it has none the policy's own if that is right, else the gold. Rows
are pieces, for a stage with `examples: pieces`; what asks for certainty is read and not learnt. Questions whose greedy
answer could not be graded are left out. `samples_per_prompt: 0` saves samples that nobody looks at.

Source: R-Tuning (Zhang et al. 2024, arXiv 2311.09677), whose query, two replies and 16 refusals are the defaults; its
code (https://github.com/shizhediao/R-Tuning, training/pararel/run_pararel.py, `unsure` and `unknown`) takes an answer
as right that holds the gold as a string, and learns the whole text, question included.

What can go wrong: in the first form the model is taught answers that it does not know, which it may make up others
from later; measure on facts that no stage has shown (task `facts`). A policy that guesses is certain by luck, where
there are few answers to choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import Continuer
from rlhf.core.outcomes import verified
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Group, Json, Prompt, Verdict

CONTINUES = False
WHOLE_GROUPS = True
WRONG_TOO = False
GREEDY = True
UNSAMPLED = True
UNSURE, REFUSE = "unsure", "refuse"

QUERY = "Are you sure you accurately answered the question based on your internal knowledge?"
REFUSALS = (
    "The answer is unknown.",
    "The answer is uncertain.",
    "The answer is unclear.",
    "It is not known.",
    "I do not know the answer.",
    "I'm not sure.",
    "There is no definitive answer.",
    "There is much debate.",
    "There is no concrete answer to this question.",
    "It is impossible to answer.",
    "There is no known case.",
    "There is no public information available.",
    "There is no scientific evidence.",
    "There is no right answer.",
    "It is impossible to know.",
    "It is difficult to predict.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is said of certainty."""

    unknown: str = UNSURE
    """What becomes of a question that the policy got wrong: `unsure` adds that it is not sure, `refuse` replaces the
    answer."""
    query: str = f" {QUERY}"
    """Put behind the answer with `unsure`."""
    sure: str = " I am sure."
    """Reply where the policy was right."""
    unsure: str = " I am unsure."
    """Reply where it was wrong."""
    refusals: list[str] = field(default_factory=lambda: list(REFUSALS))
    """Texts that `refuse` draws from."""

    def __post_init__(self) -> None:
        if self.unknown not in (UNSURE, REFUSE):
            fix = did_you_mean(self.unknown, (UNSURE, REFUSE))
            raise ConfigError("unknown", f"'{self.unknown}' is not one of the choices", fix=fix)
        if self.sure == self.unsure:
            raise ConfigError("unsure", "is the same as `sure`", fix="let the two replies differ")
        if not self.refusals or not all(self.refusals):
            raise ConfigError("refusals", "holds no text", fix="give one, or leave the key out")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the questions."""
    rows: list[dict[str, Json]] = []
    for group in groups:
        assert group.greedy is not None, "the stage samples greedy answers for this builder"
        [answer], [reward] = group.greedy.trajectories, group.greedy.rewards
        if not verified(reward):
            continue
        told: dict[str, Json] = {
            "answer": answer.text,
            "verdict": reward.verdict.value,
            "sample_id": answer.id,
            "seed": answer.seed,
            "policy_version": answer.policy_version,
        }
        certain = reward.verdict is Verdict.CORRECT
        taught = known(group.prompt, own=answer.text if certain else None)
        rows.append(_row(group.prompt, pieces(taught, certain=certain, cfg=cfg, name=group.prompt.id), certain) | told)
    return rows


def known(prompt: Prompt, *, own: str | None = None) -> str:
    """The answer that is taught.

    Args:
        own: a right one of the policy.
    """
    return prompt.solution or own or prompt.gold


def pieces(answer: str, *, certain: bool, cfg: Config, name: str) -> list[Json]:
    """An answer with what is said of it; refusals are drawn by the name of the prompt."""
    if cfg.unknown == REFUSE:
        drawn = Random(derive_seed(0, "r_tuning", name)).choice(cfg.refusals)
        return [{"text": answer if certain else drawn, "learn": True}]
    return [
        {"text": answer, "learn": True},
        {"text": cfg.query, "learn": False},
        {"text": cfg.sure if certain else cfg.unsure, "learn": True},
    ]


def _row(prompt: Prompt, taught: list[Json], certain: bool) -> dict[str, Json]:
    return {
        "prompt_id": prompt.id,
        "messages": prompt.chat,
        "pieces": taught,
        "certain": certain,
        "gold": prompt.gold,
    }

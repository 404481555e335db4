"""Self-check over self-consistency: where votes are not clear, the policy is asked which answer is right.

    certainty = votes of the first answer / votes of all others

From `certainty` on the most frequent answer is taken. Below it the answers are shown to the policy in the order of
their votes, and the first one that it calls right is taken; if it calls none right, the most frequent one.

Source: Luo et al. 2023, Critique Ability of Large Language Models (arXiv 2310.04815), with a certainty of 2 for a
strong critic and 1 for weaker ones; the text of the algorithm was not at hand, and the ratio is ours. An answer is
shown by the first sample that came to it. Cost: n requests, and one for each answer that is shown, from the question
and the answer.

Known failure: it is no better than majority unless the critic is right more often than not just where votes are split,
and models judge worst where they are unsure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.search import Draft, SearchTools
from rollout.samplers.asking import last_word, reply, talk
from rollout.samplers.common import by_size, check_positive, clusters


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many samples vote, when they are trusted, and how the policy is asked."""

    n: int = 8
    """Samples per answer."""
    certainty: float = 2.0
    """Votes for the first answer, per vote for any other, from which on nobody is asked."""
    question: str = "Is this answer right? Think about it, then say yes or no."
    """What the policy is asked about an answer."""
    yes: str = "yes"
    """The word for a right answer; of the two, what it says last counts."""
    no: str = "no"
    """The word for a wrong one."""

    def __post_init__(self) -> None:
        check_positive(n=self.n)
        if not (math.isfinite(self.certainty) and self.certainty >= 0):
            raise ConfigError("certainty", f"{self.certainty} is not 0 or more", fix="use 2")
        if not self.yes or not self.no or self.yes.lower() == self.no.lower():
            raise ConfigError("yes", "and `no` have to be two different words", fix="use yes and no")


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """A sample with the answer that was taken; the first of all where none has an answer."""
    [drafts] = await tools.extend([tools.root], count=cfg.n)
    found = by_size(clusters(await tools.answers(drafts)))
    if not found:
        return drafts[0]
    others = sum(map(len, found[1:]))
    if len(found[0]) < cfg.certainty * others:
        for places in found:
            said = await reply(tools, talk(tools, drafts[places[0]].text, cfg.question))
            if last_word(said.text, (cfg.yes, cfg.no)) == cfg.yes.lower():
                return drafts[places[0]]
    return drafts[found[0][0]]

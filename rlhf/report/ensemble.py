"""Several distributions over answers as one: self-ensembles, whose confidence is often better than a single one's.

A member is a distribution over answers: a sample that puts its probability on its own answer, or the shares of answers
under one way to ask. With p_m(a) of member m, of M:

    mean    p(a) = sum over m of p_m(a), renormalised
    max     p(a) = max over m of p_m(a), renormalised
    vote    p(a) = members whose likeliest answer is a / M

The answer is the likeliest, of equal ones that which was seen first, and its p is the confidence. For samples of one
model, `mean` is the weighted vote of self-consistency and `vote` the plain one (Wang et al. 2022, arXiv 2203.11171).
Source: "On Task Performance and Model Calibration with Supervised and Self-Ensembled In-Context Learning" (Li et al.
2023, arXiv 2312.13772), mean_prob, max_prob and majority_vote. Their vote keeps the mean distribution of the members
that agree; ours is the share of members that do, so that disagreement lowers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Distribution = Mapping[str, float]
RULES = ("mean", "max", "vote")


def combined(members: Sequence[Distribution], *, rule: str) -> dict[str, float]:
    """One distribution of several; empty where no member has an answer.

    Args:
        members: probabilities by answer, none negative; they need not add up to 1.
        rule: one of `RULES`.
    """
    assert rule in RULES, rule
    out: dict[str, float] = {}
    for member in members:
        given = _vote(member) if rule == "vote" else member
        for answer, p in given.items():
            before = out.get(answer, 0.0)
            out[answer] = max(before, p) if rule == "max" else before + p
    total = float(len(members)) if rule == "vote" else sum(out.values())
    return {answer: p / total for answer, p in out.items()} if total else {}


def decided(distribution: Distribution) -> tuple[str, float] | None:
    """The likeliest answer and its probability; None where there is none."""
    if not distribution:
        return None
    answer = max(distribution, key=lambda name: distribution[name])
    return answer, distribution[answer]


def _vote(member: Distribution) -> Distribution:
    return {max(member, key=lambda answer: member[answer]): 1.0} if member else {}

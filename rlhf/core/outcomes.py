"""What is read off graded samples, apart from their value: was the answer judged, what did a reward report of it.

Used by loops, builders and rewards, which do not see each other. Invariant: nothing here changes a reward.
"""

from __future__ import annotations

from rlhf.core.types import RewardOut, Verdict

SELF_ACCURACY = "self_accuracy"
"""Column of a prompt: the share of right ones among the answers that the policy gave when it was probed."""
FIRST_ERROR = "first_error"
"""In a breakdown: the first wrong step of an answer, counted from 0, or `NO_ERROR`."""
NO_ERROR = -1
_READ = (Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER, Verdict.REFUSED, Verdict.UNPARSABLE)


def verified(out: RewardOut) -> bool:
    """Whether the verdict is that of a verifier that read the answer, so that an accuracy may count it; also where only
    an advisory reward failed, which left the answer without a value."""
    if out.value is not None:
        return True
    return out.verdict in _READ and next(iter(out.breakdown.values()), None) is not None


def reported(out: RewardOut, name: str) -> float | None:
    """What a reward said of a sample, wherever it stands in a rubric; None where none did.

    Args:
        out: as a rubric gave it.
        name: a key of that reward's own breakdown, `refused`.
    """
    return next((value for key, value in out.breakdown.items() if key.rpartition("/")[2] == name), None)

"""Groups of answers that hold programs, and what the code reward says of them."""

from __future__ import annotations

from typing import Any

from rewards.code import Config, score
from rlhf.core.types import Group, Message, Prompt, RewardOut, StopReason, Trajectory


class NoTools:
    """The code reward asks for no worker."""

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        raise AssertionError("not expected")


def group(columns: dict[str, Any], texts: list[str]) -> Group:
    """One prompt with answers that nobody sampled."""
    prompt = Prompt(id="p", messages=(Message(role="user", content="?"),), gold="-", task="t", columns=columns)
    answers = [
        Trajectory(
            id=f"0-0-p-{n}",
            prompt_id="p",
            index=n,
            prompt_tokens=(),
            tokens=(),
            logprobs=(),
            text=text,
            stop=StopReason.EOS,
            policy_version=0,
            seed=0,
        )
        for n, text in enumerate(texts)
    ]
    return Group(prompt=prompt, trajectories=tuple(answers))


def graded(columns: dict[str, Any], *programs: str, cfg: Config | None = None) -> list[RewardOut]:
    """Verdicts on Python programs, each in its block."""
    texts = [f"So:\n```python\n{program}\n```" for program in programs]
    return score(group(columns, texts), cfg or Config(), NoTools())


def reason(columns: dict[str, Any], program: str, cfg: Config | None = None) -> str:
    """Of one program."""
    return graded(columns, program, cfg=cfg)[0].reason

"""Groups for tests of rewards that shape: answers of given tokens and texts, and a verifier in plain sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf.core.types import Group, Json, Message, Prompt, StopReason, Trajectory


@dataclass(frozen=True)
class NoTools:
    """No reward here asks for a worker."""

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        raise AssertionError("not expected")


def answers(
    texts: Sequence[str], *, lengths: Sequence[int] | None = None, columns: Mapping[str, Json] | None = None
) -> Group:
    """One answer per text, of as many tokens as `lengths` says, or else as it has characters. The gold is 2."""
    prompt = Prompt(
        id="p", messages=(Message(role="user", content="1+1="),), gold="2", task="sums", columns=columns or {}
    )
    sizes = lengths or [len(text) for text in texts]
    trajectories = tuple(
        Trajectory(
            id=f"0-0-p-{n}",
            prompt_id="p",
            index=n,
            prompt_tokens=(1,),
            tokens=(7,) * size,
            logprobs=(-0.5,) * size,
            text=text,
            stop=StopReason.EOS,
            policy_version=0,
            seed=n,
        )
        for n, (text, size) in enumerate(zip(texts, sizes, strict=True))
    )
    return Group(prompt=prompt, trajectories=trajectories)

"""Randomness without state: every random choice is a function of the run seed and a stable name.

A resumed run therefore draws what it would have drawn, and a single sample can be generated again on its own.
"""

from __future__ import annotations

import hashlib

from rlhf.core.types import Prompt


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed from a run seed and the name of what is drawn: `derive_seed(0, "prompts", epoch)`."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def trajectory_id(seed: int, step: int, prompt_id: str, index: int) -> str:
    """The stable name of one sample; its sampling seed is `derive_seed(seed, "sample", id)`."""
    return f"{seed}-{step}-{prompt_id}-{index}"


def content_key(prompt: Prompt) -> str:
    """The same for the same question and gold in any run, whatever the prompt is called there."""
    text = "\0".join([*(m.role + m.content for m in prompt.messages), prompt.gold])
    return hashlib.sha256(text.encode()).hexdigest()[:16]

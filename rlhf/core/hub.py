"""Names on the Hugging Face hub, for everything that takes a path or such a name."""

from __future__ import annotations

import re

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id: `gpt2`, `openai/gsm8k`."""
    return _ID.fullmatch(name) is not None

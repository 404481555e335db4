"""math-verify as a grader beside ours, for audits only. Source: https://github.com/huggingface/Math-Verify, 0.9.

It runs in a worker process with a deadline: some inputs keep it busy for minutes, and it is known to crash. Golds are
put into a box, as its own advice is; completions are read as they are. Install it with `pip install 'rlhf[oracle]'`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, cast

from rewards import base
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut, Verdict


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """How long it may take."""

    timeout_s: float = 10.0
    """Deadline for one answer."""


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Grade every answer of a group.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec("math_verify") is None:
        fix = "pip install 'rlhf[oracle]', or take this grader out of `beside`"
        raise ConfigError("name", "math-verify is not installed", fix=fix)
    return [_one(group.prompt.gold, t.text, cfg, tools) for t in group.trajectories]


def grade(argument: dict[str, str]) -> bool:
    """Runs in the worker."""
    import logging

    logging.disable(logging.WARNING)
    from math_verify import parse, verify  # pyright: ignore[reportMissingTypeStubs]

    gold, answer = cast("Any", parse)(argument["gold"]), cast("Any", parse)(argument["completion"])
    return bool(cast("Any", verify)(gold, answer))


def _one(gold: str, completion: str, cfg: Config, tools: Tools) -> RewardOut:
    marked = gold if "\\boxed" in gold or "$" in gold else f"\\boxed{{{gold}}}"
    try:
        same = tools.call(f"{__name__}:grade", {"gold": marked, "completion": completion}, timeout_s=cfg.timeout_s)
    except TimeoutError:
        return base.timeout("math_verify")
    except base.WorkerError as error:
        return base.crash(f"math_verify_{error.kind}")
    verdict = Verdict.CORRECT if same else Verdict.WRONG
    return RewardOut(value=1.0 if same else 0.0, verdict=verdict, reason="match" if same else "mismatch")

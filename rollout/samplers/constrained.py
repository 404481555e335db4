"""Constrained decoding: an answer, or its end, that cannot have another form than the one that is asked for.

    p(y_t | y_<t) is cut to the tokens from which the pattern can still be matched, and renormalised

`kind` says what the form is: one of the `choices`, an `integer`, a regular expression (`regex`), or a number of
characters (`length`). With `after` the policy first writes freely up to these characters, and what follows has the
form; a text that ends without them gets them. The constraint is kept token by token in the engine
(`rollout.token_masks`; in vLLM by its structured outputs). Source: LMQL (Beurer-Kellner et al. 2022, arXiv 2212.06094);
Willard and Louf 2023 (arXiv 2307.09702). Cost: one request, with `after` two.

Known failure: masking is not conditioning. A token that may stand is taken in proportion to its own probability,
whatever the chances are that what must follow makes sense, so that a model that wanted to say something else is led
astray. Log-probs are those of the cut distribution, which a loss over the free policy does not have. An answer that has
no room left ends without a match, and one that a stop string of the loop ends before `after` has no form at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.search import Draft, SearchTools
from rlhf.core.types import StopReason
from rollout.patterns import MOST, parse

KINDS = ("choice", "integer", "regex", "length")
_SIGNS = frozenset(r"\.*+?{}()[]|^$")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which form, and of what."""

    kind: str = "integer"
    """`choice`, `integer`, `regex` or `length`."""
    choices: list[str] = field(default_factory=list[str])
    """Of `choice`."""
    digits: int = 0
    """Of `integer`: digits, at most; 0 for any number."""
    pattern: str = ""
    """Of `regex`: what the text has to match as a whole (`rollout/patterns.py`)."""
    min_chars: int = 1
    """Of `length`."""
    max_chars: int = 0
    """Of `length`; 0 for any number."""
    after: str = ""
    """Characters behind which the form begins; empty for the whole answer."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError("kind", f"'{self.kind}' is not offered", fix=did_you_mean(self.kind, KINDS))
        if self.kind == "choice" and not all(self.choices or [""]):
            raise ConfigError("choices", "has nothing to choose from, or an empty text", fix="name the answers")
        if self.kind == "regex" and not self.pattern:
            raise ConfigError("pattern", "is empty", fix="give a regular expression")
        if not 0 <= self.digits <= MOST:
            raise ConfigError("digits", f"{self.digits} is not a number of digits", fix="use 0 for any number")
        if self.min_chars < 0 or (self.max_chars and self.max_chars < max(1, self.min_chars)):
            problem = f"{self.min_chars} to {self.max_chars} is no range"
            raise ConfigError("max_chars", problem, fix="use 0 for any number of characters")
        parse(form(self))


def form(cfg: Config) -> str:
    """The pattern that a config asks for."""
    if cfg.kind == "choice":
        return "|".join("".join(f"\\{c}" if c in _SIGNS else c for c in choice) for choice in cfg.choices)
    if cfg.kind == "integer":
        return f"-?(0|[1-9][0-9]{{0,{cfg.digits - 1}}})" if cfg.digits else "-?(0|[1-9][0-9]*)"
    if cfg.kind == "length":
        return rf"[\s\S]{{{cfg.min_chars},{cfg.max_chars or ''}}}"
    return cfg.pattern


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The answer."""
    begun = tools.root
    if cfg.after:
        [[free]] = await tools.extend([tools.root], sampling=replace(tools.sampling, stop=[cfg.after]))
        if free.stop not in (None, StopReason.EOS):
            return free
        begun = free if not free.done else tools.put(free, cfg.after)
    [[answer]] = await tools.extend([begun], pattern=form(cfg))
    return answer

"""One sample that calls tools: a call ends the request, what the tool says is put behind it, and the policy goes on.

    x, y_1 [call], tool(call), y_2 [call], tool(call), …, y_n

The tools that a prompt allows, and how calls are written, stand in its columns (`rlhf.core.tools`, the task
`tool_use`); a prompt whose column names none is answered without. What a tool says has the log-prob 0 and is marked as
not sampled (`Trajectory.sampled`), so that a loss leaves it out: this is the sampler to train tool use with, and in
evaluation it is what lets answers use tools at all. Everything counts for `sampling.max_tokens`. An answer that calls
more than `max_calls` times ends with the call. Source: Toolformer (Schick et al. 2023, arXiv 2302.04761) for results in
the text, Search-R1 (Jin et al. 2025, arXiv 2503.09516) and ReTool (Feng et al. 2025, arXiv 2504.11536) for
reinforcement learning with results masked. Cost: one request more than there are calls.

Known failure: where a token reaches over the end of a call, what it holds beyond is not what the tool says, and the
reward `tool_use` calls the result forged unless it begins like it. Tools that take long hold up the other answers of
the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from rlhf.core import tools as toolbox
from rlhf.core.search import Draft, SearchTools
from rlhf.core.types import Prompt, StopReason
from rollout.samplers.common import check_positive

TRAINS = True
"""What was sampled of an answer follows the policy, so that it can be trained on."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How often tools may be called, and where a prompt says which."""

    max_calls: int = 8
    """Calls in one answer, at most."""
    column: str = "tools"
    """Column of the dataset row with the names of the tools that may be called."""
    syntax_column: str = "syntax"
    """Column with how calls are written: short or json."""

    def __post_init__(self) -> None:
        check_positive(max_calls=self.max_calls)


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The sample.

    Raises:
        ConfigError: the prompt names tools, and does not say how they are called.
    """
    allowed = _allowed(tools.prompt, cfg)
    if not allowed:
        [[found]] = await tools.extend([tools.root])
        return found
    syntax = toolbox.syntax_of(tools.prompt, cfg.syntax_column)
    close = toolbox.CLOSE[syntax]
    asking = replace(tools.sampling, stop=[close])
    draft = tools.root
    for _ in range(cfg.max_calls):
        begun = len(draft.text)
        [[draft]] = await tools.extend([draft], sampling=asking)
        calls = [call for call in toolbox.exchanges(draft.text, syntax) if call.end > begun]
        if draft.done or not calls:
            return draft
        said = toolbox.respond(calls[0].asked, allowed, syntax)
        beyond = draft.text[calls[0].end :]
        draft = tools.put(draft, said.removeprefix(beyond))
    [[draft]] = await tools.extend([draft], sampling=asking)
    return draft if draft.done else replace(draft, stop=StopReason.LENGTH)


def _allowed(prompt: Prompt, cfg: Config) -> Sequence[str]:
    names = prompt.columns.get(cfg.column)
    return [str(name) for name in cast("Sequence[object]", names)] if isinstance(names, list | tuple) else []

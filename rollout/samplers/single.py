"""One sample is the answer: no search.

The default, and what the others are compared with. Cost: one request. Source: ancestral sampling; the sampling
transforms are those of the loop (`rlhf.core.sampling`, Holtzman et al. 2019, arXiv 1904.09751).
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.search import Draft, SearchTools

TRAINS = True
"""As in `tool_calls`."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing to set."""


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The sample."""
    [[found]] = await tools.extend([tools.root])
    return found

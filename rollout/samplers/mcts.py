"""Monte-Carlo tree search over steps, with a scorer in place of playing answers to their ends.

    PUCT(v) = Q(v) + (c_init + ln((n + c_base + 1) / c_base)) * sqrt(n) / (1 + n_v)

n_v are the visits of a child and n those of its parent. A simulation goes down from the present node by the greatest
PUCT, grows the leaf that it comes to by `expand` steps, and has these scored; their mean is the value of a visit of the
leaf and of all above it. A child begins with one visit, its own score. After so many the move is to the
most visited child, of equal ones to the better; moves end with an answer that has ended or after `depth` of them.

Source: Liu et al. 2025 (arXiv 2502.07191) with c_init 1.25, c_base 19652 and no prior, from AlphaZero (Silver et al.
2017, arXiv 1712.01815). Two deviations: their code hands up the value of a child drawn at random, here it is the mean
of all; and Q is scaled to [0, 1] by the least and greatest score of the tree, as in MuZero (arXiv 1911.08265, appendix
B), so that scores may have any range. Equal steps are one child. A draft without a score counts like the least. Cost:
per move `simulations * expand` requests, each from the draft so far, and as many scored drafts; an ended leaf costs
nothing when it is met again.

Known failure: values are a scorer's opinion of beginnings, and the mean over a branch with one good step among bad ones
is low; few simulations visit little more than a beam, at several times its price; and a node is grown once, so that a
right step that is not among `expand` is never taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhf.core.errors import ConfigError
from rlhf.core.search import Draft, SearchTools
from rollout.samplers.common import check_positive
from rollout.samplers.stepwise import StepConfig, different, finished, step


@dataclass(frozen=True, kw_only=True)
class Config(StepConfig):
    """How much is tried before each move."""

    simulations: int = 5
    """Per move."""
    expand: int = 3
    """Steps that a leaf grows by."""
    c_init: float = 1.25
    """How much what was rarely tried is preferred."""
    c_base: float = 19652.0
    """Visits from which on that grows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(simulations=self.simulations, expand=self.expand)
        if self.c_init < 0 or self.c_base <= 0:
            raise ConfigError("c_init", f"{self.c_init} with c_base {self.c_base} prefers nothing", fix="use 1.25")


@dataclass(slots=True, eq=False)
class Node:
    """A draft in the tree."""

    draft: Draft
    parent: Node | None = None
    children: list[Node] = field(default_factory=list["Node"])
    visits: int = 0
    total: float = 0.0
    """Of the values of its visits."""


@dataclass(slots=True)
class Range:
    """The least and the greatest score of a tree."""

    low: float = math.inf
    high: float = -math.inf

    def take(self, values: Sequence[float]) -> None:
        """Look at further scores."""
        self.low, self.high = min([self.low, *values]), max([self.high, *values])

    @property
    def least(self) -> float:
        """What stands for a score that is not there."""
        return self.low if math.isfinite(self.low) else 0.0

    def scaled(self, node: Node) -> float:
        """Mean value of a node's visits, in [0, 1]."""
        if self.high <= self.low:
            return 0.0
        return (node.total / node.visits - self.low) / (self.high - self.low)


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The answer that the moves lead to."""
    node, seen = Node(tools.root), Range()
    for _ in range(cfg.depth):
        for _ in range(cfg.simulations):
            await _simulate(tools, node, seen, cfg)
        node = max(node.children, key=lambda child: (child.visits, seen.scaled(child)))
        if node.draft.done:
            return node.draft
    [whole] = await finished(tools, [node.draft])
    return whole


async def _simulate(tools: SearchTools, node: Node, seen: Range, cfg: Config) -> None:
    """Grow one leaf below a node, or meet an ended one again."""
    top = node
    while node.children:
        node = max(node.children, key=lambda child: _puct(child, seen, cfg))
    if node.draft.done:
        _visit(node, node.total / node.visits, top)
        return
    [grown] = await tools.extend([node.draft], count=cfg.expand, sampling=step(tools, cfg))
    shown = different(grown)
    values = [scored.value for scored in await tools.score(shown, scorer=cfg.scorer)]
    seen.take([value for value in values if value is not None])
    worths = [seen.least if value is None else value for value in values]
    node.children = [Node(d, parent=node, visits=1, total=w) for d, w in zip(shown, worths, strict=True)]
    _visit(node, sum(worths) / len(worths), top)


def _puct(node: Node, seen: Range, cfg: Config) -> float:
    assert node.parent is not None
    visits = node.parent.visits
    weight = cfg.c_init + math.log((visits + cfg.c_base + 1) / cfg.c_base)
    return seen.scaled(node) + weight * math.sqrt(visits) / (1 + node.visits)


def _visit(node: Node, value: float, top: Node) -> None:
    """Count a value for a node and what is above it, up to the present one."""
    above: Node | None = node
    while above is not None:
        above.visits += 1
        above.total += value
        above = None if above is top else above.parent

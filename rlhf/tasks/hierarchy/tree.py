"""Rooted trees with named nodes: how they are drawn, written, and asked about.

Children have an order; edges may have a label, which is a weight or, in a binary tree, L or R.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

EDGES, INDENTED = "edges", "indented"
ENCODINGS = (EDGES, INDENTED)


@dataclass(frozen=True, slots=True)
class Tree:
    """Example: `Tree("a", {"a": ["b", "c"], "b": [], "c": []})`."""

    root: str
    children: dict[str, list[str]]
    """Of every node, leaves included."""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    """Of the edge that leads to a node; empty for edges without."""

    @property
    def nodes(self) -> list[str]:
        """Parents first."""
        return list(self.walk(self.root))

    def walk(self, node: str) -> Iterator[str]:
        yield node
        for child in self.children[node]:
            yield from self.walk(child)

    @property
    def parents(self) -> dict[str, str]:
        return {child: parent for parent, children in self.children.items() for child in children}

    def path(self, node: str) -> list[str]:
        """From the root to a node, both included."""
        parents, found = self.parents, [node]
        while found[-1] in parents:
            found.append(parents[found[-1]])
        return found[::-1]

    def common(self, one: str, other: str) -> str:
        """The lowest node that is above both, or is one of them."""
        pairs = zip(self.path(one), self.path(other), strict=False)
        return [a for a, b in pairs if a == b][-1]

    def levels(self) -> list[list[str]]:
        """Nodes by depth, the root first."""
        found = [[self.root]]
        while below := [child for node in found[-1] for child in self.children[node]]:
            found.append(below)
        return found

    def edges(self) -> list[tuple[str, ...]]:
        """(parent, child) or (parent, child, label), depth first."""
        parents = self.parents
        plain = [(parents[node], node) for node in self.nodes[1:]]
        return [(*edge, self.labels[edge[1]]) if edge[1] in self.labels else edge for edge in plain]

    def shape(self, node: str | None = None) -> str:
        """The same text for trees that differ in names and in the order of children alone (Aho et al. 1974)."""
        return "(" + "".join(sorted(map(self.shape, self.children[node or self.root]))) + ")"


def grow(rng: random.Random, *, levels: int, degree: int, balanced: bool, most: int) -> list[int]:
    """The parent of each node, -1 for the root, as many levels deep as asked for."""
    parents, level = [-1], [0]
    for _ in range(levels - 1):
        below = list[int]()
        for node in level:
            for _ in range(degree if balanced else rng.randint(0, degree)):
                if len(parents) < most:
                    below.append(len(parents))
                    parents.append(node)
        if not below:
            if len(parents) >= most:
                break
            below.append(len(parents))
            parents.append(rng.choice(level))
        level = below
    return parents


def named(parents: Sequence[int], names: Sequence[str]) -> Tree:
    """A tree of those nodes, with those names."""
    children = {name: list[str]() for name in names}
    for node, parent in enumerate(parents):
        if parent >= 0:
            children[names[parent]].append(names[node])
    return Tree(names[0], children)


def shuffled_names(rng: random.Random, count: int) -> list[str]:
    """Letters, as long as there are enough, else numbers, in any order."""
    pool = string.ascii_lowercase if count <= len(string.ascii_lowercase) else [str(n) for n in range(count)]
    return rng.sample(pool, count)


def written(tree: Tree, *, encoding: str, spaced: bool) -> str:
    """A tree as text.

    Args:
        tree: at least two nodes.
        encoding: `edges`, depth first, or `indented`.
        spaced: `a -> b, a -> c` instead of `a>b,a>c`.
    """
    if encoding == INDENTED:
        return "\n".join([tree.root, *_indented(tree, tree.root, "")])
    return (", " if spaced else ",").join(_edge(edge, spaced) for edge in tree.edges())


def nested(tree: Tree, node: str | None = None) -> str:
    """A binary tree as `a(b,c(.,d))`: a node, and in brackets what is left and right below it."""
    node = node or tree.root
    sides = {tree.labels[child]: nested(tree, child) for child in tree.children[node]}
    return f"{node}({sides.get('L', '.')},{sides.get('R', '.')})" if sides else node


def _edge(edge: Sequence[str], spaced: bool) -> str:
    parent, child, *label = edge
    arrow = f"-({label[0]})->" if label else "->" if spaced else ">"
    return f"{parent} {arrow} {child}" if spaced else f"{parent}{arrow}{child}"


def _indented(tree: Tree, node: str, margin: str) -> Iterator[str]:
    children = tree.children[node]
    for n, child in enumerate(children, start=1):
        last = n == len(children)
        label = f"({tree.labels[child]}) " if child in tree.labels else ""
        yield f"{margin}{'`-- ' if last else '|-- '}{label}{child}"
        yield from _indented(tree, child, margin + ("    " if last else "|   "))

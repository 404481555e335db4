"""Questions about nested JSON: eleven, as HiBench's code has them; its paper keeps seven.

A document is a tree of names. What stands at a leaf is a number, its attribute.
"""

from __future__ import annotations

import json
import random

from rlhf.core.answers import Answer, Kind
from rlhf.tasks import generated
from rlhf.tasks.hierarchy import tree as trees
from rlhf.tasks.hierarchy.asked import Asked, Question, Sizes
from rlhf.tasks.hierarchy.tree import Tree

Nested = dict[str, "int | Nested"]


def draw(rng: random.Random, sizes: Sizes) -> tuple[Tree, dict[str, int]]:
    """The tree of a document, and the attributes of its leaves."""
    levels, degree = rng.randint(sizes.min_levels, sizes.max_levels), rng.randint(sizes.min_degree, sizes.max_degree)
    parents = trees.grow(rng, levels=levels, degree=degree, balanced=sizes.balanced, most=sizes.max_nodes)
    compact = sizes.style == generated.COMPACT
    names = trees.shuffled_names(rng, len(parents)) if compact else generated.invented_words(rng, len(parents))
    tree = trees.named(parents, names)
    return tree, {node: rng.randint(1, 99) for node in tree.nodes if not tree.children[node]}


def document(tree: Tree, attributes: dict[str, int]) -> Nested:
    """`{"a": {"b": 7, "c": {"d": 12}}}`"""

    def below(node: str) -> int | Nested:
        return attributes[node] if node in attributes else {child: below(child) for child in tree.children[node]}

    return {tree.root: below(tree.root)}


def _asked(
    tree: Tree, attributes: dict[str, int], about: str, sentence: str, kind: Kind, value: str | list[str] | bool,
    *steps: str,
) -> Asked:  # fmt: skip
    nested = document(tree, attributes)
    answer = Answer(kind, tuple(value) if isinstance(value, list) else value)
    return Asked(
        given=json.dumps(nested, separators=(",", ":")).replace('"', ""),
        told=json.dumps(nested),
        about=about,
        sentence=sentence,
        answer=answer,
        size=len(tree.children),
        steps=steps,
    )


def _child_count(rng: random.Random, sizes: Sizes) -> Asked:
    tree, attributes = draw(rng, sizes)
    node = rng.choice(tree.nodes)
    count = str(len(tree.children[node]))
    return _asked(tree, attributes, node, f"How many entries stand directly in {node}?", Kind.NUMBER, count)


def _level(rng: random.Random, tree: Tree) -> tuple[int, list[str]]:
    level = rng.randint(1, len(tree.levels()))
    return level, tree.levels()[level - 1]


def _level_count(rng: random.Random, sizes: Sizes) -> Asked:
    tree, attributes = draw(rng, sizes)
    level, nodes = _level(rng, tree)
    sentence = f"How many names stand on level {level}, where the outermost name is level 1?"
    return _asked(tree, attributes, str(level), sentence, Kind.NUMBER, str(len(nodes)))


def _level_nodes(rng: random.Random, sizes: Sizes) -> Asked:
    tree, attributes = draw(rng, sizes)
    level, nodes = _level(rng, tree)
    sentence = f"Which names stand on level {level}, where the outermost name is level 1?"
    return _asked(tree, attributes, str(level), sentence, Kind.SET, nodes)


def _node_attribute(rng: random.Random, sizes: Sizes) -> Asked:
    tree, attributes = draw(rng, sizes)
    node = rng.choice([*attributes])
    return _asked(tree, attributes, node, f"What is the value of {node}?", Kind.NUMBER, str(attributes[node]))


def _node_depth(rng: random.Random, sizes: Sizes) -> Asked:
    tree, attributes = draw(rng, sizes)
    node = rng.choice(tree.nodes)
    steps = [f"{name} {depth}" for depth, name in enumerate(tree.path(node), start=1)]
    sentence = f"On which level stands {node}, where the outermost name is level 1?"
    return _asked(tree, attributes, node, sentence, Kind.NUMBER, str(len(steps)), *steps)


def _node_relationship(rng: random.Random, sizes: Sizes) -> Asked:
    tree, attributes = draw(rng, sizes)
    wanted = rng.random() < 0.5
    node = rng.choice(tree.nodes[1:])
    above = tree.path(node)[:-1]
    others = [name for name in tree.nodes if name not in above and name != node] or above
    one = rng.choice(above if wanted else others)
    sentence = f"Does {node} stand somewhere in {one}?"
    return _asked(tree, attributes, f"{node},{one}", sentence, Kind.BOOLEAN, one in above)


def _path_up(rng: random.Random, sizes: Sizes) -> Asked:
    tree, attributes = draw(rng, sizes)
    node = rng.choice(tree.nodes)
    sentence = f"List the names from {node} out to the outermost one, both included."
    return _asked(tree, attributes, node, sentence, Kind.ORDERED, tree.path(node)[::-1])


def _path_down(rng: random.Random, sizes: Sizes) -> Asked:
    tree, attributes = draw(rng, sizes)
    node = rng.choice(tree.nodes)
    sentence = f"List the names from the outermost one in to {node}, both included."
    return _asked(tree, attributes, node, sentence, Kind.ORDERED, tree.path(node))


def _path_between(rng: random.Random, sizes: Sizes) -> Asked:
    tree, attributes = draw(rng, sizes)
    one, other = rng.sample(tree.nodes, 2)
    up, down = tree.path(one), tree.path(other)
    shared = sum(a == b for a, b in zip(up, down, strict=False))
    path = [*up[shared - 1 :][::-1], *down[shared:]]
    steps = (">".join(up), ">".join(down))
    sentence = f"List the names on the way from {one} to {other}, both included, by way of what holds both."
    return _asked(tree, attributes, f"{one},{other}", sentence, Kind.ORDERED, path, *steps)


def _shared(same: bool) -> Question:
    def ask(rng: random.Random, sizes: Sizes) -> Asked | None:
        tree, attributes = draw(rng, sizes)
        depth = {node: n for n, level in enumerate(tree.levels()) for node in level}
        one = rng.choice(tree.nodes[1:])
        others = [node for node in tree.nodes[1:] if node != one and (depth[node] == depth[one]) is same]
        if not others:
            return None
        other = rng.choice(others)
        common = tree.common(one, other)
        steps = (">".join(tree.path(one)), ">".join(tree.path(other)))
        sentence = f"Which is the innermost name that holds both {one} and {other}, or is one of them?"
        return _asked(tree, attributes, f"{one},{other}", sentence, Kind.TEXT, common, *steps)

    return ask


DOCUMENTS: dict[str, Question] = {
    "child_count": _child_count,
    "level_count": _level_count,
    "level_nodes": _level_nodes,
    "node_attribute": _node_attribute,
    "json_depth": _node_depth,
    "node_relationship": _node_relationship,
    "path_down_to_up": _path_up,
    "path_up_to_down": _path_down,
    "path_between": _path_between,
    "shared_ancestor_same_level": _shared(True),
    "shared_ancestor_different_level": _shared(False),
}
"""By name."""

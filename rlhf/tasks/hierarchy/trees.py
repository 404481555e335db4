"""Questions about trees: nine about any, six about binary ones.

The rules of HiBench (`generator/fundamental/algo.py`): children of a removed node go to its parent; when the root is
removed its first child takes its place, and its other children go to that one. There the depth of a node is the height
of what is below it, though the question says that the root has depth 1; here it is what the question says. Two trees
are isomorphic there unless edges were taken away; here one node is hung up elsewhere, and the shapes are compared.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from string import ascii_lowercase

from rlhf.core.answers import Answer, Kind
from rlhf.tasks.hierarchy import tree as trees
from rlhf.tasks.hierarchy.asked import Asked, Question, Sizes
from rlhf.tasks.hierarchy.tree import INDENTED, Tree

_TRIES = 30
_ORDERS = ("preorder", "inorder", "postorder")


def draw(rng: random.Random, sizes: Sizes) -> Tree:
    """A tree of the sizes that are asked for."""
    parents = trees.grow(
        rng,
        levels=rng.randint(sizes.min_levels, sizes.max_levels),
        degree=rng.randint(sizes.min_degree, sizes.max_degree),
        balanced=sizes.balanced,
        most=sizes.max_nodes,
    )
    tree = trees.named(parents, trees.shuffled_names(rng, len(parents)))
    return replace(tree, labels={node: str(rng.randint(1, 29)) for node in tree.nodes[1:]}) if sizes.weights else tree


def draw_binary(rng: random.Random, sizes: Sizes) -> Tree:
    """A binary tree; an only child is left or right."""
    levels = rng.randint(sizes.min_levels, sizes.max_levels)
    parents = trees.grow(rng, levels=levels, degree=2, balanced=sizes.balanced, most=sizes.max_nodes)
    tree = trees.named(parents, trees.shuffled_names(rng, len(parents)))
    labels = dict[str, str]()
    for children in tree.children.values():
        sides = ("L", "R") if len(children) == 2 else (rng.choice("LR"),)
        labels |= dict(zip(children, sides, strict=False))
    return replace(tree, labels=labels)


def added(tree: Tree, node: str, parent: str, label: str | None) -> Tree:
    """The tree with a new leaf."""
    children = {name: list(below) for name, below in tree.children.items()} | {node: []}
    children[parent].append(node)
    return Tree(tree.root, children, tree.labels | ({node: label} if label else {}))


def removed(tree: Tree, node: str) -> Tree:
    """The tree without a node; each child keeps the label of the edge that led to it."""
    orphans = tree.children[node]
    children = {name: list(below) for name, below in tree.children.items() if name != node}
    labels = {name: label for name, label in tree.labels.items() if name != node}
    if node == tree.root:
        first = orphans[0]
        children[first] += orphans[1:]
        return Tree(first, children, {name: label for name, label in labels.items() if name != first})
    siblings = children[tree.parents[node]]
    at = siblings.index(node)
    siblings[at : at + 1] = orphans
    return Tree(tree.root, children, labels)


def mirrored(tree: Tree) -> Tree:
    """A binary tree with left and right swapped."""
    labels = {node: "R" if side == "L" else "L" for node, side in tree.labels.items()}
    return Tree(tree.root, {node: below[::-1] for node, below in tree.children.items()}, labels)


def traversed(tree: Tree, order: str, node: str | None = None) -> list[str]:
    """The nodes of a binary tree in `preorder`, `inorder` or `postorder`."""
    node = node or tree.root
    left, right = (
        [name for child in tree.children[node] if tree.labels[child] == side for name in traversed(tree, order, child)]
        for side in "LR"
    )
    if order == "preorder":
        return [node, *left, *right]
    return [*left, node, *right] if order == "inorder" else [*left, *right, node]


def is_balanced(tree: Tree) -> bool:
    """Whether the subtrees of every node differ by one level at most."""

    def height(node: str) -> int:
        """-1 where some node below is out of balance."""
        heights = [height(child) for child in tree.children[node]] + [0, 0]
        return -1 if min(heights) < 0 or abs(heights[0] - heights[1]) > 1 else 1 + max(heights)

    return height(tree.root) > 0


def _asked(tree: Tree, sizes: Sizes, about: str, sentence: str, answer: Answer, *steps: str) -> Asked:
    binary = set(tree.labels.values()) <= {"L", "R"} and bool(tree.labels)
    short = trees.nested(tree) if binary else trees.written(tree, encoding=sizes.encoding, spaced=False)
    told = trees.written(tree, encoding=sizes.encoding, spaced=True)
    told = f"\n{told}\n" if sizes.encoding == INDENTED else told
    return Asked(
        given=short, told=told, about=about, sentence=sentence, answer=answer, size=len(tree.children), steps=steps
    )


def _add_node(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw(rng, sizes)
    unused = [name for name in ascii_lowercase if name not in tree.children]
    node = rng.choice(unused) if tree.root.isalpha() and unused else str(len(tree.children))
    parent, label = rng.choice(tree.nodes), str(rng.randint(1, 29)) if sizes.weights else None
    weight = f" with weight {label}" if label else ""
    answer = Answer(Kind.EDGES, tuple(added(tree, node, parent, label).edges()))
    about = f"{parent}-({label})->{node}" if label else f"{parent}>{node}"
    return _asked(tree, sizes, about, f"Add the node {node} as a child of {parent}{weight}.", answer)


def _remove_node(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw(rng, sizes)
    node = rng.choice(tree.nodes)
    answer = Answer(Kind.EDGES, tuple(removed(tree, node).edges()))
    sentence = (
        f"Remove the node {node}. Its children become children of its parent; if it is the root, its first child"
        " becomes the root and its other children become children of that one."
    )
    return _asked(tree, sizes, node, sentence, answer)


def _all_ancestor(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw(rng, sizes)
    node = rng.choice(tree.nodes)
    path = tree.path(node)
    steps = [f"{above}>{below}" for above, below in pairwise(path)]
    answer = Answer(Kind.SET, tuple(path[:-1]))
    return _asked(tree, sizes, node, f"Which nodes are ancestors of {node}?", answer, *steps[::-1])


def _all_children(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw(rng, sizes)
    node = rng.choice(tree.nodes)
    answer = Answer(Kind.SET, tuple(tree.children[node]))
    return _asked(tree, sizes, node, f"Which nodes are children of {node}?", answer)


def _common_ancestor(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw(rng, sizes)
    one, other = rng.sample(tree.nodes, 2)
    answer = Answer(Kind.TEXT, tree.common(one, other))
    steps = (">".join(tree.path(one)), ">".join(tree.path(other)))
    sentence = f"Which is the lowest common ancestor of {one} and {other}? A node counts as its own ancestor."
    return _asked(tree, sizes, f"{one},{other}", sentence, answer, *steps)


def _isomorphic(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw(rng, replace(sizes, weights=False))
    names = trees.shuffled_names(rng, len(tree.children))
    renamed = dict(zip(tree.nodes, names, strict=True))
    other = Tree(
        renamed[tree.root], {renamed[node]: [renamed[n] for n in below] for node, below in tree.children.items()}
    )
    if rng.random() < 0.5:
        leaf = rng.choice([node for node in other.nodes if not other.children[node]])
        place = rng.choice([node for node in other.nodes if node != leaf])
        other = added(removed(other, leaf), leaf, place, None)
    for below in other.children.values():
        rng.shuffle(below)
    answer = Answer(Kind.BOOLEAN, tree.shape() == other.shape())
    text = trees.written(other, encoding=trees.EDGES, spaced=True)
    short = trees.written(other, encoding=trees.EDGES, spaced=False)
    sentence = f"Has it the same shape as this one, whatever the names of the nodes: {text}?"
    return _asked(tree, sizes, short, sentence, answer)


def _node_depth(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw(rng, sizes)
    node = rng.choice(tree.nodes)
    path = tree.path(node)
    steps = [f"{name} {depth}" for depth, name in enumerate(path, start=1)]
    answer = Answer(Kind.NUMBER, str(len(path)))
    return _asked(tree, sizes, node, f"How deep is {node}, where the root has depth 1?", answer, *steps)


def _leaf(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw(rng, sizes)
    wanted = rng.random() < 0.5
    node = rng.choice([node for node in tree.nodes if (not tree.children[node]) is wanted])
    return _asked(tree, sizes, node, f"Is {node} a leaf?", Answer(Kind.BOOLEAN, wanted))


def _root(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw(rng, sizes)
    return _asked(tree, sizes, "", "Which node is the root?", Answer(Kind.TEXT, tree.root))


def _balance(rng: random.Random, sizes: Sizes) -> Asked | None:
    wanted = rng.random() < 0.5
    drawn = (draw_binary(rng, sizes) for _ in range(_TRIES))
    tree = next((tree for tree in drawn if is_balanced(tree) is wanted), None)
    if tree is None:
        return None
    sentence = "Is it balanced: do the two subtrees of every node differ by one level at most?"
    return _asked(tree, sizes, "", sentence, Answer(Kind.BOOLEAN, wanted))


def _traversal(order: str, name: str, sequence: str) -> Question:
    def ask(rng: random.Random, sizes: Sizes) -> Asked | None:
        tree = draw_binary(rng, sizes)
        answer = Answer(Kind.ORDERED, tuple(traversed(tree, order)))
        return _asked(tree, sizes, "", f"List its nodes in {name} order: {sequence}.", answer)

    return ask


def _verification(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw_binary(rng, sizes)
    found = {order: traversed(tree, order) for order in _ORDERS}
    if len({tuple(nodes) for nodes in found.values()}) < len(_ORDERS):
        return None
    order = rng.choice(_ORDERS)
    text = ",".join(found[order])
    sentence = f"Is {text} its preorder, inorder or postorder?"
    return _asked(tree, sizes, text, sentence, Answer(Kind.TEXT, order))


def _mirror(rng: random.Random, sizes: Sizes) -> Asked | None:
    tree = draw_binary(rng, sizes)
    answer = Answer(Kind.EDGES, tuple(mirrored(tree).edges()))
    return _asked(tree, sizes, "", "Swap the left and right children of every node.", answer)


MULTIPLE: dict[str, Question] = {
    "add_node": _add_node,
    "remove_node": _remove_node,
    "all_ancestor": _all_ancestor,
    "all_children": _all_children,
    "common_ancestor": _common_ancestor,
    "isomorphic": _isomorphic,
    "node_depth": _node_depth,
    "leaf": _leaf,
    "root": _root,
}
"""Questions about any tree, by name."""
BINARY: dict[str, Question] = {
    "balance": _balance,
    "prefix_traversal": _traversal("preorder", "prefix", "a node, what is left below it, what is right below it"),
    "infix_traversal": _traversal("inorder", "infix", "what is left below a node, the node, what is right below it"),
    "postfix_traversal": _traversal("postorder", "postfix", "what is left below a node, what is right, the node"),
    "traversal_order_verification": _verification,
    "mirror_tree": _mirror,
}
"""Questions about binary trees, by name."""

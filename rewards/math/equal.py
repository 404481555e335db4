r"""Whether two trees mean the same answer, part by part.

Used by `rewards.math.compare`. Both trees are canonical.

    scalars               the same value everywhere (`numeric`)
    tuples, intervals     the same brackets, parts in order
    sets, lists           the same parts in any order, as often; one part alone is that part
    unions                the same pieces in any order
    matrices              entry by entry
    ratios                a : b = c : d; of two parts also the fraction
    equations             a - b a constant multiple of c - d; inequalities a positive one
    an inequality         its interval: `0 < x \le 3` is `(0, 3]`
    an equation           its value, where one side is but a name: `AB = 5` is 5; the gold may name more
    a number in base b    the same digits; the base may be left out
    assignments           `x = 1, y = 2` is `(1, 2)`

The comparison is of a prediction with a gold: where something may be left out or be more than a name, only one of the
two may do so.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from rewards.math.canonical import ASSIGNED, canonical
from rewards.math.numeric import Evaluator
from rewards.math.tree import Apply, Items, Name, Node, Number, Relation, is_scalar, variables, walk

MAX_UNORDERED = 64
_UNORDERED = ("set", "list")
_LABELS = frozenset({"*", "abs", "norm", "^"})
_INFINITY = Name("infty")
_MINUS_INFINITY = Apply("*", (Number(Fraction(-1)), _INFINITY))
_REALS = Items("()", (_MINUS_INFINITY, _INFINITY))


def equal(prediction: Node, gold: Node) -> bool:
    """Whether they mean the same; parts that the grammar does not know must be spelled the same.

    Raises:
        Unreadable: `limit/…`.
    """
    return _Comparison().same(prediction, gold)


class _Comparison:
    """One question, with the values that it has calculated."""

    def __init__(self) -> None:
        self._values = Evaluator()

    def same(self, prediction: Node, gold: Node) -> bool:
        if prediction.key == gold.key:
            return True
        prediction, gold = _alone(prediction), _alone(gold)
        if is_scalar(prediction) and is_scalar(gold):
            return self._values.same(prediction, gold)
        if isinstance(prediction, Relation) or isinstance(gold, Relation):
            return self._relations(prediction, gold)
        if isinstance(prediction, Items) and isinstance(gold, Items):
            return self._items(prediction, gold)
        if isinstance(prediction, Items) != isinstance(gold, Items) and (is_scalar(prediction) or is_scalar(gold)):
            return self._scalar_and_items(prediction, gold)
        return self._sets(prediction, gold)

    def _items(self, prediction: Items, gold: Items) -> bool:
        if prediction.kind in _UNORDERED and gold.kind in _UNORDERED:
            return self._any_order(prediction.items, gold.items)
        kinds = {prediction.kind, gold.kind}
        if kinds == {ASSIGNED, "()"}:
            return self._in_order(_values(prediction), _values(gold))
        if len(kinds) > 1:
            return False
        if gold.kind == ASSIGNED:
            return self._any_order(prediction.items, gold.items)
        if gold.kind == "ratio" and len(prediction.items) == len(gold.items):
            first = (prediction.items[0], gold.items[0])
            return all(
                self.same(_product(p, first[1]), _product(g, first[0]))
                for p, g in zip(prediction.items[1:], gold.items[1:], strict=True)
            )
        return self._in_order(prediction.items, gold.items)

    def _in_order(self, predictions: Sequence[Node], golds: Sequence[Node]) -> bool:
        return len(predictions) == len(golds) and all(map(self.same, predictions, golds))

    def _any_order(self, predictions: Sequence[Node], golds: Sequence[Node]) -> bool:
        if len(predictions) != len(golds):
            return False
        keys = [gold.key for gold in golds]
        left: list[Node] = []
        for part in predictions:
            if part.key in keys:
                keys.remove(part.key)
            else:
                left.append(part)
        if len(left) > MAX_UNORDERED:
            return False
        rest = [gold for gold in golds if gold.key in keys and (keys.remove(gold.key) or True)]
        for part in left:
            match = next((gold for gold in rest if self.same(part, gold)), None)
            if match is None:
                return False
            rest.remove(match)
        return True

    def _scalar_and_items(self, prediction: Node, gold: Node) -> bool:
        items, scalar = (prediction, gold) if isinstance(prediction, Items) else (gold, prediction)
        assert isinstance(items, Items)
        if items.kind == "ratio" and len(items.items) == 2:
            return self.same(items.items[0], _product(scalar, items.items[1]))
        if items.kind == "base":
            return self.same(scalar, items.items[0])
        return isinstance(scalar, Name) and scalar.name == "R" and items.key == _REALS.key

    def _sets(self, prediction: Node, gold: Node) -> bool:
        """Unions and intersections: the same pieces in any order."""
        if not isinstance(prediction, Apply) or not isinstance(gold, Apply) or prediction.operator != gold.operator:
            return False
        if prediction.operator in ("cup", "cap"):
            return self._any_order(prediction.arguments, gold.arguments)
        return self._in_order(prediction.arguments, gold.arguments)

    def _relations(self, prediction: Node, gold: Node) -> bool:
        if isinstance(prediction, Relation) and isinstance(gold, Relation):
            return self._both_relations(prediction, gold)
        if isinstance(prediction, Relation):
            meant = _interval(prediction) or self._value(prediction)
            return meant is not None and self.same(meant, gold)
        assert isinstance(gold, Relation)
        meant = _interval(gold) or self._value(gold)
        return meant is not None and self.same(prediction, meant)

    def _both_relations(self, prediction: Relation, gold: Relation) -> bool:
        if prediction.signs == gold.signs and self._in_order(prediction.sides, gold.sides):
            return True
        left, right = _interval(prediction), _interval(gold)
        if left is not None and right is not None and variables(prediction) == variables(gold):
            return self.same(left, right)
        if len(gold.signs) != 1 or prediction.signs != gold.signs:
            return False
        if not all(map(is_scalar, (*prediction.sides, *gold.sides))) or not variables(gold):
            return "=" in gold.signs and self._in_order(prediction.sides[::-1], gold.sides)
        (sign,) = gold.signs
        if sign not in ("=", "<", r"\le", r"\ne"):
            return False
        left, right = _difference(prediction), _difference(gold)
        return self._values.proportional(left, right, positive=sign in ("<", r"\le"))

    def _value(self, relation: Relation) -> Node | None:
        """What `AB = 5` or `2 + 3 = 5` says; all that is said must agree."""
        if set(relation.signs) != {"="}:
            return None
        first, *rest = relation.sides
        if not _is_label(first):
            if any(variables(side) for side in relation.sides):
                return None
            rest = list(relation.sides)
        agreed = all(self.same(side, rest[-1]) for side in rest[:-1])
        return rest[-1] if agreed else None


def _values(node: Items) -> Sequence[Node]:
    return [part.sides[1] if isinstance(part, Relation) else part for part in node.items]


def _alone(node: Node) -> Node:
    """A set or list of one part is that part; what is `x < 1 or x > 5` is a union."""
    if not isinstance(node, Items) or node.kind not in _UNORDERED:
        return node
    if len(node.items) == 1:
        return node.items[0]
    pieces = [_interval(part) for part in node.items]
    known = [piece for piece in pieces if piece is not None]
    return Apply("cup", tuple(known)) if known and len(known) == len(pieces) else node


def _interval(node: Node) -> Node | None:
    """The interval that an inequality in one name stands for."""
    if not isinstance(node, Relation):
        return None
    signs, sides = node.signs, node.sides
    if signs == (r"\in",) and isinstance(sides[0], Name):
        return sides[1]
    if absolute := _absolute(node):
        return absolute
    if not set(signs) <= {"<", r"\le", ">", r"\ge"}:
        return None
    if len(signs) == 1 and isinstance(sides[0], Name) and not variables(sides[1]):
        if signs[0] in ("<", r"\le"):
            return Items("()" if signs[0] == "<" else "(]", (_MINUS_INFINITY, sides[1]))
        return Items("()" if signs[0] == ">" else "[)", (sides[1], _INFINITY))
    if len(signs) == 1 and isinstance(sides[1], Name) and not variables(sides[0]):
        mirrored = {"<": ">", r"\le": r"\ge", ">": "<", r"\ge": r"\le"}[signs[0]]
        return _interval(Relation((mirrored,), (sides[1], sides[0])))
    if len(signs) == 2 and set(signs) <= {"<", r"\le"} and isinstance(sides[1], Name):
        if variables(sides[0]) or variables(sides[2]):
            return None
        brackets = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
        return Items(brackets, (sides[0], sides[2]))
    return None


def _absolute(node: Relation) -> Node | None:
    """`|x| < 3`, `1 \\le |x| \\le 3` and `|x| > 3` as intervals of x; bounds are positive numbers."""
    signs, sides = node.signs, node.sides
    at = 1 if len(sides) == 3 else next((i for i, side in enumerate(sides) if not isinstance(side, Number)), 0)
    bounds = [side for i, side in enumerate(sides) if i != at]
    middle = sides[at]
    if not isinstance(middle, Apply) or middle.operator != "abs":
        return None
    (name,) = middle.arguments
    if (
        not isinstance(name, Name)
        or not all(isinstance(bound, Number) and bound.value > 0 for bound in bounds)
        or len(sides) > 3
    ):
        return None
    straight = Relation(signs, tuple(name if side is middle else side for side in sides))
    below = len(sides) == 2 and (signs[0] in ("<", r"\le")) == (at == 0)
    if below:
        bound = bounds[0]
        opposite = canonical(Apply("neg", (bound,)))
        return Items("()" if signs[0] in "<>" else "[]", (opposite, bound))
    inner = _interval(straight)
    if not isinstance(inner, Items):
        return None
    mirrored = tuple(canonical(Apply("neg", (end,))) for end in reversed(inner.items))
    brackets = {"(": ")", ")": "(", "[": "]", "]": "["}
    kind = brackets[inner.kind[1]] + brackets[inner.kind[0]]
    return Apply("cup", (Items(kind, mirrored), inner))


def _is_label(node: Node) -> bool:
    """Whether a side of an equation only names something: `AB`, `|AB|`, `\\frac{AB}{CD}`, `A : B`."""
    if not variables(node):
        return False
    return all(
        isinstance(n, Name)
        or (isinstance(n, Number) and n.value == -1)
        or (isinstance(n, Apply) and n.operator in _LABELS)
        or (isinstance(n, Items) and n.kind == "ratio")
        for n in walk(node)
    )


def _difference(relation: Relation) -> Node:
    left, right = relation.sides
    return canonical(Apply("+", (left, Apply("neg", (right,)))))


def _product(left: Node, right: Node) -> Node:
    return canonical(Apply("*", (left, right)))

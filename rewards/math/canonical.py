r"""One tree for many spellings: exact arithmetic is done, sums and products are flat and sorted.

Used by `rewards.math.equal`. `2^3`, `8` and `12 - 4` become the same number, `3 * \sqrt{13}` and `\sqrt{13} \cdot 3`
the same product; matrices of the same shape are added, and multiplied with scalars. What is not equal after this may
still be (`numeric` decides). Nothing is expanded, so that a tree never grows. Before each operation the size of its
result is bounded (`arithmetic`), so that towers of powers and factorials cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from rewards.math import arithmetic
from rewards.math.arithmetic import Irrational
from rewards.math.lexer import Unreadable
from rewards.math.tree import Apply, Items, Name, Node, Number, Relation, Verbatim, children, walk

MAX_NODES = 4000
MAX_LEVELS = 150
ASSIGNED = "assigned"
"""Kind of several names that each get a value."""
_ONE, _ZERO = Number(Fraction(1)), Number(Fraction(0))
_TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
_SCALAR = frozenset({"+", "*", "neg", "inverse", "^", "root"})
_MIRRORED = {">": "<", r"\ge": r"\le"}


def canonical(node: Node) -> Node:
    """The tree simplified, exactly.

    Raises:
        Unreadable: `limit/nodes`, `limit/magnitude`; `unparsed` for a division by zero.
    """
    _check_size(node)
    return _simple(_spread(node))


def _check_size(node: Node) -> None:
    """Signs and operators in a row nest without brackets: `x!!!` is three deep."""
    level, nodes, depth = [node], 0, 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if nodes > MAX_NODES:
            raise Unreadable("limit/nodes")
        if depth > MAX_LEVELS:
            raise Unreadable("limit/depth")
        level = [child for parent in level for child in children(parent)]


def _spread(node: Node) -> Node:
    r"""With both values of every `\pm`: `1 \pm 2` is a list, and in a list two more parts."""
    if not any(isinstance(n, Apply) and n.operator == "pm" for n in walk(node)):
        return node
    if isinstance(node, Items):
        if node.kind not in ("set", "list"):
            return Items(node.kind, tuple(map(_spread, node.items)))
        parts = [(item, _spread(item)) for item in node.items]
        flat = [p for item, new in parts for p in (new.items if new is not item and isinstance(new, Items) else (new,))]
        return Items(node.kind, tuple(flat))
    upper, lower = _with_sign(node, 1), _with_sign(node, -1)
    return Items("list", (upper, lower))


def _with_sign(node: Node, sign: int) -> Node:
    if isinstance(node, Apply):
        parts = tuple(_with_sign(part, sign) for part in node.arguments)
        if node.operator != "pm":
            return Apply(node.operator, parts)
        return Apply("+", (parts[0], parts[1] if sign > 0 else Apply("neg", (parts[1],))))
    if isinstance(node, Items):
        return Items(node.kind, tuple(_with_sign(part, sign) for part in node.items))
    return Relation(node.signs, tuple(_with_sign(s, sign) for s in node.sides)) if isinstance(node, Relation) else node


def _simple(node: Node) -> Node:
    if isinstance(node, Apply):
        if node.operator in _TRIGONOMETRIC:
            node = Apply(node.operator, tuple(map(_radians, node.arguments)))
        return _operation(node.operator, [_simple(argument) for argument in node.arguments])
    if isinstance(node, Items):
        return _assigned(node.kind, tuple(map(_simple, node.items)))
    if isinstance(node, Relation):
        return _relation(node.signs, [_simple(side) for side in node.sides])
    return node


def _assigned(kind: str, items: tuple[Node, ...]) -> Node:
    """`x = 1, y = 2` gives each name a value; `x_1 = 1, x_2 = 2` lists the values of x; `x = 1, y = 2, x = 3, y = 4` is
    a list of two such."""
    names = [name for name in map(_assigned_name, items) if name]
    if len(names) < max(2, len(items)) or kind not in ("list", "set", "()"):
        return Items(kind, items)
    different = len(set(names))
    if different == len(names):
        bases = {name.partition("_")[0] for name in names}
        if len(bases) == 1:
            return Items("list", tuple(item.sides[1] for item in items if isinstance(item, Relation)))
        return Items(ASSIGNED, items)
    if different > 1 and names == names[:different] * (len(names) // different):
        starts = range(0, len(names), different)
        return Items("list", tuple(_assigned("list", items[i : i + different]) for i in starts))
    return Items(kind, items)


def _assigned_name(node: Node) -> str:
    if not isinstance(node, Relation) or node.signs != ("=",):
        return ""
    first = node.sides[0]
    return first.name if isinstance(first, Name) else ""


def _radians(node: Node) -> Node:
    """With degrees as what they are; anywhere else a degree sign is a unit that may be left out."""
    if not isinstance(node, Apply):
        return node
    inner = tuple(map(_radians, node.arguments))
    return (
        Apply("*", (*inner, Name("pi"), Number(Fraction(1, 180))))
        if node.operator == "degree"
        else Apply(node.operator, inner)
    )


def _operation(operator: str, parts: list[Node]) -> Node:
    if any(isinstance(part, Items) and part.kind == "matrix" for part in parts) and operator in ("+", "*", "neg"):
        return _matrices(operator, parts)
    if operator in _SCALAR and any(isinstance(part, (Items, Relation)) for part in parts):
        return Apply(operator, tuple(parts))
    match operator:
        case "+":
            return _sum(parts)
        case "*":
            return _product(parts)
        case "neg":
            return _product([Number(Fraction(-1)), parts[0]])
        case "inverse":
            return _power(parts[0], Number(Fraction(-1)))
        case "root":
            return _root(parts[0], parts[1])
        case "^":
            return _power(parts[0], parts[1])
        case "degree":
            return parts[0]
        case "exp":
            return _power(Name("e"), parts[0])
        case "percent" if isinstance(parts[0], Name):
            return parts[0]
        case "cup" | "cap":
            flat = _flat(operator, parts)
            return Apply(operator, tuple(sorted(flat, key=lambda part: part.key)))
        case "gcd" | "lcm" | "min" | "max":
            return _known(operator, sorted(parts, key=lambda part: part.key))
        case _:
            return _known(operator, parts)


def _known(operator: str, parts: Sequence[Node]) -> Node:
    """A function of numbers is a number, where that is rational."""
    whole = Apply(operator, tuple(parts))
    if operator not in arithmetic.OPERATORS:
        return whole
    numbers = [part for part in parts if isinstance(part, Number)]
    if len(numbers) < len(parts):
        return parts[0] if operator in ("min", "max") and len(parts) == 1 else whole
    try:
        value = arithmetic.apply(operator, [number.value for number in numbers])
    except Irrational:
        return whole
    return Number(value, decimal=operator in ("percent", "abs") and numbers[0].decimal)


def _sum(parts: Sequence[Node]) -> Node:
    total, rest = _ZERO, list[Node]()
    for part in _flat("+", parts):
        if isinstance(part, Number):
            total = Number(arithmetic.apply("+", [total.value, part.value]), decimal=part.decimal and total.value == 0)
        else:
            rest.append(part)
    rest.sort(key=lambda part: part.key)
    if total.value != 0 or not rest:
        rest.insert(0, total)
    return rest[0] if len(rest) == 1 else Apply("+", tuple(rest))


def _product(parts: Sequence[Node]) -> Node:
    factor, rest = _ONE, list[Node]()
    for part in _flat("*", parts):
        if isinstance(part, Number):
            value, written = arithmetic.apply("*", [factor.value, part.value]), factor.decimal or part.decimal
            # A sign leaves a decimal what it is; what was calculated with one is no rounded number any more.
            factor = Number(value, decimal=written and 1 in (abs(factor.value), abs(part.value)))
        else:
            rest.append(part)
    if not rest:
        return factor
    if factor.value == 0 and not any(isinstance(n, Name) and n.name == "infty" for part in rest for n in walk(part)):
        return _ZERO
    rest.sort(key=lambda part: part.key)
    if factor.value != 1:
        rest.insert(0, factor)
    return rest[0] if len(rest) == 1 else Apply("*", tuple(rest))


def _power(base: Node, exponent: Node) -> Node:
    if isinstance(exponent, Number) and exponent.value == 1:
        return base
    if isinstance(base, Number) and isinstance(exponent, Number):
        return _known("^", [base, exponent])
    # (x^a)^n = x^(a n) for whole n
    if isinstance(base, Apply) and base.operator == "^" and isinstance(exponent, Number):
        inner = base.arguments[1]
        if exponent.value.denominator == 1 and isinstance(inner, Number):
            return _power(base.arguments[0], _product([inner, exponent]))
    return Apply("^", (base, exponent))


def _root(of: Node, index: Node) -> Node:
    odd = isinstance(index, Number) and index.value.denominator == 1 and index.value.numerator % 2 == 1
    if odd and isinstance(of, Number) and of.value < 0:  # the real one
        return _product([Number(Fraction(-1)), _root(Number(-of.value, decimal=of.decimal), index)])
    return _power(of, _power(index, Number(Fraction(-1))))


def _flat(operator: str, parts: Sequence[Node]) -> list[Node]:
    out: list[Node] = []
    for part in parts:
        out += part.arguments if isinstance(part, Apply) and part.operator == operator else (part,)
    return out


def _matrices(operator: str, parts: Sequence[Node]) -> Node:
    matrices = [part for part in parts if isinstance(part, Items) and part.kind == "matrix"]
    scalars = [part for part in parts if not (isinstance(part, Items) and part.kind == "matrix")]
    if any(isinstance(part, (Items, Relation, Verbatim)) for part in scalars):
        return Apply(operator, tuple(parts))
    if operator == "+":
        shapes = {tuple(len(children(row)) for row in matrix.items) for matrix in matrices}
        if scalars or len(shapes) > 1:
            return Apply(operator, tuple(parts))
        return _entrywise(matrices, _sum)
    if len(matrices) > 1:
        return Apply(operator, tuple(parts))
    factor = Number(Fraction(-1)) if operator == "neg" else _product(scalars)
    return _entrywise(matrices, lambda entries: _product([factor, *entries]))


def _entrywise(matrices: Sequence[Items], combine: Callable[[Sequence[Node]], Node]) -> Node:
    rows = [
        Items("row", tuple(combine(entries) for entries in zip(*map(children, same), strict=True)))
        for same in zip(*(matrix.items for matrix in matrices), strict=True)
    ]
    return Items("matrix", tuple(rows))


def _relation(signs: tuple[str, ...], sides: list[Node]) -> Node:
    """`3 > x` is `x < 3`: chains of `>` are turned round. Behind `\\approx` stands a rounded repetition."""
    if r"\approx" in signs:
        at = signs.index(r"\approx")
        signs, sides = signs[:at], sides[: at + 1]
    if not signs:
        return sides[0]
    if all(sign in _MIRRORED for sign in signs):
        return Relation(tuple(_MIRRORED[sign] for sign in reversed(signs)), tuple(reversed(sides)))
    return Relation(signs, tuple(sides))

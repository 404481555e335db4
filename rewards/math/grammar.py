r"""Formulas: from the tokens of an answer to a tree. Never `eval`, never a parser that runs what it reads.

Used by `rewards.math.equal` and `rewards.math.sympy_worker`. Recursive descent, one method per rule; terms are in
`rewards.math.terms`.

    answer    = group { ";" group }                 group = item { ("," | "and" | "or") item }
    item      = union { ("=" | "<" | \le | \in …) union }
    union     = sum { (\cup | \cap | \setminus) sum }
    sum       = product { ("+" | "-" | \pm) product }
    product   = factor { ["*"] factor | "/" factor | ":" factor | "mod" factor }       juxtaposition multiplies
    factor    = { "-" | "+" } term { "!" | "%" | "°" | "^" exponent }

What is no formula makes `Verbatim` leaves, part by part, where the answer is a list or in brackets. At most 50
levels; sums and products are flat, so that depth means nesting.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from rewards.math import normalize
from rewards.math.lexer import DEGREE, Unreadable, is_word
from rewards.math.terms import FUNCTIONS, Terms
from rewards.math.tree import Apply, Items, Name, Node, Number, Relation, Verbatim

MAX_ITEMS = 256
SIGNS = frozenset({"=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\approx", r"\subset", r"\subseteq", r"\equiv"})

_SETS = {r"\cup": "cup", r"\cap": "cap", r"\setminus": "setminus", r"\backslash": "setminus"}
_CLOSING = {"(": ")]", "[": ")]", "{": "}", r"\{": r"\}"}
_WORDS = frozenset({"and", "or"})
_SEPARATORS = frozenset({",", ";", "and", "or"})
_MOD = frozenset({"mod", r"\mod", r"\bmod"})


def parse(tokens: Sequence[str]) -> Node:
    """The tree of an answer of which the grammar knows everything.

    Args:
        tokens: `Answer.tokens`.

    Raises:
        Unreadable: `unparsed` when it is no formula of this grammar, `limit/depth`, `limit/nodes`, `limit/magnitude`.
    """
    return _Parser(tokens).whole()


def parse_parts(tokens: Sequence[str]) -> Node:
    """The tree of any answer; parts that the grammar does not know are `Verbatim`.

    Raises:
        Unreadable: `limit/…`.
    """
    return _parts(list(tokens), 0)


def split(tokens: Sequence[str], separators: frozenset[str] = _SEPARATORS) -> list[list[str]]:
    """Pieces between separators outside all brackets; one without tokens stands where something is missing."""
    pieces: list[list[str]] = [[]]
    for token, top in zip(tokens, normalize.top_level(tokens), strict=True):
        if not top or token not in separators:
            pieces[-1].append(token)
        elif pieces[-1] or token not in _WORDS:  # `1, 2, and 3`
            pieces.append([])
    return pieces


def _parts(tokens: list[str], depth: int) -> Node:
    if depth > 8:
        raise Unreadable("limit/depth")
    try:
        return parse(tokens)
    except Unreadable as error:
        if error.reason != "unparsed":
            raise
    for separators in (frozenset({";"}), _SEPARATORS - {";"}):
        pieces = split(tokens, separators)
        if len(pieces) > 1 and all(pieces):
            if len(pieces) > MAX_ITEMS:
                raise Unreadable("limit/nodes")
            return Items("list", tuple(_parts(piece, depth + 1) for piece in pieces))
    if len(tokens) > 2 and tokens[0] in _CLOSING and normalize.encloses(tokens):
        inner = _parts(tokens[1:-1], depth + 1)
        kind = "set" if tokens[0] in ("{", r"\{") else tokens[0] + tokens[-1]
        if isinstance(inner, Items) and inner.kind == "list":
            return Items(kind, inner.items)
    return Verbatim(normalize.join(tokens))


class _Parser(Terms):
    """The upper half: operators, brackets, lists."""

    def whole(self) -> Node:
        node = self._answer()
        if self.peek():
            raise Unreadable("unparsed")
        return node

    def _answer(self) -> Node:
        """`1, 2` is a list, `1, 2; 3, 4` a list of tuples."""
        groups = [self._group()]
        while self.peek() == ";":
            self.take()
            groups.append(self._group())
        if len(groups) == 1:
            items = groups[0]
            return items[0] if len(items) == 1 else Items("list", tuple(items))
        if all(len(items) == 1 for items in groups):
            return Items("list", tuple(items[0] for items in groups))
        return Items("list", tuple(items[0] if len(items) == 1 else Items("()", tuple(items)) for items in groups))

    def _group(self) -> list[Node]:
        items = [self._item()]
        while self.peek() == "," or self.peek() in _WORDS:
            self.take()
            while self.peek() in _WORDS:  # `1, 2, and 3`
                self.take()
            items.append(self._item())
            if len(items) > MAX_ITEMS:
                raise Unreadable("limit/nodes")
        return items

    def _item(self) -> Node:
        sides, signs = [self._union()], list[str]()
        while self.peek() in SIGNS:
            signs.append(self.take())
            sides.append(self._union())
        return sides[0] if not signs else Relation(tuple(signs), tuple(sides))

    def _union(self) -> Node:
        node = self.sum()
        while self.peek() in _SETS:
            operator = _SETS[self.take()]
            right = self.sum()
            same = isinstance(node, Apply) and node.operator == operator and operator != "setminus"
            node = Apply(operator, (*node.arguments, right) if same and isinstance(node, Apply) else (node, right))
        return node

    def sum(self) -> Node:
        terms: list[Node] = []
        if self.peek() in (r"\pm", r"\mp"):
            terms.append(self._plus_minus(Number(Fraction(0))))
        else:
            terms.append(self.product())
        while self.peek() in ("+", "-", r"\pm", r"\mp"):
            if self.peek() in (r"\pm", r"\mp"):
                terms = [self._plus_minus(terms[0] if len(terms) == 1 else Apply("+", tuple(terms)))]
                continue
            negative = self.take() == "-"
            term = self.product()
            terms.append(Apply("neg", (term,)) if negative else term)
        node = terms[0] if len(terms) == 1 else Apply("+", tuple(terms))
        if self.peek() == r"\choose":
            self.take()
            node = Apply("binom", (node, self.sum()))
        return node

    def _plus_minus(self, left: Node) -> Node:
        sign = self.take()
        right = self.product()
        return Apply("pm", (left, right if sign == r"\pm" else Apply("neg", (right,))))

    def product(self) -> Node:
        factors: list[Node] = [self.factor()]
        while True:
            token = self.peek()
            if token in ("*", "/"):
                self.take()
                factor = self.factor()
                factors.append(Apply("inverse", (factor,)) if token == "/" else factor)
            elif token == ":":
                return self._ratio(_flat("*", factors))
            elif token in _MOD:
                self.take()
                factors = [Apply("mod", (_flat("*", factors), self.factor()))]
            elif self.starts_term():
                factors.append(self.factor())
            else:
                return _flat("*", factors)

    def _ratio(self, first: Node) -> Node:
        parts = [first]
        while self.peek() == ":":
            self.take()
            parts.append(self.factor())
        return Items("ratio", tuple(parts))

    def factor(self) -> Node:
        negative = False
        # Signs in a row are counted here, so that many of them are no nesting.
        while self.peek() in ("-", "+"):
            negative ^= self.take() == "-"
        node = self._powers(self.term())
        return Apply("neg", (node,)) if negative else node

    def _powers(self, base: Node) -> Node:
        while self.peek() in ("!", "%", DEGREE, "^"):
            operator = self.take()
            if operator == "^":
                exponent = self.exponent()
                # `2^3^4` means `2^(3^4)`; a factorial binds closer than the power before it.
                if self.peek() in ("^", "!"):
                    self.enter()
                    exponent = self._powers(exponent)
                    self.leave()
                base = Apply("^", (self._with_index(base), exponent))
            else:
                base = Apply({"!": "!", "%": "percent"}.get(operator, "degree"), (base,))
        return base

    def _with_index(self, base: Node) -> Node:
        """`x^2_1` is `x_1^2`."""
        return self.indexed(base.name) if isinstance(base, Name) else base

    def bracketed(self) -> Node:
        opening = self.take()
        bars, self._bars = self._bars, int(opening == "|")
        if opening == "|":
            node: Node = Apply("abs", (self.sum(),))
            self.take("|")
        else:
            node = self._in_brackets(opening)
        self._bars = bars
        return node

    def _in_brackets(self, opening: str) -> Node:
        if self.peek() == r"\}":
            self.take()
            return Items("set", ())
        inner = self._answer()
        closing = self.take()
        if closing not in _CLOSING[opening]:
            raise Unreadable("unparsed")
        if opening == r"\{":
            return Items("set", inner.items if isinstance(inner, Items) and inner.kind == "list" else (inner,))
        if isinstance(inner, Items) and inner.kind == "list":
            return Items("set" if opening == "{" else opening + closing, inner.items)
        # Brackets around one thing only group; a single matrix loses its brackets too.
        if opening + closing in ("()", "{}", "[]"):
            return inner
        raise Unreadable("unparsed")


def _flat(operator: str, factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else Apply(operator, tuple(factors))


def is_function(word: str) -> bool:
    """Whether a word is the name of a function that the grammar knows."""
    return is_word(word) and word in FUNCTIONS

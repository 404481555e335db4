r"""The terms of the grammar: numbers, names, functions, fractions, roots, sums over a range, matrices.

Used by `rewards.math.grammar`, which has the operators between terms. Unknown macros and words of more than three
letters are refused, so that prose never reads as a product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

from rewards.math.lexer import Unreadable, is_number, is_word
from rewards.math.rational import decimal
from rewards.math.tree import Apply, Items, Name, Node, Number

_TRIG = ("sin", "cos", "tan", "cot", "sec", "csc")
_INVERSE = {name: f"arc{name}" for base in _TRIG for name in (base, f"{base}h")}
_SAME = {
    "lg": "log10", "ceiling": "ceil", "sgn": "sign", "arctg": "arctan", "tg": "tan", "ctg": "cot",
    **{f"a{name}": f"arc{name}" for name in _INVERSE}, **{f"ar{name}": f"arc{name}" for name in _INVERSE},
}  # fmt: skip
FUNCTIONS = frozenset({
    *_INVERSE, *_INVERSE.values(), *_SAME, "ln", "log", "exp", "abs", "floor", "ceil", "gcd", "lcm", "min", "max",
    "det", "sign", "Re", "Im", "arg",
})  # fmt: skip
_GREEK = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega", "pi", "infty", "ell", "emptyset", "hbar",
})  # fmt: skip
_CONSTANTS = {"exponentialE": "e", "imaginaryI": "i", "imaginaryJ": "i", "infinity": "infty", "inf": "infty"}
_DECORATIONS = {"overline": "bar", "bar": "bar", "hat": "hat", "widehat": "hat", "vec": "vec", "overrightarrow": "vec",
                "tilde": "tilde", "dot": "dot", "ddot": "ddot"}  # fmt: skip
_FENCES = {
    "lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil"), "llcorner": ("lrcorner", "floor"),
    "ulcorner": ("urcorner", "ceil"), "|": ("|", "norm"), "lVert": ("rVert", "norm"), "Vert": ("Vert", "norm"),
}  # fmt: skip
_LARGE = frozenset({"sum", "prod", "lim", "int", "iint", "oint"})
_KNOWN_MACROS = frozenset(
    {"frac", "binom", "sqrt", "begin", "{", "|", "overline", *_GREEK, *_CONSTANTS, *_DECORATIONS, *_FENCES, *_LARGE}
)
MAX_DEPTH = 50
_MAX_PRODUCT = 3
_NO_PRODUCTS = frozenset({"and", "if", "nan", "not", "or", "mod", "of", "is", "the", "to", "by", "in", "no", "all"})
_COLUMNS = frozenset("lcr|")


class Terms(ABC):
    """Recursive descent over tokens, the lower half."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._bars = 0
        self._depth = 0

    @abstractmethod
    def sum(self) -> Node:
        """A sum of products."""

    @abstractmethod
    def product(self) -> Node:
        """A product of factors."""

    @abstractmethod
    def factor(self) -> Node:
        """A signed term with its powers."""

    @abstractmethod
    def bracketed(self) -> Node:
        """What stands in the brackets that begin here."""

    def peek(self) -> str:
        """The token that comes next; empty at the end."""
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self, expected: str = "") -> str:
        """Go past the token that comes next."""
        token = self.peek()
        if not token or (expected and token != expected):
            raise Unreadable("unparsed")
        self._at += 1
        return token

    def starts_term(self) -> bool:
        """Whether what follows can be multiplied with what was just read."""
        token = self.peek()
        if token == "|":
            return self._bars == 0
        if token[:1] == "\\":
            return token[1:] in _KNOWN_MACROS or token[1:] in FUNCTIONS
        return bool(token) and (is_number(token) or (is_word(token) and not _is_operator(token)) or token in "([{")

    def enter(self) -> None:
        """Go one level deeper.

        Raises:
            Unreadable: `limit/depth`.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("limit/depth")

    def leave(self) -> None:
        """Come back."""
        self._depth -= 1

    def term(self) -> Node:
        """A number, name, function or anything in brackets. Every nesting comes through here."""
        self.enter()
        node = self._term()
        self.leave()
        return node

    def _term(self) -> Node:
        token = self.peek()
        if token in ("(", "[", "{", r"\{", "|"):
            return self.bracketed()
        self.take()
        if is_number(token):
            return self._number(token)
        name = token.removeprefix("\\")
        if name in ("sqrt", "root"):
            return self._root()
        if name in FUNCTIONS:
            return self._function(_SAME.get(name, name))
        if token[0] == "\\":
            return self._macro(name)
        return self._letters(token)

    def argument(self) -> Node:
        """What stands in braces, or a single term."""
        return self.bracketed() if self.peek() in ("{", "(") else self.term()

    def _number(self, token: str) -> Node:
        if self.peek() == "_":
            self.take()
            base = self.argument()
            if isinstance(base, Number) and token.isdigit():
                return Items("base", (Number(Fraction(int(token[:256]))), base))
            raise Unreadable("unparsed")
        number = Number(decimal(token), decimal=not token.isdigit())
        if token.isdigit() and (mixed := self._whole_fraction()) is not None:
            if not mixed:
                raise Unreadable(
                    "unparsed"
                )  # `2\\frac{3}{2}` is a product to some, a slip for a mixed number to others
            return Apply("+", (number, self.term()))
        if self.peek() and is_number(self.peek()):
            raise Unreadable("unparsed")  # two numbers side by side are a slip, not a product
        return number

    def _whole_fraction(self) -> bool | None:
        r"""Whether the fraction of whole numbers that follows is below 1, so that `\frac{1}{2}` makes a mixed number of
        the integer before it; None when none follows."""
        shape = self._tokens[self._at : self._at + 7]
        if len(shape) < 7 or shape[0] != r"\frac" or [shape[i] for i in (1, 3, 4, 6)] != ["{", "}", "{", "}"]:
            return None
        top, bottom = shape[2], shape[5]
        return 0 < decimal(top) < decimal(bottom) if top.isdigit() and bottom.isdigit() else None

    def _root(self) -> Node:
        index: Node = self.bracketed() if self.peek() == "[" else Number(Fraction(2))
        return Apply("root", (self.argument(), index))

    def _function(self, name: str) -> Node:
        base: Node | None = None
        exponent: Node | None = None
        while self.peek() in ("^", "_") and (exponent is None if self.peek() == "^" else base is None):
            if self.take() == "^":
                exponent = self.exponent()
            else:
                base = self.plain()
        if base is not None and name != "log":
            raise Unreadable("unparsed")
        if exponent == Apply("neg", (Number(Fraction(1)),)):
            if name not in _INVERSE:
                raise Unreadable("unparsed")
            name, exponent = _INVERSE[name], None
        arguments = self._arguments()
        node = Apply("log_" if base else name, (base, *arguments) if base else arguments)
        return node if exponent is None else Apply("^", (node, exponent))

    def _arguments(self) -> tuple[Node, ...]:
        r"""Of a function: in brackets, or, as in `\sin 2x`, the product up to the next function."""
        if self.peek() in ("(", "{", "["):
            inner = self.bracketed()
            return inner.items if isinstance(inner, Items) and inner.kind in ("()", "list", "set") else (inner,)
        factors = [self.factor()]
        while self.starts_term() and self.peek().removeprefix("\\") not in FUNCTIONS:
            factors.append(self.factor())
        return (factors[0] if len(factors) == 1 else Apply("*", tuple(factors)),)

    def exponent(self) -> Node:
        """In braces, or a single term without an index of its own; with a sign."""
        if self.peek() == "-":
            self.take()
            return Apply("neg", (self.plain(),))
        return self.plain()

    def plain(self) -> Node:
        """A number or letter that no index belongs to, or an argument."""
        token = self.peek()
        if token and is_number(token):
            return Number(decimal(self.take()), decimal=not token.isdigit())
        if len(token) == 1 and is_word(token):
            return Name(self.take())
        return self.argument()

    def _macro(self, name: str) -> Node:
        if name == "frac":
            return Apply("*", (self.argument(), Apply("inverse", (self.argument(),))))
        if name == "binom":
            return Apply("binom", (self.argument(), self.argument()))
        if name == "begin":
            return self._environment()
        if name in _FENCES:
            closing, operator = _FENCES[name]
            inner = self.sum()
            self.take("\\" + closing)
            return Apply(operator, (inner,))
        if name in _LARGE:
            return self._over_range(name)
        if name in _DECORATIONS:
            return self.indexed(f"{_DECORATIONS[name]}[{self.argument().key}]")
        if name in _GREEK or name in _CONSTANTS:
            return self.indexed(_CONSTANTS.get(name, name))
        raise Unreadable("unparsed")

    def _over_range(self, name: str) -> Node:
        r"""`\sum_{i=1}^n i^2` and the like: never calculated, equal when range and body are."""
        bounds: dict[str, Node] = {}
        while self.peek() in ("_", "^"):
            side = self.take()
            bounds[side] = self.bracketed() if self.peek() == "{" else self.plain()
        missing = Name("")
        limits = (bounds.get("_", missing), bounds.get("^", missing))
        if not name.endswith("int"):
            return Apply(name, (*limits, self.product()))
        body, variable = self._integrand()
        return Apply(name, (*limits, body, variable))

    def _integrand(self) -> tuple[Node, Node]:
        r"""Body and variable of an integral: `x + a dx`, `dx`, `\frac{dx}{x}`."""
        end, depth = self._at, 0
        while end < len(self._tokens):
            token = self._tokens[end]
            depth += (token in "([{") - (token in ")]}") if len(token) == 1 else 0
            if _differential(token) or (token == "d" and end + 1 < len(self._tokens)):
                break
            end += 1
        else:
            raise Unreadable("unparsed")
        spelled = self._tokens[end : end + 1] if self._tokens[end] != "d" else self._tokens[end : end + 2]
        variable = Name(spelled[-1].removeprefix("\\") if len(spelled) == 2 else spelled[0][1:])
        if depth == 0:
            inner = type(self)(self._tokens[self._at : end])
            inner._depth = self._depth
            body = inner.sum() if end > self._at else Number(Fraction(1))
            if inner.peek():
                raise Unreadable("unparsed")
            self._at = end + len(spelled)
            return body, variable
        whole = self.sum()
        return Apply("*", (whole, Apply("inverse", (Name("d"),)), Apply("inverse", (variable,)))), variable

    def _environment(self) -> Node:
        self.take("{")
        kind = self.take()
        self.take("}")
        if not kind.endswith("matrix") and kind != "array":
            raise Unreadable("unparsed")
        if kind == "array":
            while self.peek() == "{" or set(self.peek()) <= _COLUMNS:
                self.take()
                if self.peek() == "}":
                    self.take()
                    break
        rows: list[list[Node]] = [[]]
        while self.peek() != r"\end":
            rows[-1].append(self.sum())
            if self.peek() == "&":
                self.take()
            elif self.peek() == "\\\\":
                self.take()
                rows.append([])
        for token in (r"\end", "{", kind, "}"):
            self.take(token)
        if not rows[-1]:
            rows.pop()
        matrix = Items("matrix", tuple(Items("row", tuple(row)) for row in rows))
        return Apply("det", (matrix,)) if kind == "vmatrix" else matrix

    def _letters(self, word: str) -> Node:
        """`xy` is a product of two variables; a word of the language of formulas is not."""
        if word in _CONSTANTS or word == "pi" or (len(word) == 1 and is_word(word)):
            return self.indexed(_CONSTANTS.get(word, word))
        if not word.isalpha() or not word.isascii() or len(word) > _MAX_PRODUCT or word in _NO_PRODUCTS:
            raise Unreadable("unparsed")
        last = self.indexed(word[-1])
        if self.peek() == "^":
            self.take()
            last = Apply("^", (last, self.exponent()))
        return Apply("*", (*map(Name, word[:-1]), last))

    def indexed(self, name: str) -> Node:
        """A name with the index that may follow."""
        if self.peek() != "_":
            return Name(name)
        self.take()
        index = self.take()
        if index == "{":
            parts: list[str] = []
            while (part := self.take()) != "}":
                parts.append(part)
            index = "".join(parts)
        return Name(f"{name}_{index}")


def _is_operator(word: str) -> bool:
    return word in ("and", "or", "mod")


def _differential(token: str) -> bool:
    return len(token) == 2 and token[0] == "d" and token.isalpha()

"""A machine that calculates digit by digit and writes down every value that it makes.

Operations work on decimal digits as one does on paper: `add` and `sub` with carry and borrow, `mul` by rows, `div` and
`mod` by long division, where a digit of the quotient is found by adding the divisor until it is too much, `gcd` by
Euclid with that `mod`, `sort` by selection, `median` by sorting and, for an even number, the mean rounded down.

What is written is a list of steps, each of some assignments. What an operation that is called by another writes depends
on its visibility: `lines` (all of it), `call` (one line that it was called) or `hidden` (nothing); its result is
assigned by the caller in any case.

Noise acts while the machine runs, so that later values, and the result, follow from what went wrong:

    dynamic      each digit of each value behind its leading zeros is replaced, with that probability, by any digit
    systematic   a rule is broken, with that probability: a carry or borrow is forgotten, a comparison comes out wrong

Source: the traced integers of Havrilla and Iyer 2024 (arXiv 2402.04004) and their code, Dahoas/transformer_arithmetic.
Deviations: the steps say less (a sum of digits is assigned once, with its carry; values that are only moved are not
noised), a noisy digit is 0 to 9 (theirs 0 to 8) and inputs stay clean; `systematic` is ours.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

LINES, CALL, HIDDEN = "lines", "call", "hidden"
VISIBILITIES = (LINES, CALL, HIDDEN)
OPERATIONS = ("add", "sub", "mul", "div", "mod", "gcd", "sort", "median")

Value: TypeAlias = "int | str | list[int]"
Step: TypeAlias = "list[tuple[str, str]]"


class TooLong(Exception):
    """More steps than are allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slips:
    """What goes wrong while the machine runs."""

    rng: random.Random
    dynamic: float = 0.0
    systematic: float = 0.0


class Machine:
    """Runs one operation.

    Args:
        visibility: of operations that others call; `call` for those that are not named.
        limit: steps at most, hidden ones included.
        slips: what goes wrong; None for nothing.
    """

    def __init__(self, visibility: Mapping[str, str], *, limit: int, slips: Slips | None = None) -> None:
        self.steps: list[Step] = []
        self._visibility, self._slips, self._left = visibility, slips, limit
        self._shown = True

    def run(self, operation: str, arguments: Sequence[int]) -> int | list[int]:
        """The result of an operation on numbers that are not negative; `steps` are then those of this run.

        Raises:
            TooLong: the limit is reached.
        """
        self.steps, self._shown = [], self._visibility.get(operation, LINES) == LINES
        return self._operate(operation, list(arguments))

    def _operate(self, operation: str, arguments: list[int]) -> int | list[int]:
        if operation == "sort":
            return self._sort(arguments)
        if operation == "median":
            return self._median(arguments)
        x, y = arguments
        functions: dict[str, Callable[[int, int], int]] = {
            "add": self._add,
            "sub": self._sub,
            "mul": self._mul,
            "div": lambda x, y: self._divide(x, y)[0],
            "mod": lambda x, y: self._divide(x, y)[1],
            "gcd": self._gcd,
        }
        return functions[operation](x, y)

    def _call(self, operation: str, arguments: Sequence[int]) -> int:
        """An operation inside another one."""
        found = self._inside(operation, list(arguments))
        assert isinstance(found, int)
        return found

    def _inside(self, operation: str, arguments: list[int]) -> int | list[int]:
        visibility, outer = self._visibility.get(operation, CALL), self._shown
        if outer and visibility != HIDDEN:
            text = ",".join(map(str, arguments))
            self.steps.append([("call", f"{operation}({text})")])
        self._shown = outer and visibility == LINES
        found = self._operate(operation, arguments)
        self._shown = outer
        return found

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooLong
        if self._shown:
            self.steps.append([])

    def _let(self, name: str, value: int) -> int:
        """Assign a number, and return what was written."""
        if self._slips is not None and self._slips.dynamic:
            value = int(_noised(str(value), self._slips))
        self._write(name, value)
        return value

    def _digits(self, name: str, value: str) -> str:
        """Assign digits, of which leading zeros count."""
        if self._slips is not None and self._slips.dynamic:
            value = _noised(value, self._slips)
        self._write(name, value)
        return value

    def _write(self, name: str, value: Value) -> None:
        if self._shown:
            text = "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else str(value)
            self.steps[-1].append((name, text))

    def _kept(self, carry: int) -> int:
        """A carry or borrow, unless it is forgotten."""
        return 0 if carry and self._broken() else carry

    def _less(self, x: int, y: int) -> bool:
        return (x < y) is not self._broken()

    def _broken(self) -> bool:
        slips = self._slips
        return slips is not None and slips.systematic > 0 and slips.rng.random() < slips.systematic

    def _add(self, x: int, y: int) -> int:
        result, carry = "", 0
        while x or y:
            self._step()
            a, b = self._let("a", x % 10), self._let("b", y % 10)
            x, y = self._let("x", x // 10), self._let("y", y // 10)
            total = self._let("sum", a + b + carry)
            result = self._digits("res", str(total % 10) + result)
            carry = self._let("carry", self._kept(int(total > 9)))
        if carry:
            self._step()
            result = self._digits("res", str(carry) + result)
        return int(result or 0)

    def _sub(self, x: int, y: int) -> int:
        result, borrow = "", 0
        while y:
            self._step()
            a, b = self._let("a", x % 10), self._let("b", y % 10)
            x, y = self._let("x", x // 10), self._let("y", y // 10)
            short = a - b - borrow
            result = self._digits("res", str(self._let("dif", short % 10)) + result)
            borrow = self._let("borrow", self._kept(int(short < 0)))
        rest = abs(x - borrow)
        if rest:
            self._step()
            result = self._digits("res", str(rest) + result)
        return int(result or 0)

    def _mul(self, x: int, y: int) -> int:
        if x < y:
            x, y = y, x
        total, shift = 0, ""
        while y:
            factor, rest, row, carry = y % 10, x, "", 0
            y //= 10
            while rest:
                self._step()
                f, t = self._let("f", factor), self._let("t", rest % 10)
                rest //= 10
                product = self._let("mul", f * t + carry)
                row = self._digits("row", str(product % 10) + row)
                carry = self._let("carry", self._kept(product // 10))
            self._step()
            row = self._digits("row", (str(carry) if carry else "") + (row or "0") + shift)
            shift += "0"
            added = self._call("add", (total, int(row)))
            self._step()
            total = self._let("tot", added)
        return total

    def _divide(self, x: int, y: int) -> tuple[int, int]:
        """Quotient and remainder."""
        quotient = 0
        while x >= y:
            size = len(str(x)) - len(str(y))
            size -= y * 10**size > x
            part, digit, total = x // 10**size, 1, y
            self._step()
            part = self._let("part", part)
            while (following := total + y) <= part:
                self._step()
                digit, total = self._let("dig", digit + 1), self._let("sum", following)
            taken = int(f"{total}{'0' * size}")
            added = self._call("add", (quotient, int(f"{digit}{'0' * size}")))
            left = self._call("sub", (max(x, taken), min(x, taken)))
            self._step()
            quotient, x = self._let("quo", added), self._let("rem", left)
        return quotient, x

    def _gcd(self, x: int, y: int) -> int:
        while y:
            remainder = self._call("mod", (x, y))
            self._step()
            x, y = self._let("x", y), self._let("y", remainder)
        return x

    def _sort(self, numbers: list[int]) -> list[int]:
        rest, done = list(numbers), list[int]()
        while rest:
            place = 0
            self._step()
            least = self._let("min", rest[0])
            for n in range(1, len(rest)):
                self._step()
                candidate = self._let("cand", rest[n])
                if self._less(candidate, least):
                    place, least = n, candidate
                    self._write("min", least)
            del rest[place]
            self._step()
            done.append(least)
            self._write("done", done)
            self._write("rest", rest)
        return done

    def _median(self, numbers: list[int]) -> int:
        ordered = self._inside("sort", numbers)
        assert isinstance(ordered, list)
        middle = len(ordered) // 2
        self._step()
        if len(ordered) % 2:
            return self._let("mid", ordered[middle])
        low, high = self._let("low", ordered[middle - 1]), self._let("high", ordered[middle])
        total = self._call("add", (low, high))
        self._step()
        return self._let("mid", self._call("div", (self._let("sum", total), 2)))


def _noised(digits: str, slips: Slips) -> str:
    """Digits of which some are replaced, but for leading zeros."""
    begin = len(digits) - len(digits.lstrip("0"))
    return digits[:begin] + "".join(
        slips.rng.choice("0123456789") if slips.rng.random() < slips.dynamic else digit for digit in digits[begin:]
    )

"""What the code reward reads and compares, without running anything: blocks, records, outputs, values, settings."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from rewards.code import Config, cases, compare, inside
from rewards.code.cases import Asserted, Printed, Returned
from rewards.code.extract import extract
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Message, Prompt


def prompt(**columns: Any) -> Prompt:
    return Prompt(id="p-1", messages=(Message(role="user", content="?"),), gold="-", task="code", columns=columns)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na\n```", "a\n"),
        ("first\n```python\na\n```\nthen\n```python\nb\n```\nend", "b\n"),
        ("```python\na\n```\n```\nb\n```", "a\n"),  # a tag that names the language goes before
        ("```\na\n```\n```text\nb\n```", "a\n"),
        ("```py\na\n```", "a\n"),
        ("```Python3 title=x\na\n```", "a\n"),
        ("```{.python}\na\n```", "a\n"),
        ("~~~python\na\n~~~", "a\n"),
        ("````python\n```\na\n```\n````", "```\na\n```\n"),
        ("```python\na\n````", "a\n"),
        ("   ```python\n  a\n   ```", "  a\n"),
        ("```python\r\na\r\n```\r\n", "a\n"),
        ("```python\nx = 1\n</think>\n```python\nb\n```", "b\n"),
        ("```python\ns = '''\n```js\n'''\n```", "s = '''\n```js\n'''\n"),
        ("``` `x` ```\n```python\na\n```", "a\n"),
    ],
)
def test_the_last_block_of_the_language_is_the_program(text: str, program: str) -> None:
    assert extract(text, language="python", bare=False).program == program


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("print(1)", "no_block"),
        ("", "no_block"),
        ("```js\na\n```", "no_block"),
        ("```python\na", "open_block"),
        ("```python\na\n```\n```python\nb", "open_block"),
        ("```python\na\n``", "open_block"),
        ("```python\n\n```", "empty_block"),
        ("    ```python\na\n```", "open_block"),
        ("```python\na\n```\n</think>\nno", "no_block"),
    ],
)
def test_an_answer_without_a_closed_block_has_no_program(text: str, reason: str) -> None:
    found = extract(text, language="python", bare=False)
    assert (found.program, found.reason) == (None, reason)


def test_a_bare_answer_counts_only_where_it_is_let_and_has_no_block() -> None:
    assert extract("print(1)", language="python", bare=True).program == "print(1)"
    assert extract("a\n```js\nb\n```", language="python", bare=True).program is None
    assert extract("```bash\nls\n```", language="bash", bare=False).program == "ls\n"
    assert extract("```rust\nls\n```", language="rust", bare=False).program == "ls\n"


def test_extraction_is_linear() -> None:
    assert extract("```python\na\n```\n" * 50_000, language="python", bare=False).program == "a\n"
    assert extract("`" * 500_000, language="python", bare=False).program is None


@pytest.mark.parametrize(
    ("given", "expected", "lines", "words"),
    [
        ("3\n", "3", True, True),
        ("3  \n\n\n", "3\n", True, True),
        ("1 2\r\n3", "1 2\n3", True, True),
        ("1  2", "1 2", False, True),
        (" 1", "1", False, True),
        ("1\n2", "1 2", False, True),
        ("1\n\n2", "1\n2", False, True),
        ("YES", "Yes", False, False),
        ("1 2 3", "1 2", False, False),
        ("", "", True, True),
        ("", "0", False, False),
        ("0.3333333", "0.333333333", True, True),
        ("0.3334", "0.3333", False, False),
        ("1000000.5", "1000000.6", True, True),
        ("3", "3.0", True, True),
        ("3.0", "3", False, False),
        ("1e3", "1000.0", True, True),
        ("nan", "1.5", False, False),
        ("inf", "1e999", False, False),
        ("1_0.0", "10.0", False, False),
        ("x 0.10000001", "x 0.1", True, True),
        ("x  0.10000001", "x 0.1", False, True),
        ("y 0.1", "x 0.1", False, False),
        ("٣.0", "3.0", False, False),
    ],
)
def test_outputs_are_compared_by_lines_or_by_words(given: str, expected: str, lines: bool, words: bool) -> None:
    assert compare.same_output(given, expected, spaces="lines", tolerance=1e-6) is lines
    assert compare.same_output(given, expected, spaces="words", tolerance=1e-6) is words


def test_without_tolerance_a_decimal_is_a_number_all_the_same() -> None:
    assert compare.same_output("0.50", "0.5", spaces="lines", tolerance=0)
    assert not compare.same_output("0.5000001", "0.5", spaces="lines", tolerance=0)


@pytest.mark.parametrize(
    ("given", "expected", "same"),
    [
        (3, 3, True),
        (3, [3], True),
        ([3], 3, False),
        ([1, 2], [[1, 2]], True),
        ((1, 2), [1, 2], True),
        ([1, 2], [1], False),
        ([1, None], [1], False),
        (True, 1, True),
        (1, True, True),
        (0, False, True),
        ("3", 3, False),
        (3.0, 3, True),
        (0.1 + 0.2, 0.3, True),
        (0.3001, 0.3, False),
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (math.inf, 1e308, False),
        (10**400, 1.5, False),
        ("a", 1.0, False),
        ({1: "a"}, {"1": "a"}, True),
        ({1: "a", "1": "a"}, {"1": "a"}, False),
        ({"a": [0.1]}, {"a": [0.1 + 1e-9]}, True),
        ({"a": 1}, {"b": 1}, False),
        ({1, 2}, [1, 2], False),
        (None, None, True),
        (None, 0, False),
        ("", [], False),
        (object(), [object()], False),
    ],
)
def test_values_are_compared_as_data(given: object, expected: object, same: bool) -> None:
    assert compare.same_value(given, expected, tolerance=1e-6) is same


def test_an_object_of_our_own_that_claims_to_be_equal_is_not() -> None:
    class Sly:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    assert not compare.same_value(Sly(), 3, tolerance=1e-6)
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert not compare.same_value(deep, deep, tolerance=1e-6)


VALUES: list[Any] = [
    None,
    True,
    -5,
    10**5000,
    -(10**5000),
    0.1,
    math.inf,
    "ä\ud800\n",
    b"\x00\xff",
    3j,
    [1, [2, (3, "x")]],
    (),
    {1, 2},
    frozenset({"a"}),
    {1: {"a": (2,)}, (1, 2): None},
    range(1, 9, 2),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_plain_data_arrives_as_what_it_was(value: Any) -> None:
    data = json.loads(json.dumps(inside.encode(value, other=lambda _: 1 / 0)))
    back = inside.decode(data, remote=lambda _: 1 / 0)
    assert back == value and type(back) is type(value)


def test_what_is_no_plain_data_is_left_to_others_and_subclasses_count_as_their_base() -> None:
    from collections import Counter, OrderedDict, namedtuple
    from enum import IntEnum

    kept: list[Any] = []

    def keep(value: Any) -> Any:
        kept.append(value)
        return {"remote": len(kept) - 1}

    data = inside.encode(
        [Counter("aa"), OrderedDict(b=1), namedtuple("P", "x")(1), IntEnum("E", "A")(1), keep], other=keep
    )
    assert inside.decode(data, remote=kept.__getitem__) == [{"a": 2}, {"b": 1}, (1,), 1, keep]


@pytest.mark.parametrize("data", [{}, {"a": 1, "b": 2}, {"set": [[1]]}, {"int": "zz"}, {"dict": [1]}, {"other": 1}])
def test_what_no_encoder_writes_is_refused(data: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        inside.decode(data, remote=lambda _: None)


INPUTS = {"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", ["7", ""]]}
CALLS = {"fn_name": "add", "inputs": [[1, 2], [{"1": 2}, {"a": 1}]], "outputs": [[3], 7]}
CONTEST = {"input": ["1"], "output": ["2"]}


@pytest.mark.parametrize(
    ("columns", "tests"),
    [
        ({"input_output": INPUTS}, Printed((("1 2\n", "3\n"), ("3\n4", "7\n")))),
        ({"input_output": json.dumps(INPUTS)}, Printed((("1 2\n", "3\n"), ("3\n4", "7\n")))),
        ({"input_output": json.dumps(CALLS)}, Returned("add", (([1, 2], [3]), ([{1: 2}, {"a": 1}], 7)))),
        ({"public_tests": CONTEST, "private_tests": {"input": [], "output": []}}, Printed((("1", "2"),))),
        ({"generated_tests": CONTEST, "public_tests": CONTEST}, Printed((("1", "2"), ("1", "2")))),
        ({"test_list": ["assert f(1)"], "test_setup_code": "x = 1"}, Asserted("x = 1", ("assert f(1)",))),
        ({"test_list": ["a", "b"], "test_imports": ["import math"]}, Asserted("import math", ("a", "b"))),
        ({"test": "def check(f): pass", "entry_point": "g"}, Asserted("def check(f): pass", ("check(g)",))),
        ({"test": "assert f(1)"}, Asserted("", ("assert f(1)",))),
        ({"test": ["assert f(1)"]}, Asserted("", ("assert f(1)",))),
        ({"test_list": ["a"], "test": "b"}, Asserted("", ("a",))),
    ],
)
def test_records_of_the_usual_datasets_are_read(columns: dict[str, Any], tests: cases.Tests) -> None:
    assert cases.read(prompt(**columns)) == tests


def test_columns_can_be_named_and_cases_limited() -> None:
    row = prompt(test_list=["a", "b"], checks=["c", "d"])
    assert cases.read(row, columns=["checks"]) == Asserted("", ("c", "d"))
    assert cases.read(row, most=1) == Asserted("", ("a",))
    assert cases.read(prompt(input_output=CALLS), most=1) == Returned("add", (([1, 2], [3]),))
    assert cases.read(prompt(input_output=INPUTS), most=1) == Printed((("1 2\n", "3\n"),))


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({}, "no tests among its columns"),
        ({"test_list": []}, "no tests among its columns"),
        ({"input_output": '{"inputs": ["1"], "outputs": []}'}, "holds no tests: ValueError"),
        ({"input_output": "{"}, "holds no test"),
        ({"input_output": {"inputs": [], "outputs": []}}, "holds no test"),
        ({"input_output": {"inputs": [3], "outputs": [4]}}, "neither text nor lines"),
        ({"public_tests": {"input": ["1"]}}, "KeyError"),
    ],
)
def test_a_row_without_usable_tests_is_an_error_of_the_data(columns: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        cases.read(prompt(**columns))
    assert "p-1" in caught.value.where


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"spaces": "loose"}, "spaces"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": math.nan}, "timeout_s"),
        ({"tolerance": -1}, "tolerance"),
        ({"concurrency": -1}, "concurrency"),
        ({"language": "javascript"}, "command"),
        ({"command": ["node", "{}"]}, "command"),
        ({"command": ["/usr/bin/node"]}, "command"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**settings)
    assert caught.value.where == where


def test_it_is_not_tried_on_every_gold() -> None:
    assert Config().costly

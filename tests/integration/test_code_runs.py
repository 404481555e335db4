"""The code reward runs programs against tests of every format, and says of each what became of it."""

from __future__ import annotations

import shutil
import time
from typing import Any

import pytest
from programs import NoTools, graded, group, reason

from rewards.code import Config, score
from rewards.sandbox import SandboxConfig
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Verdict

SUMS = {"input_output": {"inputs": ["1 2\n", "3 4\n", "5 6\n"], "outputs": ["3\n", "7\n", "11\n"]}}
ADD = {"input_output": '{"fn_name": "add", "inputs": [[1, 2], [3, 4], [5, 6]], "outputs": [[3], [7], 11]}'}
MBPP = {
    "test_list": ["assert add(1, 2) == 3", "assert add(3, 4) == 7", "assert add(5, 6) == 11"],
    "test_setup_code": "",
}
HUMANEVAL = {
    "prompt": "from typing import List\n\ndef double(items: List[int]) -> List[int]:\n    '''Twice each.'''\n",
    "test": """
def check(candidate):
    assert candidate([1, 2]) == [2, 4]
    assert abs(candidate([1])[0] - 2) < 1
""",
    "entry_point": "double",
}
QUICK = Config(timeout_s=1.0, sandbox=SandboxConfig(memory_mb=256, output_kb=64))
READS = "a, b = map(int, input().split())\n"


@pytest.mark.parametrize(
    ("program", "why", "passed"),
    [
        (READS + "print(a + b)", "tests/passed", 1),
        ("if __name__ == '__main__':\n    print(sum(map(int, input().split())))", "tests/passed", 1),
        ("import numpy as np\nprint(np.array(input().split(), int).sum())", "tests/passed", 1),
        (READS + "print(a + b if a < 5 else 0)", "wrong_answer/case 3", 2 / 3),
        ("print(3)", "wrong_answer/case 2", 1 / 3),
        ("import sys; sys.exit(0)", "wrong_answer/case 1", 0),
        ("import sys; sys.exit(4)", "runtime_error/exit code 4", 0),
        ("1 / 0", "runtime_error/ZeroDivisionError", 0),
        ("import json; json.loads('')", "runtime_error/other", 0),
        ("def", "runtime_error/SyntaxError", 0),
        ("import ctypes; ctypes.string_at(0)", "runtime_error/SIGSEGV", 0),
        (READS + "while a > 3: pass\nprint(a + b)", "timeout/case 3", 2 / 3),
        ("x = [0] * 10**10", "memory/case 1", 0),
        ("while True: print('3')", "output/case 1", 0),
    ],
)
def test_what_a_program_prints_is_compared(program: str, why: str, passed: float) -> None:
    [out] = graded(SUMS, program, cfg=QUICK)
    assert (out.value, out.reason) == (float(passed == 1), why)
    assert out.verdict is (Verdict.CORRECT if passed == 1 else Verdict.WRONG)
    assert out.breakdown == {"passed": pytest.approx(passed)} and out.extracted == program + "\n"


@pytest.mark.parametrize(
    ("program", "why", "passed"),
    [
        ("def add(a, b): return a + b", "tests/passed", 1),
        ("class Solution:\n    def add(self, a, b): return (a + b)", "tests/passed", 1),
        ("print('noise')\ndef add(a, b):\n    print('noise')\n    return a + b", "tests/passed", 1),
        ("import numpy as np\ndef add(a, b): return np.int64(a) + b", "tests/passed", 1),
        ("def add(a, b): return 3", "wrong_answer/case 2", 1 / 3),
        ("def add(a, b): return object()", "wrong_answer/case 1", 0),
        ("def add(a, b): return a + b if a < 5 else 1 / 0", "runtime_error/ZeroDivisionError", 2 / 3),
        ("def sub(a, b): return a - b", "runtime_error/NameError", 0),
        ("def add(a): return a", "runtime_error/TypeError", 0),
        ("def add(a, b) return", "runtime_error/SyntaxError", 0),
        ("def add(a, b):\n    while a == 3: pass\n    return a + b", "timeout/case 2", 1 / 3),
        ("def add(a, b): return [0] * 10**10", "memory/case 1", 0),
        ("def add(a, b):\n    while True: print('x' * 1000)", "output/case 1", 0),
        ("def add(a, b): return add(a, b)", "runtime_error/RecursionError", 0),
    ],
)
def test_what_a_function_returns_is_compared(program: str, why: str, passed: float) -> None:
    [out] = graded(ADD, program, cfg=QUICK)
    assert (out.value, out.reason, out.breakdown["passed"]) == (float(passed == 1), why, pytest.approx(passed))


@pytest.mark.parametrize(
    ("program", "why", "passed"),
    [
        ("def add(a, b): return a + b", "tests/passed", 1),
        ("print('noise')\ndef add(a, b):\n    print(a)\n    return a + b", "tests/passed", 1),
        ("def add(a, b): return 3", "wrong_answer/case 2", 1 / 3),
        ("def add(a, b): return a + b if a < 5 else 1 / 0", "runtime_error/ZeroDivisionError", 2 / 3),
        ("def sub(a, b): return a - b", "runtime_error/NameError", 0),
        ("def add(a, b) return", "runtime_error/SyntaxError", 0),
        ("def add(a, b):\n    while a == 3: pass\n    return a + b", "timeout/case 2", 1 / 3),
        ("def add(a, b): return [0] * 10**10", "memory/case 1", 0),
    ],
)
def test_asserts_decide(program: str, why: str, passed: float) -> None:
    [out] = graded(MBPP, program, cfg=QUICK)
    assert (out.value, out.reason, out.breakdown["passed"]) == (float(passed == 1), why, pytest.approx(passed))


def test_a_check_function_gets_the_entry_point_and_the_prompt_s_imports() -> None:
    cfg = Config(prefix_column="prompt")
    right = "def double(items: List[int]) -> List[int]:\n    return [2 * item for item in items]"
    assert reason(HUMANEVAL, right, cfg) == "tests/passed"
    assert reason(HUMANEVAL, right) == "runtime_error/NameError"
    assert reason(HUMANEVAL, "def other(): pass", cfg) == "wrong_answer/case 1"


STACK = """
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
"""
RAISES = "def f(x):\n    if x < 0: raise ValueError('bad')"
CATCHES = "try:\n    f(-1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'bad'"
BESIDE = [
    ("x = [3, 1]\nsort(x)\nassert x == [1, 3]", "def sort(x): x.sort()"),
    ("d = {}\nput(d, 'k')\nassert d == {'k': 1}", "def put(d, k): d[k] = 1"),
    (CATCHES, RAISES),
    ("s = Stack()\ns.push(4)\ns.push(5)\nassert s.pop() == 5 and len(s) == 1 and s.items == [4]", STACK),
    ("assert list(up(3)) == [0, 1, 2]", "def up(n):\n    yield from range(n)"),
    ("assert str(show()) == 'S'", "class S:\n    def __str__(self): return 'S'\ndef show(): return S()"),
    ("assert adder(2)(3) == 5", "def adder(n): return lambda x: x + n"),
    ("assert solve(encode('ab')) == 'ab'", "def encode(s): return s[::-1]\ndef solve(s): return s[::-1]"),
    ("assert f((1, 2)) == {(1, 2)} and f(x=[1]) is None", "def f(x): return {x} if isinstance(x, tuple) else None"),
    ("assert math.isclose(third(), 1 / 3)", "import math\ndef third(): return 1 / 3"),
    ("assert LIMIT == 10", "LIMIT = 10"),
]


@pytest.mark.parametrize(("test", "program"), BESIDE)
def test_tests_work_as_if_the_program_were_beside_them(test: str, program: str) -> None:
    assert reason({"test_list": [test]}, program) == "tests/passed"
    emptied = program.replace("x.sort()", "pass").replace("d[k] = 1", "pass").replace("'bad'", "'worse'")
    changed = (
        emptied.replace("append(x)", "append(0)").replace("range(n)", "range(1)").replace("return 'S'", "return ''")
    )
    changed = changed.replace("x + n", "x").replace("s[::-1]\ndef", "s\ndef").replace("{x} if", "x if")
    changed = changed.replace("1 / 3", "1 / 4").replace("= 10", "= 9")
    assert changed != program and reason({"test_list": [test]}, changed).startswith("wrong_answer")


@pytest.mark.parametrize(
    "tests",
    [["assert f(1 == 1"], ["import no_such_module"], ["assert f(lambda: 1) == 1"], ["assert f(object()) is None"]],
)
def test_a_test_that_cannot_be_run_costs_no_answer(tests: list[str]) -> None:
    [out] = graded({"test_list": tests}, "def f(x): return 1")
    assert (out.value, out.verdict, out.reason) == (None, Verdict.CRASH, "crash/test")
    [out] = graded({"test_list": ["assert f(1)"], "test_setup_code": "import no_such_module"}, "def f(x): return 1")
    assert out.reason == "crash/test"


def test_an_import_that_the_program_lacks_is_its_own_fault() -> None:
    assert (
        reason({"test_list": ["assert f(1)"]}, "def f(x):\n    import no_such") == "runtime_error/ModuleNotFoundError"
    )


def test_the_share_of_passed_cases_can_be_the_value() -> None:
    cfg = Config(partial=True, timeout_s=1.0)
    program = READS + "while a == 3: pass\nprint(a + b)"
    [out] = graded(SUMS, program, cfg=cfg)
    assert (out.value, out.verdict, out.reason) == (pytest.approx(2 / 3), Verdict.WRONG, "timeout/case 2")
    for row in (ADD, MBPP):
        [out] = graded(row, "def add(a, b): return a + b if a != 3 else 0", cfg=cfg)
        assert (out.value, out.reason) == (pytest.approx(2 / 3), "wrong_answer/case 2")


def test_answers_without_a_program_are_no_answers() -> None:
    outs = score(
        group(SUMS, ["I cannot.", "```python\nprint(3)", "```python\n\n```", "x" * 200_000]), Config(), NoTools()
    )
    assert [(out.value, out.verdict, out.reason) for out in outs] == [
        (0.0, Verdict.NO_ANSWER, "no_block"),
        (0.0, Verdict.NO_ANSWER, "open_block"),
        (0.0, Verdict.NO_ANSWER, "empty_block"),
        (0.0, Verdict.UNPARSABLE, "limit/chars"),
    ]
    [out] = score(group(SUMS, [READS + "print(a + b)"]), Config(bare=True), NoTools())
    assert out.reason == "tests/passed"


def test_other_languages_run_by_their_command() -> None:
    cfg = Config(language="bash", command=["/bin/sh", "{}"])
    texts = ["```sh\nread a b; echo $((a + b))\n```", "```sh\necho 3\n```"]
    outs = score(group(SUMS, texts), cfg, NoTools())
    assert [out.reason for out in outs] == ["tests/passed", "wrong_answer/case 2"]
    with pytest.raises(ConfigError, match="only works for Python"):
        score(group(ADD, texts), cfg, NoTools())


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_a_virtual_machine_gets_its_address_space() -> None:
    node = shutil.which("node") or ""
    sandbox = SandboxConfig(memory_mb=65_536, processes=64, readable=[node])
    cfg = Config(language="javascript", command=[node, "{}"], sandbox=sandbox)
    program = "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number); console.log(a + b)"
    [out] = score(group(SUMS, [f"```js\n{program}\n```"]), cfg, NoTools())
    assert out.reason == "tests/passed"


def test_programs_run_side_by_side_up_to_the_limit() -> None:
    sleeps = "import time; time.sleep(0.5)\n" + READS + "print(a + b)"
    row: dict[str, Any] = {"input_output": {"inputs": ["1 2\n"], "outputs": ["3\n"]}}
    spent: dict[int, float] = {}
    for places in (1, 4):
        begun = time.monotonic()
        assert [out.value for out in graded(row, *[sleeps] * 4, cfg=Config(concurrency=places))] == [1.0] * 4
        spent[places] = time.monotonic() - begun
    assert spent[1] > 2.0 and spent[4] < 1.5


def test_a_failing_sandbox_grades_nothing() -> None:
    cfg = Config(command=["/no/such/interpreter", "{}"])
    [out] = graded(SUMS, "print(3)", cfg=cfg)
    assert (out.value, out.verdict, out.reason) == (None, Verdict.CRASH, "crash/sandbox")


def test_missing_protections_and_missing_tests_name_what_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"namespaces": "no", "seccomp": "no", "landlock": "no", "landlock_signals": "no"}
    with pytest.raises(DataError, match="no tests among its columns"):
        graded({}, "print(3)")
    monkeypatch.setattr("rewards.sandbox.running.probe", lambda: layers)
    with pytest.raises(ConfigError) as caught:
        graded(SUMS, "print(3)")
    assert caught.value.where == "sandbox.require"

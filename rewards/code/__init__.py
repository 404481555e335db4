r"""Whether the program in an answer does what its tests ask for: it is run, in a sandbox, and what it does is compared.

    rewards:
      code: {timeout_s: 5}

The unit-test reward of CodeRL (Le et al. 2022, arXiv 2207.01780) in its binary form; `partial` is the share of cases
passed that APPS averages (Hendrycks et al. 2021, arXiv 2105.09938). CodeRL has values of its own for programs that do
not compile or do not run; here they are as wrong as any other, and the reason tells them apart.

    value = 1 if all cases pass, else 0;        with `partial`, cases passed / cases

The program is the last fenced block of the language (`rewards.code.extract`). Tests come from the row's columns, in the
formats of the usual datasets (`rewards.code.cases`), and are of three kinds:

    tests       the program                                                 compared here, or where it cannot look
    printed     runs once per case, with the case's input                   its output (`rewards.code.compare`)
    returned    is loaded once; each case's arguments are sent to it        the values that come back
    asserted    is loaded once; tests run in a second sandbox, where        by the tests' own asserts
                its functions are stand-ins that send arguments over

In all three the program sees inputs and nothing else: no expected output and no assert. Leaving early (`sys.exit(0)`,
`os._exit`), patching `assert` or `__eq__`, looking at frames, reading files or forging what is sent home gives it
nothing, because a pass is never reported from where it runs. Objects of its own making are equal to nothing in a test;
data that it returns is plain data.

    what happened                                    value    verdict      reason
    every case passed                                1.0      correct      tests/passed
    an output or value is another one                0.0      wrong        wrong_answer/case 3
    it raised, exited or was killed                  0.0      wrong        runtime_error/ZeroDivisionError, …/SIGSEGV, …
    a clock ran out (wall or CPU)                    0.0      wrong        timeout/case 3
    it used more memory than it may                  0.0      wrong        memory/case 3
    it printed more than it may                      0.0      wrong        output/case 3
    no block, or one that was never closed           0.0      no_answer    no_block, open_block, empty_block
    the answer is longer than `max_chars`            0.0      unparsable   limit/chars
    the sandbox failed, or a test is broken          None     crash        crash/sandbox, crash/test

Case numbers start at 1. The first failure gives the reason; without `partial` it is also the last case that is run.

How it can be hacked. By tests: what they do not check is not asked for. Few cases, or cases with few possible outputs,
reward a program that prints a constant or lists the inputs that it saw in the prompt; hide most cases from the prompt.
What a test calls without defining it is the program's. State is kept between the calls of one program. What the sandbox
leaves open, `rewards.sandbox` lists.
"""

from __future__ import annotations

import builtins
import json
import logging
import os
import re
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rewards import base
from rewards.code import cases, compare, inside
from rewards.code.cases import Asserted, Printed, Returned, Tests
from rewards.code.extract import extract
from rewards.sandbox import Ending, Program, Result, Sandbox, SandboxConfig, SandboxError
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut, Verdict

PYTHON = "python"
_LOG = logging.getLogger(__name__)
_RAISED = re.compile(r"^(?:\w+\.)*(\w+)(?::.*)?$")


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """Which program, which tests, and what it may use."""

    tests: list[str] = field(default_factory=list[str])
    """Columns that hold the tests, in one of the known formats; empty finds them by name."""
    max_cases: int = 0
    """Cases to run, from the front; 0 for all."""
    language: str = PYTHON
    """Tag of the block to take."""
    command: list[str] = field(default_factory=list[str])
    """How a program of another language is run, the program being `{}`: [/usr/bin/node, '{}']. Printed tests only."""
    prefix_column: str = ""
    """Column whose text is put before the program: HumanEval's `prompt`, with its imports. Empty for none."""
    bare: bool = False
    """An answer without any block is a program itself."""
    partial: bool = False
    """The value is the share of cases that pass."""
    spaces: str = "lines"
    """How outputs are compared: lines, or words for their sequence of words alone."""
    tolerance: float = 1e-6
    """How far a decimal may be off, relative above 1; 0 for not at all."""
    timeout_s: float = 5.0
    """Wall clock of a case that prints; of all calls or asserts together."""
    max_chars: int = 100_000
    """Longest answer that is looked at."""
    concurrency: int = 0
    """Programs at the same time in this process; 0 for one per processor. More than that makes clocks run out."""
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    """What a program may use, and what must be protected."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spaces not in compare.SPACES:
            fix = did_you_mean(self.spaces, compare.SPACES)
            raise ConfigError("spaces", f"'{self.spaces}' is not one of the choices", fix=fix)
        for name, least in (("max_cases", 0), ("concurrency", 0), ("max_chars", 1), ("tolerance", 0)):
            if not (value := vars(self)[name]) >= least:
                raise ConfigError(name, f"{value} is too little", fix=f"use {least} or more")
        if not self.timeout_s > 0:
            raise ConfigError("timeout_s", f"{self.timeout_s} leaves no time", fix="use a positive number of seconds")
        if self.language != PYTHON and not self.command:
            problem = f"programs in '{self.language}' need to be told how to run"
            raise ConfigError("command", problem, fix="name the interpreter, for example [/usr/bin/node, '{}']")
        if self.command and (not os.path.isabs(self.command[0]) or "{}" not in self.command):
            problem = f"{self.command} names no interpreter by its full path, or no place for the program"
            raise ConfigError("command", problem, fix="write [/usr/bin/node, '{}']")

    @property
    def costly(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _Case:
    """What came of one case: passed, or why not; `ours` where that is no fault of the program."""

    reason: str = ""
    ours: bool = False


_PASSED = _Case()


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Run the program of every answer of a group.

    Raises:
        ConfigError: what must be protected is not, or the tests do not fit the language. `DataError`: no tests.
    """
    tests = cases.read(group.prompt, columns=cfg.tests, most=cfg.max_cases)
    if cfg.command and not isinstance(tests, Printed):
        problem = "the tests of this row call functions, which only works for Python"
        raise ConfigError("command", problem, fix="use rows whose tests give input and output, or language: python")
    try:
        box = Sandbox(cfg.sandbox)
    except ConfigError as error:
        raise ConfigError(f"sandbox.{error.where}", error.problem, fix=error.fix) from error
    prefix = str(group.prompt.columns.get(cfg.prefix_column) or "") if cfg.prefix_column else ""
    texts = [trajectory.text for trajectory in group.trajectories]
    places = _places(cfg.concurrency or len(os.sched_getaffinity(0)))

    def graded(text: str) -> RewardOut:
        with places.free:
            return _graded(text, prefix, tests, cfg, box)

    if len(texts) == 1 or places.number == 1:
        return [graded(text) for text in texts]
    with ThreadPoolExecutor(min(len(texts), places.number), thread_name_prefix="programs") as threads:
        return list(threads.map(graded, texts))


@dataclass(frozen=True, slots=True)
class _Places:
    """How many programs may run at the same time, over all groups that are graded."""

    number: int
    free: threading.BoundedSemaphore


@cache
def _places(number: int) -> _Places:
    return _Places(number, threading.BoundedSemaphore(number))


def _graded(text: str, prefix: str, tests: Tests, cfg: Config, box: Sandbox) -> RewardOut:
    if len(text) > cfg.max_chars:
        return RewardOut(value=0.0, verdict=Verdict.UNPARSABLE, reason="limit/chars")
    found = extract(text, language=cfg.language, bare=cfg.bare)
    if found.program is None:
        return RewardOut(value=0.0, verdict=Verdict.NO_ANSWER, reason=found.reason)
    source = f"{prefix}\n{found.program}" if prefix else found.program
    try:
        if isinstance(tests, Printed):
            total, outcomes = len(tests.cases), _printed(source, tests, cfg, box)
        elif isinstance(tests, Returned):
            total, outcomes = len(tests.cases), _returned(source, tests, cfg, box)
        else:
            total, outcomes = len(tests.tests), _asserted(source, tests, cfg, box)
    except SandboxError as error:
        _warn_once(f"a program could not be run: {error}")
        return base.crash("sandbox")
    return _verdict(outcomes, total, cfg, found.program)


def _verdict(outcomes: Sequence[_Case], total: int, cfg: Config, program: str) -> RewardOut:
    failed = [n for n, outcome in enumerate(outcomes) if outcome is not _PASSED]
    if any(outcomes[n].ours for n in failed):
        return base.crash("test")
    passed = (len(outcomes) - len(failed)) / total
    if not failed and len(outcomes) == total:
        measured = {"passed": 1.0}
        return RewardOut(
            value=1.0, verdict=Verdict.CORRECT, reason="tests/passed", extracted=program, breakdown=measured
        )
    value = passed if cfg.partial else 0.0
    reason = outcomes[failed[0]].reason
    return RewardOut(value=value, verdict=Verdict.WRONG, reason=reason, extracted=program, breakdown={"passed": passed})


def _printed(source: str, tests: Printed, cfg: Config, box: Sandbox) -> list[_Case]:
    if cfg.command:
        program = Program(argv=[word.replace("{}", "program") for word in cfg.command], files={"program": source})
    else:
        program = box.python(source)
    outcomes: list[_Case] = []
    for number, (given, expected) in enumerate(tests.cases, start=1):
        stdin = given.encode(errors="surrogatepass")
        result = box.run(program, stdin=stdin, seconds=cfg.timeout_s)
        outcome = _ended(result, number)
        if outcome is _PASSED:
            output = result.stdout.decode(errors="replace")
            same = compare.same_output(output, expected, spaces=cfg.spaces, tolerance=cfg.tolerance)
            outcome = _PASSED if same else _Case(f"wrong_answer/case {number}")
        outcomes.append(outcome)
        if outcome is not _PASSED and not cfg.partial:
            break
    return outcomes


def _returned(source: str, tests: Returned, cfg: Config, box: Sandbox) -> list[_Case]:
    calls = [
        {"do": "call", "name": tests.function, "arguments": [inside.encode(item, other=_no_data) for item in given]}
        for given, _ in tests.cases
    ]
    stdin = "".join(json.dumps({**call, "named": {}}) + "\n" for call in calls)
    result = box.run(_harness(box, "serve", {"main.py": source}), stdin=stdin.encode(), seconds=cfg.timeout_s)
    replies = result.stdout.split(b"\n")[:-1]
    outcomes: list[_Case] = []
    for number, (_, expected) in enumerate(tests.cases, start=1):
        if number > len(replies):
            outcome = _ended(result, number)
            outcome = _Case("runtime_error/exit") if outcome is _PASSED else outcome
        else:
            outcome = _returned_one(replies[number - 1], expected, number, cfg.tolerance)
        outcomes.append(outcome)
    return outcomes


def _returned_one(line: bytes, expected: object, number: int, tolerance: float) -> _Case:
    """What one reply says; it may say anything, the program could have written it."""
    wrong = _Case(f"wrong_answer/case {number}")
    try:
        reply = json.loads(line)
        raised = reply.get("raised") or reply.get("failed")
        if raised:
            return _raised(str(raised), number)
        value = inside.decode(reply["value"], remote=lambda _: _UNKNOWN)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return wrong
    return _PASSED if compare.same_value(value, expected, tolerance=tolerance) else wrong


def _asserted(source: str, tests: Asserted, cfg: Config, box: Sandbox) -> list[_Case]:
    plan = json.dumps({"setup": tests.setup, "tests": tests.tests})
    examiner = _harness(box, "examine", {"tests.json": plan})
    program = _harness(box, "serve", {"main.py": source})
    examined, ran = box.run_connected([examiner, program], seconds=cfg.timeout_s)
    if examined.ending is Ending.EXIT and examined.code > 0:
        raise SandboxError(f"the tests' process ended with exit code {examined.code}")
    said = [json.loads(line) for line in examined.stderr.splitlines()]
    outcomes: list[_Case] = []
    for number, verdict in enumerate(said, start=1):
        if verdict.get("passed"):
            outcomes.append(_PASSED)
        elif "broken" in verdict:
            _warn_once(f"a test cannot be run: {verdict['broken']}")
            outcomes.append(_Case("test", ours=True))
        elif "raised" in verdict:
            outcomes.append(_raised(str(verdict["raised"]), number))
        elif "lost" in verdict:
            ended = _ended(ran, number)
            outcomes.append(_Case("runtime_error/exit") if ended is _PASSED else ended)
        else:
            outcomes.append(_Case(f"wrong_answer/case {number}"))
    number = len(outcomes) + 1
    if number <= len(tests.tests) and all(outcome is _PASSED for outcome in outcomes):
        # Tests ran into a limit, which what the program sent, or withheld, brought them to.
        ended = _ended(examined, number)
        outcomes.append(_Case("runtime_error/exit") if ended is _PASSED else ended)
    return outcomes


def _harness(box: Sandbox, part: str, files: dict[str, str]) -> Program:
    program = box.python("", files={"inside.py": _inside(), **files})
    kept = {name: text for name, text in program.files.items() if name != "main.py"} | files
    return Program(argv=[*program.argv[:-1], "inside.py", part], files=kept)


@cache
def _inside() -> str:
    return Path(inside.__file__).read_text(encoding="utf-8")


def _ended(result: Result, number: int) -> _Case:
    """What the end of a run means; an output is only looked at when it ended well."""
    where = f"case {number}"
    if result.ending in (Ending.TIMEOUT, Ending.CPU):
        return _Case(f"timeout/{where}")
    if result.ending in (Ending.MEMORY, Ending.OUTPUT):
        return _Case(f"{result.ending}/{where}")
    if result.code == 0 or result.ending is Ending.STOPPED:
        return _PASSED
    if result.code < 0:
        return _Case(f"runtime_error/{signal.Signals(-result.code).name}")
    last = result.stderr.decode(errors="replace").rstrip().rpartition("\n")[2][:300]
    named = _RAISED.match(last)
    return _raised(named[1], number) if named else _Case(f"runtime_error/exit code {result.code}")


def _raised(name: str, number: int) -> _Case:
    """For an exception by name; programs may invent as many names as they like, which are not repeated."""
    if name == "MemoryError":
        return _Case(f"memory/case {number}")
    kind = vars(builtins).get(name)
    known = isinstance(kind, type) and issubclass(kind, BaseException)
    return _Case(f"runtime_error/{name if known else 'other'}")


@cache
def _warn_once(problem: str) -> None:
    _LOG.warning("%s", problem)


def _no_data(value: object) -> object:
    raise TypeError(f"an argument is a {type(value).__name__}")


_UNKNOWN = object()
"""Stands for a value that is no plain data, and equals nothing."""

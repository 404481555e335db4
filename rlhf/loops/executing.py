"""Runs programs in answers and writes down what each line did: for a builder that makes explanations of programs.

The program is the last block of Python in an answer (`rewards.code.extract`). It runs in a sandbox (`rewards.sandbox`,
with all its layers required), on the machine of the process that drives the run, under a tracer that looks at its
variables whenever a line of its own has run. What a program reports of itself is the model's word, like any answer:
whether it is right is for a verifier to say.
"""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import Sequence

from rewards.code.extract import extract
from rewards.sandbox import Ending, Sandbox, SandboxConfig
from rlhf.core.modules import Execution

MAX_STEPS = 64
"""Steps that are written down; a program that takes more ran, but its trace is cut."""
MAX_VALUE = 80
"""Characters of a value."""

_TRACER = (
    textwrap.dedent("""
    import io, json, sys
    with open("program.py", encoding="utf-8") as file:
        source = file.read()
    lines, steps, pending, before = source.splitlines(), [], {}, {}
    plain = (int, float, str, bool, list, tuple, dict, set)

    def seen(frame):
        return {k: repr(v) for k, v in frame.f_locals.items() if not k.startswith("_") and isinstance(v, plain)}

    def note(frame):
        number = pending.pop(id(frame), None)
        now, then = seen(frame), before.get(id(frame), {})
        new = [f"{k} = {v[:MAX_VALUE]}" for k, v in now.items() if then.get(k) != v]
        before[id(frame)] = now
        if number is not None and new and len(steps) < MAX_STEPS:
            steps.append([lines[number - 1].strip(), ", ".join(new)])

    def trace(frame, event, argument):
        if frame.f_code.co_filename != "program.py":
            return None
        if event == "call":
            before[id(frame)] = seen(frame)
        elif event in ("line", "return"):
            note(frame)
        if event == "line":
            pending[id(frame)] = frame.f_lineno
        return trace

    out, sys.stdout = sys.stdout, io.StringIO()
    failure = ""
    try:
        code = compile(source, "program.py", "exec")
        sys.settrace(trace)
        exec(code, {"__name__": "__main__"})
    except BaseException as error:
        failure = type(error).__name__
    finally:
        sys.settrace(None)
    printed, sys.stdout = sys.stdout.getvalue(), out
    print(json.dumps({"steps": steps, "printed": printed, "failure": failure}))
""")
    .replace("MAX_VALUE", str(MAX_VALUE))
    .replace("MAX_STEPS", str(MAX_STEPS))
)


async def execute(answers: Sequence[str], *, seconds: float) -> list[Execution]:
    """Run the program in each answer.

    Args:
        seconds: wall clock of each.

    Raises:
        ConfigError: this machine cannot keep programs apart from what they must not touch.
    """
    if not answers:
        return []
    box = Sandbox(SandboxConfig(cpu_s=max(1, round(seconds)), processes=1))
    return list(await asyncio.gather(*(asyncio.to_thread(_run, box, answer, seconds) for answer in answers)))


def _run(box: Sandbox, answer: str, seconds: float) -> Execution:
    found = extract(answer, language="python", bare=False)
    if found.program is None:
        return _failed(found.reason)
    result = box.run(box.python(_TRACER, files={"program.py": found.program}), seconds=seconds)
    if result.ending is not Ending.EXIT:
        return _failed(result.ending.value)
    try:
        told = json.loads(result.stdout)
        steps = tuple((str(line), str(values)) for line, values in told["steps"])
        return Execution(steps=steps, printed=str(told["printed"]), failure=str(told["failure"]))
    except (ValueError, KeyError, TypeError):
        return _failed("unreadable")


def _failed(why: str) -> Execution:
    return Execution(steps=(), printed="", failure=why)

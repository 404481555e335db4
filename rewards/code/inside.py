"""What runs in a sandbox beside a program under test. One file without imports of ours, put there as `inside.py`.

    python -I inside.py serve      has loaded `main.py`, the program, and answers requests to call what it defines
    python -I inside.py examine    has the tests, and asks the other one; only plain data comes from there

Requests and replies are JSON, one per line, on the standard streams that these two were born with; what programs and
tests print goes elsewhere. A value that is no plain data stays where it is and is known by a number (`Remote`). So the
program never sees a test, and whatever it sends, be it forged, is a value that is compared on the other side. A
`Remote` is equal to nothing but itself and has no order: an object of the program's making cannot declare itself right.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, cast

MAX_ITEMS = 1_000_000
"""Elements that are taken of what can be iterated over."""
_LONGEST = 2**26
"""Characters of a reply."""
_MARK = "from_program"
_DIGITS = 4000
"""Whole numbers that are longer are sent in hexadecimal."""


class NotPlainError(BaseException):
    """A value that cannot be sent. Like the next one no `Exception`, so that no test takes it for one it expected."""


class LostError(BaseException):
    """The program is gone, or talks nonsense."""


def encode(value: Any, *, other: Callable[[Any], Any]) -> Any:
    """A value as JSON can hold it; what is no plain data is left to `other`. Subclasses count as what they derive from.

    Raises:
        RecursionError: it is nested too deep.
    """
    if value is None or isinstance(value, bool | str):
        return value if type(value) in (bool, str, type(None)) else str(value)
    if isinstance(value, int):
        return int(value) if -(10**_DIGITS) < value < 10**_DIGITS else {"int": hex(value)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    for kind, name in ((list, "list"), (tuple, "tuple"), (set, "set"), (frozenset, "frozenset")):
        if isinstance(value, kind):
            items = [encode(item, other=other) for item in cast(Any, value)]
            return items if name == "list" else {name: items}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, dict):
        return {
            "dict": [[encode(key, other=other), encode(item, other=other)] for key, item in cast(Any, value).items()]
        }
    if type(value).__module__ == "numpy" and callable(tolist := getattr(value, "tolist", None)):
        return encode(tolist(), other=other)
    return other(value)


def decode(data: Any, *, remote: Callable[[int], Any]) -> Any:
    """The value that `encode` wrote, with `remote` for what stayed where it was.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: it is nothing that `encode` writes.
    """
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return [decode(item, remote=remote) for item in cast(Any, data)]
    [(name, content)] = data.items()
    if name == "dict":
        return {decode(key, remote=remote): decode(item, remote=remote) for key, item in content}
    if name in ("tuple", "set", "frozenset"):
        kind: Callable[[Any], Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}[name]
        return kind([decode(item, remote=remote) for item in content])
    if name == "int":
        return int(content, 16)
    if name == "complex":
        return complex(float(content[0]), float(content[1]))
    if name == "bytes":
        return bytes.fromhex(content)
    if name == "range":
        return range(*(int(number) for number in content))
    return remote(int(data["remote"]))


class Server:
    """The program's side.

    Args:
        module: what the program defined.
    """

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module
        self._kept: list[Any] = []

    def names(self) -> dict[str, Any]:
        """What it defines, as values; what it imported, by module and name."""
        out: dict[str, Any] = {}
        for name, value in [*vars(self._module).items()]:
            if isinstance(value, types.ModuleType):
                out[name] = {"from": [value.__name__, ""]}
            elif not name.startswith("__"):
                home, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
                imported = callable(value) and isinstance(home, str) and isinstance(own, str) and home != "program"
                out[name] = {"from": [home, own]} if imported else {"value": self._encode(value)}
        return out

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        if request["do"] == "names":
            return {"names": self.names()}
        target = self._named(request["name"]) if "name" in request else self._kept[request["remote"]]
        if request["do"] == "call":
            arguments = [decode(item, remote=self._kept.__getitem__) for item in request["arguments"]]
            named = {key: decode(item, remote=self._kept.__getitem__) for key, item in request["named"].items()}
            value = target(*arguments, **named)
            return {"value": self._encode(value), "arguments": [self._encode(item) for item in arguments]}
        if request["do"] == "get":
            return {"value": self._encode(getattr(target, request["attribute"]))}
        if request["do"] == "text":
            return {"value": str(target) if request["attribute"] == "str" else repr(target)}
        items: list[Any] = []
        for item in target:
            if len(items) == MAX_ITEMS:
                raise ValueError(f"more than {MAX_ITEMS} elements")
            items.append(item)
        return {"value": self._encode(items)}

    def _named(self, name: str) -> Any:
        """A function by name, or the method of the class `Solution`."""
        found = vars(self._module)
        if name in found:
            return found[name]
        if "Solution" in found:
            return getattr(found["Solution"](), name)
        raise NameError(f"name '{name}' is not defined")

    def _encode(self, value: Any) -> Any:
        return encode(value, other=self._keep)

    def _keep(self, value: Any) -> dict[str, int]:
        self._kept.append(value)
        return {"remote": len(self._kept) - 1}


def serve() -> None:
    """Load the program and answer until nobody asks."""
    requests, replies = _private_streams()
    module = types.ModuleType("program")
    sys.modules["program"] = module
    with open("main.py", encoding="utf-8", errors="surrogatepass") as file:
        source = file.read()
    server = Server(module)
    failed = ""
    try:
        exec(_compiled(source, "main.py"), vars(module))
    except BaseException as error:
        failed = type(error).__name__
    for line in requests:
        try:
            reply = {"failed": failed} if failed else server.answer(json.loads(line))
            text = json.dumps(reply)
        except BaseException as error:
            text = json.dumps({"raised": type(error).__name__, "message": str(error)[:1000]})
        replies.write(text + "\n")
        replies.flush()
    os._exit(0)


class Remote:
    """Something of the program's that is no plain data."""

    def __init__(self, asker: Asker, number: int) -> None:
        self.__dict__.update(_asker=asker, _number=number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._asker.call({"remote": self._number}, arguments, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._asker.ask({"do": "get", "remote": self._number, "attribute": name})

    def __iter__(self) -> Iterator[Any]:
        return iter(self._asker.ask({"do": "items", "remote": self._number}))

    def __getitem__(self, key: Any) -> Any:
        return self._special("__getitem__")(key)

    def __len__(self) -> int:
        return int(self._special("__len__")())

    def _special(self, name: str) -> Any:
        try:
            return self._asker.ask({"do": "get", "remote": self._number, "attribute": name})
        except AttributeError as error:  # what the language says of objects without it
            raise TypeError(str(error)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise NotPlainError("an attribute of a program's object is set")

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return str(self._asker.ask({"do": "text", "remote": self._number, "attribute": "str"}))

    def __repr__(self) -> str:
        return str(self._asker.ask({"do": "text", "remote": self._number, "attribute": "repr"}))


class Asker:
    """The tests' side of the talk with a program."""

    def __init__(self, replies: Any, requests: Any) -> None:
        self._replies, self._requests = replies, requests
        self.problem: BaseException | None = None
        """Why what tests find out from now on is worth nothing, even where one of them caught it."""

    def names(self) -> dict[str, Any]:
        """What tests may find in the program: its own definitions, and of what it imported the standard library's.

        The latter are imported here: a test that leans on the program's `import math` must not get the program's idea
        of it. For the same reason names of Python's own stay what they are.
        """
        out: dict[str, Any] = {}
        for name, content in self._talk({"do": "names"})["names"].items():
            if "from" not in content:
                out[name] = self._decode(content["value"])
                continue
            module, own = content["from"]
            if module.partition(".")[0] in sys.stdlib_module_names:
                with contextlib.suppress(ImportError, AttributeError):
                    imported = importlib.import_module(module)
                    out[name] = getattr(imported, own) if own else imported
        return {name: value for name, value in out.items() if name not in vars(builtins)}

    def call(self, target: dict[str, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call something of the program's; what it changes in lists, dictionaries and sets is changed here, too."""
        request = {
            "do": "call",
            **target,
            "arguments": [encode(item, other=self._refer) for item in arguments],
            "named": {key: encode(item, other=self._refer) for key, item in named.items()},
        }
        reply = self._talk(request)
        for mine, before, after in zip(arguments, request["arguments"], reply["arguments"], strict=False):
            if before != after:
                _become(mine, self._decode(after))
        return self._decode(reply["value"])

    def ask(self, request: dict[str, Any]) -> Any:
        """A value of the program's."""
        return self._decode(self._talk(request)["value"])

    def _talk(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
            found = json.loads(self._replies.readline(_LONGEST))
            if not isinstance(found, dict):
                raise ValueError("no reply")
            reply = cast("dict[str, Any]", found)
        except (OSError, ValueError, RecursionError) as error:
            raise self._noted(LostError(str(error))) from None
        if "failed" in reply:
            raise _again(str(reply["failed"]), "while it was loaded")
        if "raised" in reply:
            raise _again(str(reply["raised"]), str(reply.get("message")))
        return reply

    def _decode(self, data: Any) -> Any:
        try:
            return decode(data, remote=lambda number: Remote(self, number))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise self._noted(LostError(f"no value: {error}")) from None

    def _refer(self, value: Any) -> dict[str, int]:
        if isinstance(value, Remote):
            return {"remote": value.__dict__["_number"]}
        raise self._noted(NotPlainError(f"a test gives the program a {type(value).__name__}"))

    def _noted(self, problem: BaseException) -> BaseException:
        self.problem = problem
        return problem


def examine() -> None:
    """Run the tests, and say of each on standard error what came of it; the first that is lost is the last."""
    replies, requests = _private_streams()
    verdicts = os.fdopen(os.dup(2), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    with open("tests.json", encoding="utf-8") as file:
        plan = json.load(file)
    asker = Asker(replies, requests)
    names: dict[str, Any] = {"__name__": "tests"}

    def prepare() -> None:
        names.update(asker.names())
        exec(_compiled(plan["setup"], "setup.py"), names)

    said = _outcome(prepare, asker)
    going = said == {"passed": True}
    tests: list[str] = plan["tests"] if going else [""]
    for test in tests:
        if going:
            said = _outcome(lambda test=test: exec(_compiled(test, "test.py"), names), asker)
        verdicts.write(json.dumps(said) + "\n")
        verdicts.flush()
        if asker.problem:
            break
    os._exit(0)


def _outcome(action: Callable[[], Any], asker: Asker) -> dict[str, Any]:
    """What came of a test: it passed or not, raised something, or is broken itself."""
    try:
        action()
        said: dict[str, Any] = {"passed": True}
    except AssertionError:
        said = {"passed": False}
    except BaseException as error:
        ours = isinstance(error, SyntaxError | ImportError) and _MARK not in vars(error)
        said = {"broken" if ours else "raised": type(error).__name__}
    if asker.problem is not None:
        said = {"lost" if isinstance(asker.problem, LostError) else "broken": str(asker.problem)}
    return said


def _private_streams() -> tuple[Any, Any]:
    """The streams for talking, out of the way of `input` and `print`."""
    read, write = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2 if sys.argv[1] == "serve" else nothing, 1)
    return read, write


def _compiled(source: str, name: str) -> types.CodeType:
    """Without what this file asks of the compiler for itself."""
    return compile(source, name, "exec", dont_inherit=True)


def _become(mine: Any, changed: Any) -> None:
    """Give a container the content that it was given elsewhere."""
    if type(mine) is not type(changed):
        return
    if isinstance(mine, list):
        mine[:] = changed
    elif isinstance(mine, dict | set):
        with contextlib.suppress(TypeError):
            mine.clear()
            cast(Any, mine).update(changed)


def _again(name: str, message: str) -> Exception:
    """The exception that the program raised, if it is an ordinary one of Python's; tests may expect it."""
    kind = vars(builtins).get(name)
    error: Exception = type(name, (Exception,), {})(message)
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(TypeError):
            error = kind(message)
    vars(error)[_MARK] = True
    return error


def main() -> NoReturn:
    """Take the part that the command names."""
    sys.setrecursionlimit(5000)
    {"serve": serve, "examine": examine}[sys.argv[1]]()
    raise SystemExit


if __name__ == "__main__":
    main()

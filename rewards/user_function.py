"""A reward that is the user's own function, named by its dotted path.

    rewards:
      accuracy: {name: user_function, path: mylab.rewards.accuracy}

A function is known by its parameter names, and may be of either kind in common use (https://huggingface.co/docs/trl,
"Using a custom reward function"; https://verl.readthedocs.io, "Implement Reward Function for Dataset"):

    TRL     f(completions, **columns) -> list[float | None]        one call per group; `prompts` is given when asked for
    verl    f(data_source, solution_str, ground_truth, extra_info) -> float | dict           one call per completion

TRL (`GRPOTrainer`, `reward_funcs`): prompts and completions are strings, the prompt being the last message of the user;
every column is a list that repeats its value for each completion. The columns are those of the dataset row, and `gold`;
also `answer` (the gold) and `solution` (the worked solution, else the gold) unless the row has columns of that name.
None as an element means that the function does not judge this completion: verdict `skipped`.
verl (`custom_reward_function`): `data_source` is the row's column of that name, else the task's; `ground_truth` is the
gold; `extra_info` holds the columns. Of a returned dict, `score` is the value, its other numbers go to the breakdown.

A value above 0 counts as correct, any other as wrong; the breakdown of the rubric keeps the number. Nothing that goes
wrong becomes a number: an exception, nan or a list of the wrong length is a crash, a missed deadline a timeout, and
their values are None. With `isolate` the function runs in a worker of the pool, which has no network where the kernel
permits and only few environment variables. A function that asks a server needs `network: true`, and gets a worker of
another pool, alike but for that; what it needs from the environment `pass_env` names.
"""

from __future__ import annotations

import inspect
import logging
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, SupportsFloat, cast

from rewards import base, worker
from rewards.pool import PoolConfig, WorkerPool
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, Json, Prompt, RewardOut, Verdict

_LOG = logging.getLogger(__name__)
_CONNECTED = 8
_FIX = (
    "write f(prompts, completions, **columns) -> list of floats (TRL), "
    "or compute_score(data_source, solution_str, ground_truth, extra_info) -> float or dict (verl)"
)


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """Which function to call, and how far to trust it."""

    path: str = ""
    """Dotted path of the function, `mylab.rewards.accuracy`. Required."""
    timeout_s: float = 10.0
    """Wall-clock deadline of one call; the import of the function's module is not counted."""
    isolate: bool = True
    """Run it in a killable worker. False calls it in this process, without a deadline."""
    network: bool = False
    """Leave its worker on the network. All other limits and the deadline stay."""
    pass_env: list[str] = field(default_factory=list[str])
    """With `network`: environment variables that it sees besides PATH, HOME, locale, TMPDIR and LD_LIBRARY_PATH."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("path", "is required", fix="name your function, for example path: mylab.rewards.accuracy")
        if "." not in self.path.strip("."):
            raise ConfigError("path", f"'{self.path}' names no module", fix="write module.function")
        if self.pass_env and not self.network:
            problem = "is for functions that ask a server"
            raise ConfigError("pass_env", problem, fix="set network: true, or leave it out")
        if self.timeout_s <= 0:
            raise ConfigError("timeout_s", f"{self.timeout_s} leaves no time", fix="use a positive number of seconds")


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Grade one group with the user's function.

    Raises:
        ConfigError: the function cannot be imported, or its parameters fit neither kind.
    """
    texts = [trajectory.text for trajectory in group.trajectories]
    trl, verl = _trl_arguments(texts, group.prompt), _verl_arguments(group.prompt)
    try:
        kind = _call(cfg, tools, {"op": "kind", "offered": {"trl": list(trl), "verl": list(verl)}})
        if kind == "trl":
            return _read_list(_call(cfg, tools, {"op": "trl", "arguments": trl}), size=len(texts))
    except _Failed as failure:
        return [failure.out] * len(texts)
    if kind == "verl":
        return [_score_one(text, verl, cfg, tools) for text in texts]
    raise ConfigError(f"path={cfg.path}", str(kind), fix=_FIX)


def conduct(request: Mapping[str, Any]) -> object:
    """What runs beside the function, in a worker or here: find out its kind, or call it with what it accepts.

    Returns:
        For `kind`: "trl", "verl", or a sentence that says what is wrong. For a call: its result as plain numbers.
    """
    function = worker.resolve(request["target"])
    if request["op"] == "kind":
        return _kind(function, request["offered"])
    parameters = inspect.signature(function).parameters.values()
    arguments = cast("dict[str, object]", request["arguments"])
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        arguments = {p.name: arguments[p.name] for p in parameters if p.name in arguments}
    result = function(**arguments)
    return _plain_list(result) if request["op"] == "trl" else _plain_score(result)


class _Failed(Exception):
    """A call that gave no result, and the outcome that this means."""

    def __init__(self, out: RewardOut) -> None:
        super().__init__(out.reason)
        self.out = out


def _call(cfg: Config, tools: Tools, request: dict[str, Json]) -> object:
    module, _, function = cfg.path.replace(":", ".").rpartition(".")
    request = request | {"target": f"{module}:{function}"}
    try:
        if cfg.isolate:
            tools = _connected(tuple(cfg.pass_env)) if cfg.network else tools
            return tools.call(f"{__name__}:{conduct.__name__}", request, timeout_s=cfg.timeout_s)
        return conduct(request)
    except worker.TargetError as error:
        raise _not_importable(cfg, str(error)) from error
    except TimeoutError as error:
        raise _Failed(base.timeout("user")) from error
    except base.WorkerError as error:
        if error.kind == "import":
            raise _not_importable(cfg, error.message) from error
        _warn_once(cfg.path, str(error))
        raise _Failed(base.crash(error.exception or error.kind)) from error
    except Exception as error:
        _warn_once(cfg.path, "".join(traceback.format_exception(error)))
        raise _Failed(base.crash(type(error).__name__)) from error


@cache
def _connected(pass_env: tuple[str, ...]) -> WorkerPool:
    """This process's workers with a network. Who asks a server mostly waits, so there may be more of them."""
    return WorkerPool(PoolConfig(workers=_CONNECTED, network=True, pass_env=[*pass_env]))


@cache
def _warn_once(path: str, problem: str) -> None:
    """Say it the first time; every further case is in the verdict counts."""
    _LOG.warning("user function '%s' failed: %s", path, problem)


def _not_importable(cfg: Config, problem: str) -> ConfigError:
    return ConfigError(f"path={cfg.path}", problem, fix="check the dotted path, and put its folder on PYTHONPATH")


def _trl_arguments(texts: Sequence[str], prompt: Prompt) -> dict[str, Json]:
    named: dict[str, Json] = {"answer": prompt.gold, "solution": prompt.solution or prompt.gold}
    columns = named | _plain_columns(prompt) | {"gold": prompt.gold}
    return {
        **{name: [value] * len(texts) for name, value in columns.items()},
        "prompts": [base.last_user_message(prompt)] * len(texts),
        "completions": list(texts),
    }


def _verl_arguments(prompt: Prompt) -> dict[str, Json]:
    columns = _plain_columns(prompt)
    source = columns.get("data_source", prompt.task)
    return {"data_source": source, "solution_str": "", "ground_truth": prompt.gold, "extra_info": columns}


def _plain_columns(prompt: Prompt) -> dict[str, Json]:
    """Columns as JSON would bring them to a worker, so that a function sees the same with and without isolation."""
    return {name: _listed(value) for name, value in prompt.columns.items()}


def _listed(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {key: _listed(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_listed(inner) for inner in value]
    return value


def _kind(function: Callable[..., object], offered: Mapping[str, Sequence[str]]) -> str:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return "its parameters cannot be read"
    if {"solution_str", "ground_truth"} <= parameters.keys():
        kind = "verl"
    elif "completions" in parameters:
        kind = "trl"
    else:
        return f"takes ({', '.join(parameters)}), which is neither of the two kinds"
    needed = [
        p for p in parameters.values() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    missing = [p.name for p in needed if p.name not in offered[kind]]
    if missing:
        return f"needs {', '.join(missing)}, but a {kind} function is offered {', '.join(offered[kind])}"
    return kind


def _plain_list(result: Any) -> list[float | None]:
    """What a TRL function returned, without numpy or torch in it."""
    return [None if value is None else float(value) for value in result]


def _plain_score(result: Any) -> float | dict[str, float]:
    """What a verl function returned, likewise; entries of a dictionary that are no numbers are left out."""
    if not isinstance(result, Mapping):
        return float(result)
    items = cast("Mapping[object, object]", result).items()
    return {str(key): float(value) for key, value in items if isinstance(value, SupportsFloat)}


def _score_one(text: str, arguments: Mapping[str, Json], cfg: Config, tools: Tools) -> RewardOut:
    """One completion with a verl function."""
    try:
        result = _call(cfg, tools, {"op": "verl", "arguments": {**arguments, "solution_str": text}})
    except _Failed as failure:
        return failure.out
    if isinstance(result, float):
        return _judged(result)
    numbers = cast("dict[str, float]", result)
    if not isinstance(result, dict) or "score" not in numbers:
        return base.crash("no_score")
    rest = {key: value if math.isfinite(value) else None for key, value in numbers.items() if key != "score"}
    return replace(_judged(numbers["score"]), breakdown=rest)


def _read_list(result: object, *, size: int) -> list[RewardOut]:
    values = cast("list[float | None]", result)
    if not isinstance(result, list) or len(values) != size:
        return [base.crash("wrong_length")] * size
    return [_judged(value) for value in values]


def _judged(value: float | None) -> RewardOut:
    if value is None:
        return RewardOut(value=None, verdict=Verdict.SKIPPED, reason="user/none")
    verdict = Verdict.CORRECT if value > 0 else Verdict.WRONG
    return base.finite(RewardOut(value=value, verdict=verdict, reason="user/score"))

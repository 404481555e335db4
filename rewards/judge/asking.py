"""How another model is asked: over HTTP by its endpoint, or in a worker by its folder, with replies kept on disk.

Used by rewards that are an opinion in words (`rewards.judge`, `rewards.step_judge`). With `url`, `model` is the name
under which an OpenAI-compatible endpoint serves it, asked over HTTP by `concurrency` threads. Without, it is the folder
of a model, loaded in a worker process (`rewards.judge.local`). Replies are kept in `cache`, so that equal questions get
equal replies: in this run, when it is continued, and in others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from rewards.judge import endpoint, local
from rewards.judge.cache import Cache
from rewards.judge.endpoint import Endpoint, Failure, Reply
from rewards.judge.local import Local
from rewards.judge.sheet import Conversation
from rlhf.core.errors import ConfigError
from rlhf.core.types import Json, RewardOut, Verdict

_OURS = ("messages", "model", "stream", "n")
"""Keys of a request that `body` may not set."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Which model is asked, and how."""

    url: str = ""
    """OpenAI-compatible API, `https://host/v1`; empty for a model in a folder."""
    model: str = ""
    """Name under which the endpoint serves the model; without `url`, its folder. Required."""
    key_env: str = ""
    """Name of the environment variable with the API key, never the key itself; empty sends none."""
    temperature: float = 0.0
    """Of the judge. A model in a folder decodes greedily."""
    max_tokens: int = 512
    """Of a reply, its thinking included."""
    body: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further keys of each request, `{chat_template_kwargs: {enable_thinking: false}}`; null removes one of ours, as in
    `{max_tokens: null, max_completion_tokens: 512}`."""
    concurrency: int = 8
    """Requests to the endpoint at the same time, over all threads of a grading process."""
    timeout_s: float = 60.0
    """Deadline of one request, or of one batch of a model in a folder."""
    deadline_s: float = 300.0
    """Deadline of all answers to a prompt, waiting and asking again included."""
    retries: int = 5
    """How often a request is sent again after 429, 5xx, a broken connection or a missed deadline."""
    backoff_s: float = 1.0
    """Pause before the first of these, doubled with each; `Retry-After` is obeyed."""
    cache: str = "runs/.judge"
    """Folder of replies, shared by all runs and processes that name it; empty keeps none."""
    local: Local = field(default_factory=Local)
    """How a model in a folder is served."""

    def __post_init__(self) -> None:
        _check_place(self)
        _check_request(self)


def check_read(cfg: Asking, read: str) -> None:
    """Only endpoints enforce the form of a reply.

    Raises:
        ConfigError: a model in a folder would have to.
    """
    if read == "schema" and not cfg.url:
        raise _for_endpoints("read")


def request(conversation: Conversation, cfg: Asking, *, form: Mapping[str, Json] | None) -> dict[str, Json]:
    """The body of a request to an endpoint.

    Args:
        form: `response_format`; None leaves the form of the reply to the model.
    """
    ours: dict[str, Json] = {"temperature": cfg.temperature, "max_tokens": cfg.max_tokens}
    if form is not None:
        ours["response_format"] = form
    settings = {key: value for key, value in {**ours, **cfg.body}.items() if value is not None}
    return {"model": cfg.model, "messages": conversation, **settings}


def replies(
    conversations: Sequence[Conversation], cfg: Asking, *, form: Mapping[str, Json] | None
) -> list[Reply | Failure]:
    """From the cache, or from the model, in order.

    Raises:
        ConfigError: the key is not set, the folder of model or cache cannot be used.
    """
    keys = _keys(conversations, cfg, form) if conversations else []
    cache = Cache(Path(cfg.cache)) if cfg.cache else None
    out: list[Reply | Failure | None] = [cache.get(key) if cache else None for key in keys]
    missing = [n for n, reply in enumerate(out) if reply is None]
    if missing:
        deadline = time.monotonic() + cfg.deadline_s
        fresh = _ask([conversations[n] for n in missing], cfg, form, deadline=deadline)
        for n, outcome in zip(missing, fresh, strict=True):
            out[n] = cache.put(keys[n], outcome) if cache and isinstance(outcome, Reply) else outcome
    return cast("list[Reply | Failure]", out)


def failed(reply: Failure) -> RewardOut:
    """The outcome of an answer about which nobody replied."""
    late = reply.kind == "timeout"
    verdict, reason = (Verdict.TIMEOUT, "timeout/judge") if late else (Verdict.CRASH, f"crash/judge_{reply.kind}")
    return RewardOut(value=None, verdict=verdict, reason=reason, breakdown=rates(unanswered=1.0))


def unreadable(*, cut: bool) -> RewardOut:
    """The outcome of an answer about which the reply says nothing that can be read."""
    reason = "judge/cut_off" if cut else "judge/unreadable"
    return RewardOut(value=None, verdict=Verdict.CRASH, reason=reason, breakdown=rates(unreadable=1.0))


def rates(*, unanswered: float = 0.0, unreadable: float = 0.0) -> Mapping[str, float]:
    """What the breakdown of every answer holds: whether the model failed on it."""
    return {"unanswered": unanswered, "unreadable": unreadable}


def _keys(conversations: Sequence[Conversation], cfg: Asking, form: Mapping[str, Json] | None) -> list[dict[str, Json]]:
    """All that the replies depend on."""
    if cfg.url:
        return [{"url": cfg.url, **request(conversation, cfg, form=form)} for conversation in conversations]
    files = local.fingerprint(Path(cfg.model))
    fixed: dict[str, Json] = {"files": files, "dtype": cfg.local.dtype, "max_tokens": cfg.max_tokens}
    return [{**fixed, "messages": conversation} for conversation in conversations]


def _ask(
    conversations: Sequence[Conversation], cfg: Asking, form: Mapping[str, Json] | None, *, deadline: float
) -> list[Reply | Failure]:
    if not cfg.url:
        judge = local.judge_in(Path(cfg.model), cfg.local)
        return judge.ask(conversations, max_tokens=cfg.max_tokens, timeout_s=cfg.timeout_s, deadline=deadline)
    service = Endpoint(
        url=cfg.url,
        key=endpoint.key_of(cfg.key_env),
        timeout_s=cfg.timeout_s,
        retries=cfg.retries,
        backoff_s=cfg.backoff_s,
        in_flight=cfg.concurrency,
    )
    with ThreadPoolExecutor(min(cfg.concurrency, len(conversations)), thread_name_prefix="judge") as threads:
        tasks = [threads.submit(service.ask, request(c, cfg, form=form), deadline=deadline) for c in conversations]
        return [task.result() for task in tasks]


def _check_place(cfg: Asking) -> None:
    """Where the judge is; no message repeats what might be a key."""
    if not cfg.model:
        fix = "name what the endpoint serves, or without url the folder of a model"
        raise ConfigError("model", "is required", fix=fix)
    if not cfg.url:
        if name := next((k for k in ("temperature", "body", "key_env") if vars(cfg)[k]), ""):
            raise _for_endpoints(name)
        return
    parts = urlsplit(cfg.url)
    if parts.username or parts.password or parts.query or parts.fragment:
        fix = "put the key into an environment variable and its name into key_env"
        raise ConfigError("url", "holds more than host and path, which would be written to the run's files", fix=fix)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in cfg.url):
        raise ConfigError("url", f"'{cfg.url}' is no address", fix="write it like http://localhost:8000/v1")
    if cfg.key_env and not cfg.key_env.isidentifier():
        problem = (
            "is not the name of an environment variable; if it is a key, replace that key: it may have been logged"
        )
        raise ConfigError("key_env", problem, fix="export JUDGE_API_KEY=… and write key_env: JUDGE_API_KEY")


def _for_endpoints(name: str) -> ConfigError:
    problem = "is for endpoints; without url, model is a folder that is decoded greedily"
    return ConfigError(name, problem, fix="take it out, or give the url of an endpoint")


def _check_request(cfg: Asking) -> None:
    for name in ("timeout_s", "deadline_s"):
        if not 0 < (seconds := vars(cfg)[name]) < float("inf"):
            raise ConfigError(name, f"{seconds} is no time", fix="use a positive number of seconds")
    for name, least in (("concurrency", 1), ("max_tokens", 1), ("retries", 0), ("backoff_s", 0), ("temperature", 0)):
        if not least <= (number := vars(cfg)[name]) < float("inf"):
            raise ConfigError(name, f"{number} is too little", fix=f"use {least} or more")
    for name in _OURS:
        if name in cfg.body:
            raise ConfigError(f"body.{name}", "is not for `body` to set", fix="take it out")

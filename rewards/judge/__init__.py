"""What another language model thinks of an answer, by criteria in words. An opinion: it adds, and decides nothing.

    rewards:
      math: {}
      judge:
        url: http://localhost:8000/v1
        model: Qwen/Qwen2.5-7B-Instruct
        criteria: {clarity: 'Every step follows from the one before it.'}
        weight: 0.1

A pointwise judge, with or without a reference (Zheng et al. 2023, arXiv 2306.05685, section 3.1), that grades criteria
with weights, as in Rubrics as Rewards (Gunjal et al. 2025, arXiv 2507.17746). With a number s_k for each criterion k,

    value = sum_k w_k (s_k - lowest) / (highest - lowest) / sum_k w_k                in [0, 1]

One request grades all criteria of one answer. Answers are not compared, so there is no order whose bias would need
guarding against; a judge still favours length and its own style (section 3.3 of the first paper).

Trust. The judge reads what it grades, and the text may address it; `rewards.judge.sheet` lists the guards, and none is
a proof. So its verdict is `skipped`, and a config in which it comes first, is a gate, a factor or the verifier of
another reward is refused (`rewards.trust`). `decides: true` is the way out: from `correct_from` an answer is `correct`.

    what happened                                     value   verdict                 reason
    the reply holds the grades                        [0, 1]  skipped, or as above    judge/graded
    nothing to grade: no letter and no digit          0.0     no_answer               judge/empty
    the answer has more than `max_chars`              0.0     unparsable              limit/chars
    the reply holds no grades, or stopped early       None    crash                   judge/unreadable, judge/cut_off
    no reply within `deadline_s`                      None    timeout                 timeout/judge
    the server refused, or failed to the end          None    crash                   crash/judge_http_503, …

`unanswered` and `unreadable` of the breakdown are the rates of the last three. A model that learns to upset its judge
has its sample left out; a rising rate shows it.

With `url`, `model` is the name under which an OpenAI-compatible endpoint serves it, asked over HTTP by `concurrency`
threads. Without, it is the folder of a model, loaded in a worker process (`rewards.judge.local`). Replies are kept in
`cache`, so that equal questions get equal grades: in this run, when it is continued, and in others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from rewards import base
from rewards.judge import endpoint, local, reading, sheet
from rewards.judge.cache import Cache
from rewards.judge.endpoint import Endpoint, Failure, Reply
from rewards.judge.local import Local
from rewards.judge.sheet import Conversation, Sheet
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, Json, RewardOut, Verdict

__all__ = ["Config", "Local", "Sheet", "score"]

_OURS = ("messages", "model", "stream", "n")
"""Keys of a request that `body` may not set."""


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig, Sheet):
    """Who judges, by which criteria, and how it is asked."""

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
    decides: bool = False
    """Let an opinion decide what is right: allow it as first reward, gate, factor and verifier."""
    correct_from: float = 0.5
    """With `decides`: the value from which an answer is correct."""
    local: Local = field(default_factory=Local)
    """How a model in a folder is served."""

    def __post_init__(self) -> None:
        base.RewardConfig.__post_init__(self)
        Sheet.__post_init__(self)
        _check_place(self)
        _check_request(self)
        if not 0 < self.correct_from <= 1:
            raise ConfigError("correct_from", f"{self.correct_from} is not in (0, 1]", fix="use 0.5")

    @property
    def advisory(self) -> bool:
        return not self.decides

    @property
    def costly(self) -> bool:
        return True


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Have every answer of a group graded; equal answers are asked about once.

    Raises:
        ConfigError: the key is not set, the folder of model or cache cannot be used.
    """
    texts = [sheet.shown(trajectory.text, cfg) for trajectory in group.trajectories]
    outs = {text: _worthless(text, cfg) for text in texts}
    asked = [text for text, out in outs.items() if out is None]
    replies = _replies([sheet.ask(cfg, group.prompt, text) for text in asked], cfg)
    graded = {text: _out(reply, cfg) for text, reply in zip(asked, replies, strict=True)}
    return [outs[text] or graded[text] for text in texts]


def request(conversation: Conversation, cfg: Config) -> dict[str, Json]:
    """The body of a request to an endpoint."""
    ours: dict[str, Json] = {"temperature": cfg.temperature, "max_tokens": cfg.max_tokens}
    if cfg.read == "schema":
        ours["response_format"] = sheet.schema(cfg)
    settings = {key: value for key, value in {**ours, **cfg.body}.items() if value is not None}
    return {"model": cfg.model, "messages": conversation, **settings}


def _replies(conversations: Sequence[Conversation], cfg: Config) -> list[Reply | Failure]:
    """From the cache, or from the judge, in order."""
    keys = _keys(conversations, cfg) if conversations else []
    cache = Cache(Path(cfg.cache)) if cfg.cache else None
    out: list[Reply | Failure | None] = [cache.get(key) if cache else None for key in keys]
    missing = [n for n, reply in enumerate(out) if reply is None]
    if missing:
        deadline = time.monotonic() + cfg.deadline_s
        fresh = _ask([conversations[n] for n in missing], cfg, deadline=deadline)
        for n, outcome in zip(missing, fresh, strict=True):
            out[n] = cache.put(keys[n], outcome) if cache and isinstance(outcome, Reply) else outcome
    return cast("list[Reply | Failure]", out)


def _keys(conversations: Sequence[Conversation], cfg: Config) -> list[dict[str, Json]]:
    """All that the replies depend on."""
    if cfg.url:
        return [{"url": cfg.url, **request(conversation, cfg)} for conversation in conversations]
    files = local.fingerprint(Path(cfg.model))
    fixed: dict[str, Json] = {"files": files, "dtype": cfg.local.dtype, "max_tokens": cfg.max_tokens}
    return [{**fixed, "messages": conversation} for conversation in conversations]


def _ask(conversations: Sequence[Conversation], cfg: Config, *, deadline: float) -> list[Reply | Failure]:
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
        tasks = [threads.submit(service.ask, request(c, cfg), deadline=deadline) for c in conversations]
        return [task.result() for task in tasks]


def _worthless(text: str, cfg: Config) -> RewardOut | None:
    """The outcome of an answer that is not shown to a judge."""
    if len(text) > cfg.max_chars:
        return RewardOut(value=0.0, verdict=Verdict.UNPARSABLE, reason="limit/chars", breakdown=_rates())
    if not any(character.isalnum() for character in text):
        return RewardOut(value=0.0, verdict=Verdict.NO_ANSWER, reason="judge/empty", breakdown=_rates())
    return None


def _out(reply: Reply | Failure, cfg: Config) -> RewardOut:
    if isinstance(reply, Failure):
        late = reply.kind == "timeout"
        verdict, reason = (Verdict.TIMEOUT, "timeout/judge") if late else (Verdict.CRASH, f"crash/judge_{reply.kind}")
        return RewardOut(value=None, verdict=verdict, reason=reason, breakdown=_rates(unanswered=1.0))
    numbers = None if reply.cut else reading.grades(reply.text, cfg)
    if numbers is None:
        reason = "judge/cut_off" if reply.cut else "judge/unreadable"
        return RewardOut(value=None, verdict=Verdict.CRASH, reason=reason, breakdown=_rates(unreadable=1.0))
    value = reading.value(numbers, cfg)
    verdict = Verdict.SKIPPED
    if cfg.decides:
        verdict = Verdict.CORRECT if value >= cfg.correct_from else Verdict.WRONG
    return RewardOut(value=value, verdict=verdict, reason="judge/graded", breakdown={**numbers, **_rates()})


def _rates(*, unanswered: float = 0.0, unreadable: float = 0.0) -> Mapping[str, float]:
    return {"unanswered": unanswered, "unreadable": unreadable}


def _check_place(cfg: Config) -> None:
    """Where the judge is; no message repeats what might be a key."""
    if not cfg.model:
        fix = "name what the endpoint serves, or without url the folder of a model"
        raise ConfigError("model", "is required", fix=fix)
    if not cfg.url:
        if cfg.temperature or cfg.body or cfg.key_env or cfg.read == "schema":
            name = next(
                k for k in ("temperature", "body", "key_env", "read") if vars(cfg)[k] not in (0, {}, "", "json")
            )
            problem = "is for endpoints; without url, model is a folder that is decoded greedily"
            raise ConfigError(name, problem, fix="take it out, or give the url of an endpoint")
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


def _check_request(cfg: Config) -> None:
    for name in ("timeout_s", "deadline_s"):
        if not 0 < (seconds := vars(cfg)[name]) < float("inf"):
            raise ConfigError(name, f"{seconds} is no time", fix="use a positive number of seconds")
    for name, least in (("concurrency", 1), ("max_tokens", 1), ("retries", 0), ("backoff_s", 0), ("temperature", 0)):
        if not least <= (number := vars(cfg)[name]) < float("inf"):
            raise ConfigError(name, f"{number} is too little", fix=f"use {least} or more")
    for name in _OURS:
        if name in cfg.body:
            raise ConfigError(f"body.{name}", "is not for `body` to set", fix="take it out")

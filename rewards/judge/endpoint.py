"""Asks a model behind an OpenAI-compatible endpoint: `POST <url>/chat/completions` of OpenAI, vLLM, SGLang, llama.cpp.

One request is one connection of the standard library, ended at its deadline whatever the server does, be it a byte a
second. No redirect is followed, so that the key goes nowhere else, and no more than `MAX_BYTES` of a reply are read.

    429, 408, 5xx, no connection, deadline of the request    asked again, up to `retries` times
    any other status, a reply that is not the protocol's      final: asking again would bring the same

Before it is asked again, half to all of `backoff_s` 2^n passes, at most a minute, and never less than `Retry-After`
asks for (RFC 9110, section 10.2.3). What comes of it is data: a `Reply`, or a `Failure` with the reason.

The key comes from an environment variable. It is put into the header of a request and nowhere else: not into a config,
an object, a file or a message; what a server says is stripped of it before it is logged.

NOT protected: the address of a host is looked up without a deadline of ours. Proxies of the environment are not used.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import logging
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast
from urllib.parse import urlsplit

from rlhf.core.errors import ConfigError
from rlhf.core.types import Json

MAX_BYTES = 4 * 2**20
_MAX_PAUSE_S = 60.0
_AGAIN = (408, 429)
_LOG = logging.getLogger(__name__)
_TOLD: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a judge wrote."""

    text: str
    cut: bool = False
    """It ran out of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no reply."""

    kind: str
    """`timeout`, `http_503`, `connection`, `protocol`, `too_large`, or what a worker died of."""
    detail: str = ""
    again: bool = False
    """Asking again may help."""
    wait_s: float = 0.0
    """What the server asked to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to ask, and how patiently.

    Args:
        url: of the API, `http://host:8000/v1`.
        key: sent as bearer token; empty sends none.
        in_flight: requests to this url at the same time, over all threads of this process.
        sleep, clock: for tests.
    """

    url: str
    key: str
    timeout_s: float
    retries: int
    backoff_s: float
    in_flight: int
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def ask(self, body: Mapping[str, Json], *, deadline: float) -> Reply | Failure:
        """Send a request until there is a final outcome, or no time left.

        Args:
            deadline: on `clock`; waiting for a turn and between requests counts.
        """
        payload = json.dumps(body).encode()
        for attempt in range(self.retries + 1):
            outcome = self._in_turn(payload, deadline)
            if isinstance(outcome, Reply) or not outcome.again or attempt == self.retries:
                break
            pause = min(_MAX_PAUSE_S, self.backoff_s * 2**attempt) * random.uniform(0.5, 1)
            pause = max(pause, outcome.wait_s)
            if self.clock() + pause >= deadline:
                break
            self.sleep(pause)
        else:
            raise AssertionError("the last attempt ends the loop")
        if isinstance(outcome, Failure):
            _tell_once(self.url, outcome)
        return outcome

    def _in_turn(self, payload: bytes, deadline: float) -> Reply | Failure:
        turns = _turns(self.url, self.in_flight)
        if not turns.acquire(timeout=max(0.0, deadline - self.clock())):
            return Failure(kind="timeout", detail="no turn before the deadline")
        try:
            seconds = min(self.timeout_s, deadline - self.clock())
            return self._once(payload, seconds) if seconds > 0 else Failure(kind="timeout", detail="no time left")
        finally:
            turns.release()

    def _once(self, payload: bytes, seconds: float) -> Reply | Failure:
        """One request. Whatever the server does, this ends at about `seconds`."""
        late = threading.Event()
        ends = time.monotonic() + seconds
        connection = self._connection(seconds)
        try:
            connection.connect()
            watchdog = threading.Timer(max(0.0, ends - time.monotonic()), _hang_up, (connection.sock, late))
            watchdog.daemon = True
            watchdog.start()
            try:
                outcome = self._exchange(connection, payload)
            finally:
                watchdog.cancel()
            # A reply without a length seems to be whole where it was hung up on.
            return _timeout(seconds) if late.is_set() else outcome
        except TimeoutError:
            return _timeout(seconds)
        except (OSError, http.client.HTTPException) as error:
            if late.is_set():
                return _timeout(seconds)
            detail = self._without_key(f"{type(error).__name__}: {error}")
            return Failure(kind="connection", detail=detail, again=not isinstance(error, ssl.SSLCertVerificationError))
        finally:
            connection.close()

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(cast(str, parts.hostname), parts.port, timeout=seconds)

    def _exchange(self, connection: http.client.HTTPConnection, payload: bytes) -> Reply | Failure:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connection.request("POST", f"{urlsplit(self.url).path.rstrip('/')}/chat/completions", payload, headers)
        response = connection.getresponse()
        content = response.read(MAX_BYTES + 1)
        if response.length and len(content) <= MAX_BYTES:
            raise http.client.IncompleteRead(content)
        if response.status != 200:
            detail = self._without_key(content[:2000].decode(errors="replace"))
            again = response.status in _AGAIN or response.status >= 500
            wait_s = _seconds(response.headers.get("Retry-After")) if again else 0.0
            return Failure(kind=f"http_{response.status}", detail=detail, again=again, wait_s=wait_s)
        if len(content) > MAX_BYTES:
            return Failure(kind="too_large", detail=f"more than {MAX_BYTES} bytes")
        outcome = _read(content)
        return replace(outcome, text=self._without_key(outcome.text)) if isinstance(outcome, Reply) else outcome

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "<key>") if self.key else text


def key_of(variable: str) -> str:
    """The key that an environment variable holds; empty for no variable.

    Raises:
        ConfigError: it is not set, or holds what no header may hold. Its value is not in the message.
    """
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        fix = "export it where rewards are graded (on Ray, on every node, before Ray starts)"
        raise ConfigError("key_env", f"the environment variable {variable} is not set", fix=fix)
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("key_env", f"what {variable} holds is no key", fix="export one line of plain characters")
    return key


@cache
def _turns(url: str, in_flight: int) -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(in_flight)


def _hang_up(wire: socket.socket, late: threading.Event) -> None:
    """Wake whoever waits for the server: it will find the connection ended."""
    late.set()
    with suppress(OSError):
        # Not the method of an encrypted connection, which takes it apart under whoever reads from it.
        socket.socket.shutdown(wire, socket.SHUT_RDWR)


def _timeout(seconds: float) -> Failure:
    return Failure(kind="timeout", detail=f"no reply within {seconds:.3g} s", again=True)


def _seconds(retry_after: str | None) -> float:
    """A number of seconds, or the time until a date; 0 for anything else."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _read(content: bytes) -> Reply | Failure:
    """The first choice of a chat completion (https://platform.openai.com/docs/api-reference/chat/object)."""
    try:
        choice: Any = json.loads(content)["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        return Failure(kind="protocol", detail=f"no chat completion ({type(error).__name__})")
    if text is None:
        return Reply(text="", cut=finish == "length")
    return Reply(text=text, cut=finish == "length") if isinstance(text, str) else Failure(kind="protocol")


def _tell_once(url: str, failure: Failure) -> None:
    """Say it the first time; every further case is in the counts."""
    if (url, failure.kind) not in _TOLD:
        _TOLD.add((url, failure.kind))
        detail = "".join(c if c.isprintable() else " " for c in failure.detail[:300])
        _LOG.warning("judge at %s: %s: %s", url, failure.kind, detail)

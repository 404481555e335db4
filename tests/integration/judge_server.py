"""A server that speaks the protocol of OpenAI as its script says: answers, delays, errors, broken and huge replies."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rewards.judge import Config

RECORDED = (
    '{"id":"chatcmpl-8d3f","object":"chat.completion","created":1760000000,"model":"judge","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"Clear.\\n{\\"clarity\\": 4}","refusal":null,"annotations":null,'
    '"audio":null,"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"stop","stop_reason":null,'
    '"token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":null,"usage":{"prompt_tokens":'
    '301,"total_tokens":312,"completion_tokens":11,"prompt_tokens_details":null,"completion_tokens_details":null},'
    '"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,'
    '"ec_transfer_params":null,"metrics":null}'
)
"""A reply of vLLM 0.32, as its own classes write it."""
RECORDED_ERROR = (
    '{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}'
)


@dataclass(frozen=True, kw_only=True)
class Act:
    """What the server does with one request."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay_s: float = 0.0
    drip_s: float = 0.0
    """Send a byte of the body this often."""
    linger_s: float = 0.0
    """Keep the connection open behind the body for so long."""
    length: int | None = None
    """`Content-Length` that is announced; -1 announces none and ends with the connection."""
    hang_up: bool = False
    """Close the connection without a word."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def answer(self) -> str:
        """What stands between the lines round the answer."""
        user = self.body["messages"][-1]["content"]
        return str(user.split("=====BEGIN ANSWER ")[1].split("=====\n", 1)[1].split("\n=====END ANSWER ")[0])


class Judge:
    """The server's end: what it does with the n-th request, and what it was asked.

    Args:
        script: from the request and its number, counted from 0, to what is done.
    """

    def __init__(self, script: Callable[[Asked, int], Act]) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self.url = ""
        self._open = 0
        self._lock = threading.Lock()

    def considered(self, asked: Asked) -> Act:
        """What is done with a request, after its delay. It counts as under way until then: who gets the reply may send
        the next request before the connection is closed."""
        with self._lock:
            number = len(self.asked)
            self.asked.append(asked)
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        try:
            act = self.script(asked, number)
            time.sleep(act.delay_s)
            return act
        finally:
            with self._lock:
                self._open -= 1


def says(text: str | None, *, finish: str = "stop", **changes: Any) -> Act:
    """A reply with this text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return Act(body=json.dumps({"object": "chat.completion", "choices": [choice]}).encode(), **changes)


def grades(**numbers: int) -> Act:
    """A reply that ends with grades."""
    return says(f"Well.\n{json.dumps(numbers)}")


def in_turn(*acts: Act) -> Callable[[Asked, int], Act]:
    """One act after the other; the last one goes on."""
    return lambda asked, number: acts[min(number, len(acts) - 1)]


@contextlib.contextmanager
def judge(
    *acts: Act, script: Callable[[Asked, int], Act] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Judge]:
    """A judge that listens on a free port of this machine."""
    state = Judge(script or in_turn(*acts))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            asked = Asked(path=self.path, headers=dict(self.headers), body=json.loads(self.rfile.read(size)))
            act = state.considered(asked)
            with contextlib.suppress(OSError):
                self._perform(act)

        def _perform(self, act: Act) -> None:
            if act.hang_up:
                return
            self.send_response(act.status)
            for name, value in act.headers.items():
                self.send_header(name, value)
            if act.length != -1:
                self.send_header("Content-Length", str(len(act.body) if act.length is None else act.length))
            self.end_headers()
            for piece in [act.body[n : n + 1] for n in range(len(act.body))] if act.drip_s else [act.body]:
                self.wfile.write(piece)
                time.sleep(act.drip_s)
            time.sleep(act.linger_s)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def config(url: str, **changes: Any) -> Config:
    """A judge of one criterion that is not patient, and keeps nothing unless it is told to."""
    settings: dict[str, Any] = {
        "url": url,
        "model": "judge",
        "criteria": {"clarity": "It is clear."},
        "cache": "",
        "backoff_s": 0.01,
        "timeout_s": 5.0,
        "deadline_s": 10.0,
    }
    return Config(**(settings | changes))

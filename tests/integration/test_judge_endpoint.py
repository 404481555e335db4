"""Asking an endpoint: what is asked again and when, deadlines that hold against any server, and where the key goes."""

from __future__ import annotations

import email.utils
import logging
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from judge_server import RECORDED, RECORDED_ERROR, Act, Judge, judge, says

from rewards.judge import endpoint
from rewards.judge.endpoint import MAX_BYTES, Endpoint, Failure, Reply
from rlhf.core.errors import ConfigError

KEY = "sk-test-0123456789"


@dataclass
class Clock:
    """Time that passes only when somebody sleeps."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list[float])

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def time(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    """Warnings are given once; every test gets its own."""
    endpoint._TOLD.clear()
    yield


def ask(
    server: Judge, *, clock: Clock | None = None, deadline_s: float = 100.0, key: str = "", **changes: Any
) -> Reply | Failure:
    settings: dict[str, Any] = {"timeout_s": 5.0, "retries": 3, "backoff_s": 1.0, "in_flight": 4} | changes
    clock = clock or Clock()
    service = Endpoint(url=server.url, key=key, sleep=clock.sleep, clock=clock.time, **settings)
    return service.ask({"model": "judge", "messages": []}, deadline=clock.now + deadline_s)


def test_a_reply_of_vllm_is_read() -> None:
    with judge(Act(body=RECORDED.encode())) as server:
        assert ask(server) == Reply(text='Clear.\n{"clarity": 4}')
    [asked] = server.asked
    assert asked.path == "/v1/chat/completions" and asked.body == {"model": "judge", "messages": []}
    assert "Authorization" not in asked.headers and asked.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (says("4", finish="length"), Reply(text="4", cut=True)),
        (says(None), Reply(text="")),
        (says("4", length=-1), Reply(text="4")),
    ],
)
def test_forms_of_a_reply(act: Act, expected: Reply) -> None:
    with judge(act) as server:
        assert ask(server) == expected


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (Act(status=400), "http_400"),
        (Act(status=401), "http_401"),
        (Act(status=404, body=RECORDED_ERROR.encode()), "http_404"),
        (Act(status=422), "http_422"),
        (Act(status=302, headers={"Location": "http://127.0.0.1:9/v1"}), "http_302"),
        (Act(status=204), "http_204"),
        (Act(body=b"<html>busy</html>"), "protocol"),
        (Act(body=b""), "protocol"),
        (Act(body=b"[]"), "protocol"),
        (Act(body=b"\xff\xfe"), "protocol"),
        (Act(body=b'{"choices": []}'), "protocol"),
        (Act(body=b'{"choices": [{"message": {"content": [1]}}]}'), "protocol"),
        (Act(body=b'{"choices": [{"message": "4"}]}'), "protocol"),
        (Act(body=b"[" * 100_000), "protocol"),
        (Act(body=b'{"choices": ' + b"1" * 10_000 + b"}"), "protocol"),
        (Act(body=b" " * (MAX_BYTES + 1)), "too_large"),
        (Act(body=b" " * (MAX_BYTES + 1), length=10**12, linger_s=5.0), "too_large"),
    ],
)
def test_what_asking_again_would_not_change_is_final(act: Act, kind: str) -> None:
    clock = Clock()
    with judge(act) as server:
        found = ask(server, clock=clock, timeout_s=2.0)
    assert isinstance(found, Failure) and found.kind == kind
    assert len(server.asked) == 1 and clock.slept == []


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (Act(status=429), "http_429"),
        (Act(status=408), "http_408"),
        (Act(status=500), "http_500"),
        (Act(status=503), "http_503"),
        (Act(hang_up=True), "connection"),
        (Act(body=b"{", length=100), "connection"),
    ],
)
def test_what_may_pass_is_asked_again_with_growing_pauses(act: Act, kind: str) -> None:
    clock = Clock()
    with judge(act) as server:
        found = ask(server, clock=clock)
    assert isinstance(found, Failure) and found.kind == kind and len(server.asked) == 4
    assert len(clock.slept) == 3
    assert all(base / 2 <= slept <= base for base, slept in zip((1, 2, 4), clock.slept, strict=True))


def test_it_ends_with_the_first_reply() -> None:
    with judge(Act(status=429), Act(status=500), says("4"), says("5")) as server:
        assert ask(server) == Reply(text="4")
    assert len(server.asked) == 3


def test_pauses_differ_so_that_clients_do_not_come_in_step() -> None:
    clock = Clock()
    with judge(Act(status=500)) as server:
        for _ in range(4):
            ask(server, clock=clock, retries=1)
    assert len(set(clock.slept)) == 4


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("a date in 30 s", 28, 30),
        ("0", 0.5, 1),
        ("soon", 0.5, 1),
        ("-5", 0.5, 1),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.5, 1),
        ("9" * 5000, 0.5, 1),
    ],
)
def test_retry_after_is_obeyed(header: str, least: float, most: float) -> None:
    clock = Clock()
    if header == "a date in 30 s":
        header = email.utils.formatdate(time.time() + 30, usegmt=True)
    with judge(Act(status=429, headers={"Retry-After": header}), says("4")) as server:
        assert ask(server, clock=clock) == Reply(text="4")
    [slept] = clock.slept
    assert least <= slept <= most


def test_no_pause_goes_beyond_the_deadline() -> None:
    clock = Clock()
    with judge(Act(status=429, headers={"Retry-After": "3600"})) as server:
        found = ask(server, clock=clock)
    assert isinstance(found, Failure) and found.kind == "http_429"
    assert clock.slept == [] and len(server.asked) == 1


@pytest.mark.parametrize(
    "act",
    [
        Act(delay_s=5.0),
        says("4", drip_s=0.05),
        says("4", drip_s=0.05, length=-1),
        Act(body=b"x" * 100, headers={"X-Slow": "a" * 60_000}, drip_s=0.05),
    ],
    ids=["silent", "a byte at a time", "without a length", "slow and with large headers"],
)
def test_a_request_ends_at_its_deadline_whatever_the_server_does(act: Act) -> None:
    with judge(act) as server:
        began = time.monotonic()
        found = ask(server, timeout_s=0.15, retries=0)
        assert time.monotonic() - began < 2.0
    assert isinstance(found, Failure) and found.kind == "timeout"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody but itself vouches for, with its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    name = ["-subj", "/CN=judge", "-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(path), "-out", str(path.with_name("one.pem"))]
    subprocess.run([*make, *name, *files], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_name("one.pem").read_bytes())
    return path


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_certificate_that_nobody_vouches_for_ends_it_before_the_key_is_sent(certificate: Path) -> None:
    with judge(says("4"), tls=tls(certificate)) as server:
        found = ask(server, key=KEY)
    assert isinstance(found, Failure) and "certificate verify failed" in found.detail and not found.again
    assert server.asked == []


def test_encrypted_replies_are_read_and_end_at_their_deadline(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("one.pem")))
    with judge(says("4"), says("5", drip_s=0.05), says("6", delay_s=5.0), tls=tls(certificate)) as server:
        assert ask(server, key=KEY) == Reply(text="4")
        assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"
        for _ in range(2):
            began = time.monotonic()
            found = ask(server, timeout_s=0.2, retries=0)
            assert isinstance(found, Failure) and found.kind == "timeout" and time.monotonic() - began < 2.0


def test_a_missed_deadline_is_asked_again() -> None:
    with judge(Act(delay_s=2.0), says("4")) as server:
        assert ask(server, timeout_s=0.3) == Reply(text="4")


def test_a_server_that_is_not_there_is_a_failure() -> None:
    with judge(says("4")) as server:
        pass
    found = ask(server, retries=1)
    assert isinstance(found, Failure) and found.kind == "connection" and "refused" in found.detail.lower()


def test_no_more_requests_than_allowed_are_under_way_over_all_threads() -> None:
    found: list[Reply | Failure] = []
    with judge(says("4", delay_s=0.03)) as server:
        threads = [threading.Thread(target=lambda: found.append(ask(server, in_flight=2))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [Reply(text="4")] * 8 and server.most_at_once == 2


def test_who_gets_no_turn_before_the_deadline_times_out() -> None:
    with judge(says("4", delay_s=0.4)) as server:
        first = threading.Thread(target=lambda: ask(server, in_flight=1))
        first.start()
        while not server.asked:
            time.sleep(0.005)
        found = ask(server, in_flight=1, deadline_s=0.05)
        first.join()
    assert isinstance(found, Failure) and found.kind == "timeout" and len(server.asked) == 1


def test_the_key_is_sent_and_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    echo = f'{{"error": {{"message": "Incorrect API key: {KEY}\\u0007"}}}}\n\x1b[31m{KEY}'.encode()
    with caplog.at_level(logging.DEBUG), judge(Act(status=401, body=echo)) as server:
        found = ask(server, key=KEY)
        ask(server, key=KEY)
    assert [asked.headers["Authorization"] for asked in server.asked] == [f"Bearer {KEY}"] * 2
    assert isinstance(found, Failure) and KEY not in found.detail
    [record] = caplog.records
    assert "http_401" in record.getMessage() and "<key>" in record.getMessage()
    assert KEY not in record.getMessage() and "\x1b" not in record.getMessage()
    with judge(says(f"your key is {KEY}")) as server:
        assert ask(server, key=KEY) == Reply(text="your key is <key>")
    assert KEY not in repr(Endpoint(url="u", key=KEY, timeout_s=1, retries=0, backoff_s=0, in_flight=1))


def test_the_key_goes_to_no_other_server() -> None:
    with judge(says("5")) as other, judge(Act(status=307, headers={"Location": other.url})) as server:
        found = ask(server, key=KEY)
    assert isinstance(found, Failure) and found.kind == "http_307" and other.asked == []


def test_a_key_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    assert endpoint.key_of("JUDGE_KEY") == KEY and endpoint.key_of("") == ""
    for bad in ("", "  ", "two\nlines", "schlüssel"):
        monkeypatch.setenv("JUDGE_KEY", bad)
        with pytest.raises(ConfigError) as caught:
            endpoint.key_of("JUDGE_KEY")
        assert caught.value.where == "key_env" and "JUDGE_KEY" in str(caught.value)
        assert not bad.strip() or bad not in str(caught.value)

"""Replies on disk: equal questions get equal replies, over processes too; what is broken counts as absent."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rewards.judge.cache import Cache
from rewards.judge.endpoint import Reply

ASKED: dict[str, Any] = {"url": "http://h/v1", "model": "m", "messages": [{"role": "user", "content": "é \ud800"}]}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_put_is_found_by_all_that_was_asked(tmp_path: Path) -> None:
    reply = Reply(text="4 \ud800 é", cut=True)
    assert Cache(tmp_path).get(ASKED) is None
    assert Cache(tmp_path).put(ASKED, reply) == reply
    assert Cache(tmp_path).get(dict(reversed(ASKED.items()))) == reply
    for change in ({"url": "http://other/v1"}, {"model": "n"}, {"temperature": 1.0}, {"messages": []}):
        assert Cache(tmp_path).get(ASKED | change) is None
    assert len(files(tmp_path)) == 1


def test_the_first_reply_stays(tmp_path: Path) -> None:
    assert Cache(tmp_path).put(ASKED, Reply(text="4")) == Reply(text="4")
    assert Cache(tmp_path).put(ASKED, Reply(text="5")) == Reply(text="4")
    assert Cache(tmp_path).get(ASKED) == Reply(text="4")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"text": "4"}', b'{"asked": {}, "text": "4"}'])
def test_a_broken_entry_counts_as_absent_and_is_mended(tmp_path: Path, content: bytes) -> None:
    Cache(tmp_path).put(ASKED, Reply(text="4"))
    [path] = files(tmp_path)
    path.write_bytes(content)
    assert Cache(tmp_path).get(ASKED) is None
    assert Cache(tmp_path).put(ASKED, Reply(text="5")) == Reply(text="5")
    assert Cache(tmp_path).get(ASKED) == Reply(text="5") and files(tmp_path) == [path]


def test_a_file_system_without_links_keeps_replies_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links")

    monkeypatch.setattr(os, "link", refuse)
    assert Cache(tmp_path).put(ASKED, Reply(text="4")) == Reply(text="4")
    assert Cache(tmp_path).get(ASKED) == Reply(text="4") and len(files(tmp_path)) == 1


def test_a_folder_that_refuses_costs_the_entry_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING):
        assert [cache.put(ASKED, Reply(text="4")) for _ in range(2)] == [Reply(text="4")] * 2
    assert len(caplog.records) == 1


def test_threads_that_write_at_once_agree(tmp_path: Path) -> None:
    found: list[Reply] = []
    go = threading.Barrier(8)

    def put(n: int) -> None:
        go.wait()
        found.append(Cache(tmp_path).put(ASKED, Reply(text=str(n))))

    threads = [threading.Thread(target=put, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and Cache(tmp_path).get(ASKED) == found[0] and len(files(tmp_path)) == 1


def test_processes_that_write_at_once_agree(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom rewards.judge.cache import Cache\n"
        "from rewards.judge.endpoint import Reply\ncache = Cache(Path(sys.argv[1]))\nsys.stdin.readline()\n"
        "print(*(cache.put({'n': n}, Reply(text=sys.argv[2])).text for n in range(200)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    writers = [subprocess.Popen([*command, name], stdin=pipe, stdout=pipe, text=True) for name in "ab"]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    first, second = (writer.communicate()[0].split() for writer in writers)
    assert first == second and len(first) == 200
    assert [Cache(tmp_path).get({"n": n}) for n in range(200)] == [Reply(text=text) for text in first]

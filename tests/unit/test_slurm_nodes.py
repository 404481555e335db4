"""What launch/slurm.sh asks Python: where Ray's head listens, and whether all nodes have joined."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


address, wait_nodes = script("_address"), script("_wait_nodes")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to, and every route leaves by the address `routes` has for it."""
    known: dict[str, list[str]] = {}
    monkeypatch.setattr(address, "resolve", lambda name: known.get(name, []))
    monkeypatch.setattr(address, "route_to", lambda to: (known.get(f"to {to}") or [None])[0])
    return known


def test_the_head_is_where_the_route_to_another_node_leaves(names: dict[str, list[str]]) -> None:
    names |= {"n1": ["10.0.0.1"], "n2": ["10.9.0.2"], "to 10.9.0.2": ["10.9.0.1"]}
    assert list(address.candidates("n1", ["n2", "n3"], None))[:2] == ["10.9.0.1", "10.0.0.1"]


def test_a_single_node_is_known_by_its_name_or_by_its_way_out(names: dict[str, list[str]]) -> None:
    names |= {"n1": ["127.0.1.1"], "to 192.0.2.1": ["10.0.0.1"], "to 2001:db8::1": ["fd77::1"]}
    assert list(address.candidates("n1", [], None)) == ["127.0.1.1", "10.0.0.1", "fd77::1"]


@pytest.mark.parametrize("unfit", ["127.0.0.1", "127.0.1.1", "::1", "0.0.0.0", "fe80::1", "192.0.2.77"])
def test_loopbacks_and_addresses_of_others_are_passed_over(unfit: str) -> None:
    assert not address.usable(unfit)


@pytest.fixture
def pair() -> Iterator[int]:
    """A port that is taken, the second of three in a row."""
    for first in range(24000, 30000, 3):
        if all(address.is_free("0.0.0.0", first + n) for n in range(6)):
            with socket.create_server(("", first + 1)):
                yield first
            return
    pytest.fail("no six free ports in a row")


def test_a_block_with_a_taken_port_is_passed_over(pair: int) -> None:
    assert address.free_block("10.0.0.1", range(pair, pair + 6), start=0) == pair + 3
    assert address.free_block("10.0.0.1", range(pair, pair + 6), start=1) == pair + 3
    with pytest.raises(SystemExit, match=f"no 3 free ports in a row in {pair}-{pair + 4}; set RLHF_PORTS"):
        address.free_block("10.0.0.1", range(pair, pair + 5), start=5)


def test_an_address_of_another_machine_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, LAUNCH / "_address.py", "--host=192.0.2.77", "n1"], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == ""
    assert "192.0.2.77: no address by which other nodes reach n1; set RLHF_HEAD_IP" in done.stderr


@pytest.fixture
def nodes(tmp_path: Path) -> list[Any]:
    """Three nodes, of which the last two have started."""
    for task in (1, 2):
        (tmp_path / f"ray-{task}.log").write_text(f"slurm.sh: started on n{task + 1}\n")
    return [wait_nodes.Node(f"n{i + 1}", tmp_path / f"ray-{i}.log") for i in range(3)]


def waits(nodes: list[Any], seen: Any, *, seconds: float = 0, step: int | None = None) -> int:
    complaints = nodes[0].log.parent / "srun.err"
    return wait_nodes.wait(nodes, complaints, seen, seconds=seconds, step=step or os.getpid())


def test_waiting_ends_when_the_last_node_has_joined(nodes: list[Any]) -> None:
    seen = wait_nodes.Seen(alive={"n1", "n3"})
    threading.Timer(0.3, seen.alive.add, ["n2"]).start()
    began = time.monotonic()
    assert waits(nodes, seen, seconds=30) == 0
    assert 0.2 < time.monotonic() - began < 5


def test_each_missing_node_is_named_with_what_is_known(nodes: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    nodes[2].log.write_text("slurm.sh: started on n3\nno such GPU\nslurm.sh: ray ended on n3 with 127\n")
    seen = wait_nodes.Seen(problem="10.0.0.1:20000 is not open")
    assert waits(nodes, seen, seconds=600) == 1, "nobody waits for a node that has ended"
    told = capsys.readouterr().err
    assert told.startswith("3 of 3 nodes did not join Ray")
    assert "n1: no sign of life" in told
    assert "n2: started, but Ray did not join: 10.0.0.1:20000 is not open" in told
    assert "n3: Ray ended there" in told and "ray-2.log: no such GPU" in told


@pytest.mark.parametrize(
    "complaint",
    [
        "srun: error: n2: task 1: Killed",
        "srun: error: Task launch for StepId=1.0 failed on node n2: Socket timed out on send/recv operation",
        "srun: error: Node failure on n2",
    ],
)
def test_what_srun_complains_of_ends_the_waiting(
    complaint: str, nodes: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (nodes[0].log.parent / "srun.err").write_text(f"srun: a remark\n{complaint}\n")
    assert waits(nodes, wait_nodes.Seen(alive={"n1", "n3"}), seconds=600) == 1
    assert f"srun.err: {complaint}" in capsys.readouterr().err


def test_the_end_of_srun_ends_the_waiting(nodes: list[Any]) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert waits(nodes, wait_nodes.Seen(), seconds=600, step=ended.pid) == 1


def is_lost(nodes: list[Any], seen: Any) -> bool:
    return wait_nodes.lost(nodes, nodes[0].log.parent / "srun.err", seen, seconds=0.5) == 0


def test_a_node_is_lost_when_anybody_says_so(nodes: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    everybody = {"n1", "n2", "n3"}
    assert not is_lost(nodes, wait_nodes.Seen(alive=everybody))
    assert is_lost(nodes, wait_nodes.Seen(alive=everybody, gone={"n3"}))
    assert is_lost(nodes, wait_nodes.Seen(reachable=False))
    (nodes[0].log.parent / "srun.err").write_text("srun: error: n2: task 1: Killed\n")
    assert is_lost(nodes, wait_nodes.Seen(alive=everybody))
    (nodes[0].log.parent / "srun.err").unlink()
    nodes[1].log.write_text("slurm.sh: ray ended on n2 with 1\n")
    assert is_lost(nodes, wait_nodes.Seen(alive=everybody))
    assert capsys.readouterr().out.splitlines() == [
        "Ray is gone: n3",
        "Ray is gone: n1",
        "Ray is gone: srun: error: n2: task 1: Killed",
        "Ray is gone: n2",
    ]


def test_a_door_that_nobody_opens_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        there = door.getsockname()
        assert wait_nodes.answers(there)
    assert not wait_nodes.answers(there)

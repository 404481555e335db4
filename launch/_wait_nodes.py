"""Whether all nodes of an allocation have joined Ray. Run by slurm.sh on the first node.

    wait    until all have joined (status 0), or one has ended or the time is up (1, and says which nodes and why)
    lost    until one is missing (0), or the time is up and all are there (1)

A node's task (`_ray_node.sh`) writes a log that srun brings here: a line when it starts, one when its Ray ends. Which
nodes have joined, Ray's control store knows; of a node that has lost its power or its network it learns after a minute,
so that `lost` also knocks at every node's door. Asking the store can block for most of a minute: a thread does. What
srun itself complains of is in `srun.err`: a task that was killed writes no last line.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

POLL_S = 0.2
KNOCK_S = 3.0
LAST_LINES = 15
"""Lines of a node's log that are shown when it did not come up."""
STARTED, ENDED = "slurm.sh: started on ", "slurm.sh: ray ended on "
COMPLAINT = re.compile(r"^srun: error: .*(?:task|node).*$", re.IGNORECASE | re.MULTILINE)
ALIVE = 0
"""`GcsNodeInfo.ALIVE`."""


@dataclass(slots=True)
class Seen:
    """What the thread has learnt."""

    alive: set[str] = field(default_factory=set[str])
    """Names of nodes that live."""
    gone: set[str] = field(default_factory=set[str])
    """Names of nodes that have lived."""
    reachable: bool = True
    """Whether the control store can be reached."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the allocation and the log of its task."""

    name: str
    log: Path

    @property
    def started(self) -> bool:
        return STARTED in read(self.log)

    @property
    def ended(self) -> bool:
        return ENDED in read(self.log)

    def story(self, seen: Seen) -> str:
        """Why this node is not there, as far as its log tells."""
        if self.ended:
            return f"{self.name}: Ray ended there"
        if not self.started:
            return f"{self.name}: no sign of life; srun could not start its task: is the node up?"
        return f"{self.name}: started, but Ray did not join{': ' + seen.problem if seen.problem else ''}"


def watch(address: str, seen: Seen, *, knock: bool) -> None:
    """Keep `seen` up to date, for ever.

    Args:
        knock: at the port of every node that is said to live.
    """
    host, _, port = address.rpartition(":")
    client = None
    while True:
        try:
            # A client that is made before the port is open blocks for 40 s.
            socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()
            seen.reachable = True
            if client is None:
                from ray._raylet import GcsClient

                client = GcsClient(address=address)
            infos = client.get_all_node_info(timeout=5).values()
            seen.alive = {info.node_name for info in infos if info.state == ALIVE}
            seen.gone = {info.node_name for info in infos if info.state != ALIVE} - seen.alive
            seen.problem = ""
            if knock:
                doors = {i.node_name: (i.node_manager_address, i.node_manager_port) for i in infos if i.state == ALIVE}
                seen.gone |= {name for name, door in doors.items() if not answers(door)}
        except OSError as error:
            seen.reachable, seen.problem = False, f"{address} is not open: {error.strerror or error}"
        except Exception as error:
            client, seen.problem = None, f"{address} did not answer: {error}"
        time.sleep(POLL_S)


def answers(door: tuple[str, int]) -> bool:
    try:
        socket.create_connection(door, KNOCK_S).close()
    except OSError:
        return False
    return True


def wait(nodes: list[Node], complaints: Path, seen: Seen, *, seconds: float, step: int) -> int:
    """Until all have joined."""
    begun = time.monotonic()
    names = {node.name for node in nodes}
    while not names <= seen.alive:
        ended = any(node.ended for node in nodes) or COMPLAINT.search(read(complaints)) or not is_running(step)
        if ended or time.monotonic() - begun > seconds:
            missing = [node for node in nodes if node.name not in seen.alive or node.ended]
            waited = f"after {time.monotonic() - begun:.0f} s"
            print(f"{len(missing)} of {len(nodes)} nodes did not join Ray ({waited}):", file=sys.stderr)
            for node in missing:
                print(f"  {node.story(seen)}", file=sys.stderr)
            for log in [node.log for node in missing[:3]] + [complaints]:
                for line in read(log).splitlines()[-LAST_LINES:]:
                    print(f"    {log.name}: {line}", file=sys.stderr)
            return 1
        time.sleep(POLL_S)
    return 0


def lost(nodes: list[Node], complaints: Path, seen: Seen, *, seconds: float) -> int:
    """Until one is missing."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        names = [node.name for node in nodes if node.ended or node.name in seen.gone]
        complaint = COMPLAINT.search(read(complaints))
        if names or complaint or not seen.reachable:
            print(f"Ray is gone: {', '.join(names) or (complaint and complaint[0]) or nodes[0].name}")
            return 0
        time.sleep(POLL_S)
    return 1


def read(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("wait", "lost"))
    parser.add_argument("address", help="of Ray's control store, HOST:PORT")
    parser.add_argument("--logs", type=Path, required=True, help="folder with ray-0.log, ray-1.log, …")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--step", type=int, default=os.getpid(), help="process id of the srun of all tasks")
    parser.add_argument("nodes", nargs="+", help="names of the nodes, in the order of their tasks")
    given = parser.parse_args()
    nodes = [Node(name, given.logs / f"ray-{i}.log") for i, name in enumerate(given.nodes)]
    complaints, seen = given.logs / "srun.err", Seen()
    watching = {"knock": given.what == "lost"}
    threading.Thread(target=watch, args=(given.address, seen), kwargs=watching, daemon=True).start()
    if given.what == "lost":
        return lost(nodes, complaints, seen, seconds=given.seconds)
    return wait(nodes, complaints, seen, seconds=given.seconds, step=given.step)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the thread may sit in a call of Ray's that cannot be interrupted

"""Where Ray's head listens: `HOST PORT`, printed for slurm.sh on the first node of an allocation.

HOST is the address by which the other nodes reach this one, never a loopback (Debian maps a machine's own name to one);
PORT begins a block of free ports. Different jobs begin to look in different places, because two that start on a node at
the same moment would find the same ports free.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

BLOCK = 3
"""Ports in a row: GCS, client server, dashboard. Ray chooses all others by itself."""
ANYWHERE = ("192.0.2.1", "2001:db8::1")
"""Addresses for documentation. Nothing is sent to them: connecting a datagram socket only asks for the route."""


def candidates(name: str, peers: Sequence[str], interface: str | None) -> Iterator[str]:
    """Addresses of this node, the best first.

    Args:
        name: of this node.
        peers: names of the others.
        interface: to use, whatever the routes say.
    """
    if interface is not None:
        yield from on_interface(interface)
        return
    for peer in peers[:1]:
        yield from (route for address in resolve(peer) if (route := route_to(address)) is not None)
    yield from resolve(name)
    yield from (route for address in ANYWHERE if (route := route_to(address)) is not None)


def resolve(name: str) -> list[str]:
    """Addresses of a name, of the fourth version of the protocol first."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except OSError:
        return []
    return [str(where[0]) for family, *_, where in sorted(found, key=lambda entry: entry[0] != socket.AF_INET)]


def route_to(address: str) -> str | None:
    """The own address from which packets to another one leave; None when there is no way."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def on_interface(interface: str) -> list[str]:
    """Addresses of a network interface, as `ip` tells them."""
    told = subprocess.run(["ip", "-json", "addr", "show", "dev", interface], capture_output=True, text=True)
    if told.returncode:
        sys.exit(f"error: RLHF_IFNAME: {told.stderr.strip()}")
    infos = [info for link in json.loads(told.stdout) for info in link.get("addr_info", [])]
    return [info["local"] for info in sorted(infos, key=lambda info: info["family"] != "inet")]


def usable(address: str) -> bool:
    """Whether other nodes can reach this one by it."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return not (found.is_loopback or found.is_link_local or found.is_unspecified) and is_free(address, 0)


def free_block(host: str, ports: range, *, start: int) -> int:
    """The first of `BLOCK` ports in a row that nobody listens on.

    Args:
        host: an address of this node, for the version of the protocol.
        ports: to choose from.
        start: any number; where in the range to begin.
    """
    blocks = range(ports.start, ports.stop - BLOCK + 1, BLOCK)
    for n in range(len(blocks)):
        first = blocks[(start + n) % len(blocks)]
        if all(is_free("::" if ":" in host else "0.0.0.0", first + offset) for offset in range(BLOCK)):
            return first
    sys.exit(f"error: no {BLOCK} free ports in a row in {ports.start}-{ports.stop - 1}; set RLHF_PORTS=FIRST-LAST")


def is_free(host: str, port: int) -> bool:
    """Whether a socket can be bound there."""
    with ExitStack() as stack:
        probe = stack.enter_context(socket.socket(family_of(host), socket.SOCK_STREAM))
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", help="use this address")
    parser.add_argument("--interface", help="use an address of this network interface")
    parser.add_argument("--ports", default="20000-31999", metavar="FIRST-LAST")
    parser.add_argument("--start", type=int, default=0, help="where in the range to begin")
    parser.add_argument("nodes", nargs="+", help="names of all nodes, this one first")
    given = parser.parse_args()
    name, *peers = given.nodes
    hosts = [given.host] if given.host else candidates(name, peers, given.interface or None)
    host = next((address for address in hosts if usable(address)), None)
    if host is None:
        what = given.host or given.interface or name
        sys.exit(f"error: {what}: no address by which other nodes reach {name}; set RLHF_HEAD_IP or RLHF_IFNAME")
    first, _, last = given.ports.partition("-")
    print(host, free_block(host, range(int(first), int(last) + 1), start=given.start))


if __name__ == "__main__":
    main()

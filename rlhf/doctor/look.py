"""Gathers the facts. Everything that could hang or crash runs in a process of its own, with a deadline."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.utils import canonicalize_name

from rewards.pool import WorkerError, WorkerPool
from rlhf.doctor.findings import Facts, Gpu, Machine, Needs, Network, Probe, Sandbox, Torch
from rlhf.doctor.packages import DISTRIBUTIONS, EXTRAS, FITTING, OURS, VISION

IMPORT_S = 120.0
"""Deadline of one import; vLLM's takes 12 s on an idle core."""
CONNECT_S = 2.0
TRANSFORMERS = "from transformers import AutoModelForCausalLM, LlamaForCausalLM"
TORCH = """
import json, torch, torch.distributed as dist
error, gpus = "", []
try:
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        with torch.cuda.device(i):
            bf16 = torch.cuda.is_bf16_supported()
        gpus.append({"name": torch.cuda.get_device_name(i), "total": total, "free": free, "bf16": bf16})
    if torch.version.cuda and not gpus:
        torch.cuda.init()
except Exception as failure:
    error = str(failure).strip().splitlines()[0]
nccl = ".".join(map(str, torch.cuda.nccl.version())) if gpus and dist.is_nccl_available() else ""
gloo = dist.is_available() and dist.is_gloo_available()
print(json.dumps({"cuda": torch.version.cuda or "", "gpus": gpus, "error": error, "nccl": nccl, "gloo": gloo}))
"""
"""Prints the fields of `Torch`."""
CGROUPS = {
    "memory": ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "quota": ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
    "period": ("/sys/fs/cgroup/cpu/cpu.cfs_period_us",),
}


def facts(needs: Needs, *, folder: Path) -> Facts:
    """Look at everything. Takes as long as the imports, half a minute with vLLM.

    Args:
        needs: what is asked of this machine.
        folder: where runs would be written.
    """
    # The first on the path is what an import finds.
    found = reversed(list(importlib.metadata.distributions()))
    installed = {str(canonicalize_name(d.name)): d.version for d in found if d.name}
    probes = imports(installed)
    torch = probes.get("torch")
    env = dict(os.environ)
    return Facts(
        needs=needs,
        installed=installed,
        requires=requirements(installed),
        probes=probes,
        torch=None if torch is None or torch.error else _torch(torch.output),
        machine=machine(folder),
        network=network(env),
        sandbox=sandbox(),
        env=env,
    )


def requirements(installed: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """What we and the packages that have to fit declare; ours from pyproject.toml where it lies beside the code."""
    out: dict[str, Sequence[str]] = {}
    for name in FITTING:
        if name in installed:
            out[name] = importlib.metadata.requires(name) or ()
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.is_file():
        out[OURS] = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    elif OURS in installed:
        out[OURS] = importlib.metadata.requires(OURS) or ()
    return out


def imports(installed: Mapping[str, str]) -> dict[str, Probe]:
    """Try what is installed and could be broken, a few at a time."""
    code = {"torch": TORCH, "transformers": TRANSFORMERS, **{name: f"import {name}" for name in (*EXTRAS, *VISION)}}
    there = [name for name in code if any(d in installed for d in DISTRIBUTIONS.get(name, (name,)))]
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as threads:
        # The slow ones first, so that the last one to end is not a slow one.
        order = sorted(there, key=lambda name: name not in ("vllm", "deepspeed", "transformers"))
        return dict(zip(order, threads.map(lambda name: probe(code[name]), order), strict=True))


def probe(code: str, *, timeout_s: float = IMPORT_S) -> Probe:
    """Run a line of Python in a fresh interpreter."""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1"}
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Probe(seconds=timeout_s, error=f"not done after {timeout_s:.0f} s")
    error = ""
    if done.returncode < 0:
        error = f"killed by signal {-done.returncode}"
    elif done.returncode:
        error = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return Probe(seconds=time.monotonic() - started, error=error, output=done.stdout)


def machine(folder: Path) -> Machine:
    """This host, as the kernel tells it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    temp = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    here, there = shutil.disk_usage(_existing(folder)), shutil.disk_usage(_existing(Path(temp)))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    told = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    available = int(told["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in told else memory
    shm = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
    flags = next((line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    limit = _first(CGROUPS["memory"]).strip()
    driver = _read("/proc/driver/nvidia/version")
    return Machine(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        cores=len(os.sched_getaffinity(0)),
        quota=_quota(),
        load=os.getloadavg()[0],
        memory=memory,
        memory_available=available,
        memory_limit=int(limit) if limit.isdecimal() else None,
        shm=shm,
        files_soft=soft,
        files_hard=hard,
        here=str(folder.absolute()),
        here_free=here.free,
        temp=temp,
        temp_free=there.free,
        temp_total=there.total,
        cpu_flags=frozenset(flags.split()),
        nvidia=any(Path("/dev").glob("nvidia[0-9]*")) or bool(driver),
        driver=next((word for word in driver.split() if re.fullmatch(r"\d+(\.\d+)+", word)), ""),
    )


def network(env: Mapping[str, str]) -> Network:
    """Names and sockets of this host."""
    name = platform.node()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        address = ""
    token = Path(env.get("HOME", "/")) / ".ray" / "auth_token"
    return Network(
        loopback=_loopback(),
        hostname=name,
        address=address,
        ray_token=str(token) if token.is_file() else "",
        ray_address=_unreachable(env.get("RAY_ADDRESS", "")),
    )


def sandbox() -> Sandbox:
    """Start a reward worker and ask it."""
    try:
        with WorkerPool() as pool:
            held = pool.protections()
    except WorkerError as error:
        return Sandbox(network="", dies_with_parent=False, memory_limited=False, error=str(error))
    return Sandbox(network=held.network, dies_with_parent=held.dies_with_parent, memory_limited=held.memory_limited)


def _torch(output: str) -> Torch:
    told = json.loads(output.splitlines()[-1])
    return Torch(**told | {"gpus": tuple(Gpu(**gpu) for gpu in told["gpus"])})


def _quota() -> float | None:
    """Cores' worth of time of a container, from either version of control groups."""
    told = _first(CGROUPS["quota"]).split()
    if not told or not told[0].isdecimal():
        return None
    period = told[1] if len(told) > 1 else _first(CGROUPS["period"]).strip()
    return int(told[0]) / int(period) if period.isdecimal() and int(period) else None


def _loopback() -> str:
    """Listen on a port and reach it."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=CONNECT_S).close()
    except OSError as error:
        return str(error)
    return ""


def _unreachable(address: str) -> str:
    """Why nobody listens at `host:port`; other forms of an address are not looked at."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        return str(error)
    return ""


def _existing(folder: Path) -> Path:
    """A folder, or the nearest one above it that is there."""
    return next(f for f in (folder.absolute(), *folder.absolute().parents) if f.is_dir())


def _first(paths: Sequence[str]) -> str:
    return next((text for path in paths if (text := _read(path))), "")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""

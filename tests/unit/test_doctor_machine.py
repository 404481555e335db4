"""GPUs, the machine, and the network: what is wrong, how bad it is for what is asked, and what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from patient import GIB, H100, healthy, machine, needing, network, on_cluster, with_gpus

from rlhf.doctor import devices, host
from rlhf.doctor import network as net
from rlhf.doctor.findings import Facts, Finding, Level, Sandbox, Torch


def seen(finding: Finding | None, level: Level, *words: str) -> None:
    assert finding is not None and finding.level == level, finding
    told = f"{finding.found} {finding.fix}"
    assert all(word in told for word in words), told


def on(facts: Facts, **changes: Any) -> Facts:
    return replace(facts, machine=replace(facts.machine, **changes))


@pytest.mark.parametrize("facts", [healthy(), on_cluster(), with_gpus(H100, H100)], ids=["base", "cluster", "gpus"])
def test_a_good_machine_gets_no_warning(facts: Facts) -> None:
    found = [check(facts) for check in (*devices.CHECKS, *host.CHECKS, *net.CHECKS)]
    assert {f.level for f in found if f is not None} <= {Level.OK, Level.NOTE}
    assert all(f.fix for f in found if f is not None and f.level == Level.WARNING)


def test_gpus_are_counted_and_a_machine_without_is_fine_unless_one_is_asked_for() -> None:
    seen(devices.gpu(with_gpus(H100, H100)), Level.OK, "2 × NVIDIA H100, 80 GiB", "CUDA 13.0", "driver 580.95.05")
    seen(devices.gpu(healthy()), Level.OK, "none")
    seen(devices.gpu(healthy(needs=needing(gpu="device=cuda"))), Level.PROBLEM, "device=cuda asks", "device=auto")


@pytest.mark.parametrize(
    ("torch", "words"),
    [
        (Torch(), ("torch is a build for CPUs", "CUDA build")),
        (
            Torch(cuda="13.0", error="driver too old"),
            ("torch cannot use it: driver too old", "update the NVIDIA driver"),
        ),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_a_problem_where_one_is_asked_for(torch: Torch, words: tuple[str, ...]) -> None:
    facts = with_gpus(torch=torch)
    seen(devices.gpu(facts), Level.WARNING, *words)
    seen(devices.gpu(replace(facts, needs=needing(gpu="device=cuda"))), Level.PROBLEM, *words)


def test_a_busy_gpu_is_named() -> None:
    busy = replace(H100, free=20 * GIB)
    seen(devices.free_memory(with_gpus(H100, busy)), Level.WARNING, "GPU 1: 20 of 80 GiB", "CUDA_VISIBLE_DEVICES")
    seen(devices.free_memory(with_gpus(H100)), Level.OK)
    assert devices.free_memory(healthy()) is None


def test_bfloat16_is_looked_for_where_roles_compute() -> None:
    seen(devices.bfloat16(with_gpus(H100)), Level.OK)
    seen(devices.bfloat16(with_gpus(replace(H100, bf16=False))), Level.NOTE, "float32")
    seen(devices.bfloat16(healthy()), Level.OK)
    seen(devices.bfloat16(healthy(machine=machine(cpu_flags=frozenset({"avx2"})))), Level.NOTE, "not on this CPU")


def test_ranks_need_nccl_on_gpus_and_gloo_on_cpus() -> None:
    seen(devices.collectives(with_gpus(H100)), Level.OK, "NCCL 2.28.9")
    lacking = with_gpus(H100, torch=Torch(cuda="13.0", gpus=(H100,)))
    seen(devices.collectives(lacking), Level.WARNING, "NCCL")
    seen(devices.collectives(replace(lacking, needs=needing("deepspeed"))), Level.PROBLEM)
    seen(devices.collectives(healthy(torch=Torch(gloo=False))), Level.WARNING, "gloo")


def test_nothing_is_said_of_devices_when_torch_cannot_be_asked() -> None:
    assert [check(healthy(torch=None)) for check in devices.CHECKS] == [None] * len(devices.CHECKS)


@pytest.mark.parametrize(
    ("env", "changes", "level", "words"),
    [
        ({}, {}, Level.OK, ("8 cores",)),
        ({"OMP_NUM_THREADS": "8"}, {}, Level.OK, ("OMP_NUM_THREADS=8",)),
        ({"OMP_NUM_THREADS": "9"}, {}, Level.WARNING, ("wait for each other", "export OMP_NUM_THREADS=8")),
        ({"OMP_NUM_THREADS": "many"}, {}, Level.WARNING, ("'many'", "export OMP_NUM_THREADS=8")),
        ({}, {"quota": 2.5}, Level.WARNING, ("may use 2.5", "threads=3")),
        ({"OMP_NUM_THREADS": "3"}, {"quota": 2.5}, Level.OK, ("may use 2.5",)),
        ({}, {"load": 9.0}, Level.NOTE, ("load 9.0",)),
    ],
)
def test_threads_are_compared_with_cores(
    env: dict[str, str], changes: dict[str, Any], level: Level, words: tuple[str, ...]
) -> None:
    seen(host.cores(on(healthy(env=env), **changes)), level, *words)


def test_little_memory_is_a_warning_also_when_a_container_limits_it() -> None:
    seen(host.memory(healthy()), Level.OK, "64.0 GiB, 60.0 free")
    seen(host.memory(on(healthy(), memory_available=GIB)), Level.WARNING, "1.0 free", "rlhf plan")
    seen(host.memory(on(healthy(), memory_limit=GIB)), Level.WARNING, "may use 1.0")
    seen(host.memory(on(healthy(), memory_limit=2**60)), Level.OK)


def test_shared_memory_is_measured_against_the_object_store() -> None:
    seen(host.shared_memory(on_cluster()), Level.OK, "takes 19.2")
    small = on(on_cluster(), shm=64 * 2**20)
    seen(host.shared_memory(small), Level.WARNING, "takes 9.3", "moves to /tmp", "--shm-size=11g")
    own = replace(small, needs=needing("ray", object_store=32 * 2**20))
    seen(host.shared_memory(own), Level.OK, "takes 0.0")
    seen(host.shared_memory(on(on_cluster(), memory=10**12, shm=500 * 10**9)), Level.OK, "takes 186.3")
    assert host.shared_memory(healthy()) is None


def test_few_open_files_are_few_for_ray() -> None:
    seen(host.open_files(healthy()), Level.OK)
    seen(host.open_files(on(healthy(), files_soft=256)), Level.WARNING, "ulimit -n 65536")
    few = {"files_soft": 4096, "files_hard": 4096}
    seen(host.open_files(on(healthy(), **few)), Level.OK)
    seen(host.open_files(on(on_cluster(), **few)), Level.WARNING, "LimitNOFILE")
    seen(host.open_files(on(on_cluster(needs=needing("ray")), **few)), Level.PROBLEM)


def test_a_full_disk_is_a_problem_for_runs_and_for_ray() -> None:
    seen(host.disk(healthy()), Level.OK, "/home/me/runs")
    seen(host.disk(on(healthy(), here_free=5 * GIB)), Level.WARNING, "checkpoints.keep")
    seen(host.disk(on(healthy(), here_free=GIB // 2)), Level.PROBLEM, "run.folder")
    full = {"temp_free": GIB, "temp_total": 100 * GIB}
    seen(host.temporary(on(on_cluster(), **full)), Level.WARNING, "95% full", "RAY_TMPDIR")
    assert host.temporary(on(healthy(), **full)) is None


@pytest.mark.parametrize(
    ("held", "level", "words"),
    [
        (Sandbox(network="isolated", dies_with_parent=True, memory_limited=True), Level.OK, ()),
        (
            Sandbox(network="open: Operation not permitted", dies_with_parent=True, memory_limited=True),
            Level.WARNING,
            ("Operation not permitted", "max_user_namespaces"),
        ),
        (Sandbox(network="isolated", dies_with_parent=False, memory_limited=False), Level.NOTE, ("outlive", "memory")),
        (
            Sandbox(network="", dies_with_parent=False, memory_limited=False, error="start: no fork"),
            Level.PROBLEM,
            ("start: no fork",),
        ),
    ],
)
def test_graders_are_held_as_the_kernel_permits(held: Sandbox, level: Level, words: tuple[str, ...]) -> None:
    seen(host.sandbox(healthy(sandbox=held)), level, *words)


def test_loopback_must_work() -> None:
    seen(net.loopback(healthy(network=network(loopback="Cannot assign"))), Level.PROBLEM, "Cannot assign", "lo up")


def test_a_name_that_leads_to_loopback_is_wrong_on_several_nodes_only() -> None:
    facts = healthy(network=network(address="127.0.1.1"))
    seen(net.hostname(facts), Level.OK, "127.0.1.1")
    seen(net.hostname(replace(facts, needs=needing("ray", nodes=2))), Level.WARNING, "cannot reach", "GLOO_SOCKET")
    seen(net.hostname(replace(facts, env={"SLURM_JOB_NUM_NODES": "2"})), Level.WARNING)
    seen(net.hostname(healthy(network=network(address=""))), Level.NOTE, "no address")
    many = healthy(network=network(address=""), needs=needing("ray", nodes=2))
    seen(net.hostname(many), Level.WARNING, "/etc/hosts")


def test_a_proxy_must_not_get_what_is_said_on_this_machine() -> None:
    proxied = {"HTTP_PROXY": "http://proxy:3128"}
    seen(net.proxy(on_cluster(env=proxied)), Level.WARNING, "http_proxy", "export no_proxy=localhost,127.0.0.1")
    seen(net.proxy(on_cluster(env={**proxied, "no_proxy": "localhost,127.0.0.1"})), Level.OK)
    seen(net.proxy(on_cluster(env={**proxied, "NO_PROXY": "*"})), Level.OK)
    assert net.proxy(healthy(env=proxied)) is None and net.proxy(on_cluster()) is None


def test_a_token_file_of_ray_is_a_trap_unless_the_mode_is_set() -> None:
    left = network(ray_token="/home/me/.ray/auth_token")
    seen(net.ray_authentication(on_cluster(network=left)), Level.WARNING, "/home/me/.ray/auth_token", "RAY_AUTH_MODE")
    seen(net.ray_authentication(on_cluster(network=left, env={"RAY_AUTH_MODE": "token"})), Level.OK)
    assert net.ray_authentication(healthy(network=left)) is None
    assert net.ray_authentication(on_cluster()) is None


def test_a_cluster_that_does_not_answer_is_a_problem_where_it_is_needed() -> None:
    facts = on_cluster(env={"RAY_ADDRESS": "10.0.0.1:6379"}, network=network(ray_address="refused"))
    seen(net.ray_address(facts), Level.WARNING, "10.0.0.1:6379 does not answer: refused", "unset RAY_ADDRESS")
    seen(net.ray_address(replace(facts, needs=needing("ray"))), Level.PROBLEM)
    seen(net.ray_address(replace(facts, network=network())), Level.OK)
    assert net.ray_address(on_cluster()) is None


def test_a_long_temporary_folder_leaves_no_room_for_sockets() -> None:
    assert net.socket_paths(on_cluster()) is None
    deep = on(on_cluster(), temp="/scratch/" + "x" * 60)
    seen(net.socket_paths(deep), Level.WARNING, "too long", "RAY_TMPDIR")
    limit = net.SOCKET_PATH - len(net.SESSION)
    assert net.socket_paths(on(on_cluster(), temp="/" + "x" * (limit - 1))) is None
    assert net.socket_paths(on(on_cluster(), temp="/" + "x" * limit)) is not None


def test_vllm_asks_the_hub_about_models_that_are_here_unless_told_not_to() -> None:
    local = needing("vllm", offline_model="model.init=tiny")
    seen(net.hub(on_cluster(needs=local)), Level.WARNING, "model.init=tiny", "export HF_HUB_OFFLINE=1")
    seen(net.hub(on_cluster(needs=local, env={"HF_HUB_OFFLINE": "1"})), Level.OK)
    seen(net.hub(on_cluster()), Level.NOTE)
    assert net.hub(on_cluster(needs=needing(offline_model="model.init=tiny"))) is None
    assert net.hub(healthy(needs=local)) is None

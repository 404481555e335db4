"""The machine: cores, memory, shared memory, disks, limits, and the cell that graders run in."""

from __future__ import annotations

import math

from rlhf.doctor.findings import Facts, Finding, Level

GIB = 2**30
LITTLE_MEMORY = 2 * GIB
LITTLE_DISK, NO_DISK = 10 * GIB, GIB
FULL = 0.95
"""Share of a disk beyond which Ray moves no objects to it (its `local_fs_capacity_threshold`)."""
FEW_FILES, FEW_FILES_RAY = 1024, 8192
STORE_SHARE, STORE_CAP, STORE_SMALL = 0.3, 200 * 10**9, 10**10
"""Ray's object store takes this share of memory up to the cap, and no more than /dev/shm has beyond the last figure."""


def cores(facts: Facts) -> Finding:
    """Cores, and whether threads are as many."""
    machine, threads = facts.machine, facts.env.get("OMP_NUM_THREADS", "")
    may = machine.cores if machine.quota is None else min(machine.cores, math.ceil(machine.quota))
    there = f"{machine.cores} cores" if machine.cores != 1 else "1 core"
    if may < machine.cores:
        there += f", of which this container may use {machine.quota:g}"
    if threads and (not threads.isdecimal() or int(threads) < 1):
        found = f"OMP_NUM_THREADS is '{threads}', which is no number of threads"
        return Finding(title="cores", level=Level.WARNING, found=found, fix=f"export OMP_NUM_THREADS={may}")
    if threads and int(threads) > may:
        found = f"{there}, but OMP_NUM_THREADS={threads}: threads will wait for each other"
        return Finding(title="cores", level=Level.WARNING, found=found, fix=f"export OMP_NUM_THREADS={may}")
    if not threads and may < machine.cores:
        fix = f"export OMP_NUM_THREADS={may}, or set threads={may} in the config"
        return Finding(title="cores", level=Level.WARNING, found=f"{there}; torch would start more threads", fix=fix)
    told = f"{there}, OMP_NUM_THREADS={threads}" if threads else there
    if machine.load >= machine.cores:
        busy = f"{told}; other processes keep them busy (load {machine.load:.1f})"
        return Finding(title="cores", level=Level.NOTE, found=f"{busy}: expect runs to take longer")
    return Finding(title="cores", level=Level.OK, found=told)


def memory(facts: Facts) -> Finding:
    """Main memory."""
    machine = facts.machine
    told = f"{machine.memory / GIB:.1f} GiB, {machine.memory_available / GIB:.1f} free"
    if machine.memory_limit is not None and machine.memory_limit < machine.memory:
        told += f"; this container may use {machine.memory_limit / GIB:.1f}"
    if min(machine.memory_available, machine.memory_limit or machine.memory) < LITTLE_MEMORY:
        fix = "end other processes, or use a machine with more; rlhf plan CONFIG says what a run needs"
        return Finding(title="memory", level=Level.WARNING, found=told, fix=fix)
    return Finding(title="memory", level=Level.OK, found=told)


def shared_memory(facts: Facts) -> Finding | None:
    """/dev/shm against what Ray's object store takes from it. Source: `resolve_object_store_memory` of Ray 2.60."""
    if "ray" not in facts.installed and not facts.wanted("ray"):
        return None
    machine = facts.machine
    memory = min(machine.memory, machine.memory_limit or machine.memory)
    store = facts.needs.object_store or min(STORE_SHARE * memory, STORE_CAP, max(STORE_SMALL, 0.95 * machine.shm))
    told = f"{machine.shm / GIB:.1f} GiB free in /dev/shm, Ray's object store takes {store / GIB:.1f}"
    if machine.shm >= store:
        return Finding(title="shared memory", level=Level.OK, found=told)
    fix = f"docker run --shm-size={math.ceil(1.1 * store / GIB)}g, or mount -o remount,size=… /dev/shm"
    return Finding(
        title="shared memory",
        level=Level.WARNING,
        found=f"{told}: it moves to {machine.temp}, which is slow",
        fix=fix,
    )


def open_files(facts: Facts) -> Finding:
    """RLIMIT_NOFILE. Ray raises the soft limit to the hard one by itself."""
    machine = facts.machine
    told = f"{machine.files_soft} at once, {machine.files_hard} at most"
    if machine.files_soft < FEW_FILES:
        return Finding(title="open files", level=Level.WARNING, found=told, fix=f"ulimit -n {machine.files_hard}")
    if machine.files_hard < FEW_FILES_RAY and "ray" in facts.installed:
        fix = "raise the hard limit (LimitNOFILE, limits.conf, docker run --ulimit nofile=65536)"
        found = f"{told}: few for Ray, which opens some per actor"
        return Finding(title="open files", level=facts.bad("ray"), found=found, fix=fix)
    return Finding(title="open files", level=Level.OK, found=told)


def disk(facts: Facts) -> Finding:
    """Where runs are written."""
    machine = facts.machine
    told = f"{machine.here_free / GIB:.1f} GiB free in {machine.here}"
    if machine.here_free < NO_DISK:
        fix = "free some, or set run.folder to another disk"
        return Finding(title="disk", level=Level.PROBLEM, found=f"{told}: checkpoints will not fit", fix=fix)
    if machine.here_free < LITTLE_DISK:
        fix = "free some, set run.folder to another disk, or lower checkpoints.keep"
        return Finding(title="disk", level=Level.WARNING, found=told, fix=fix)
    return Finding(title="disk", level=Level.OK, found=told)


def temporary(facts: Facts) -> Finding | None:
    """Where Ray keeps its sockets and moves objects to."""
    if "ray" not in facts.installed:
        return None
    machine = facts.machine
    if machine.temp_free < (1 - FULL) * machine.temp_total:
        found = (
            f"{machine.temp} is more than {FULL:.0%} full: Ray moves no objects there and stops when its store is full"
        )
        fix = f"free {machine.temp}, or point RAY_TMPDIR to another disk"
        return Finding(title="temporary files", level=facts.bad("ray"), found=found, fix=fix)
    return Finding(
        title="temporary files", level=Level.OK, found=f"{machine.temp_free / GIB:.1f} GiB free in {machine.temp}"
    )


def sandbox(facts: Facts) -> Finding:
    """What holds for processes that grade model output (`rewards.worker`)."""
    held = facts.sandbox
    if held.error:
        found, fix = f"no worker starts: {held.error}", "mend what it names; rewards cannot be graded without"
        return Finding(title="reward workers", level=Level.PROBLEM, found=found, fix=fix)
    if held.network != "isolated":
        fix = (
            "allow user namespaces: sysctl user.max_user_namespaces=10000,"
            " kernel.apparmor_restrict_unprivileged_userns=0; in Docker --security-opt seccomp=unconfined"
        )
        found = f"graded code can reach the network ({held.network})"
        return Finding(title="reward workers", level=Level.WARNING, found=found, fix=fix)
    lacks = [
        text
        for holds, text in (
            (held.dies_with_parent, "they outlive a killed run"),
            (held.memory_limited, "their memory is not limited"),
        )
        if not holds
    ]
    if lacks:
        return Finding(title="reward workers", level=Level.NOTE, found=f"start, without network; {', '.join(lacks)}")
    return Finding(title="reward workers", level=Level.OK, found="killable, without network, with limited memory")


CHECKS = (cores, memory, shared_memory, open_files, disk, temporary, sandbox)

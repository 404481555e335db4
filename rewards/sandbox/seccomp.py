"""A seccomp filter: system calls that a confined process may no longer make. It binds what the process starts, too.

Source: seccomp(2), "Seccomp BPF" of the kernel's documentation. The filter names what is refused; everything else goes
through, so that programs of any kind run. Refused calls fail with EPERM, as if this user lacked the right; `clone3`,
whose flags a filter cannot see, with ENOSYS, upon which the C library takes `clone`. Calls in another architecture's
numbering kill the process. Refused always:

  * looking into other processes (`ptrace`, `process_vm_readv`, `pidfd_getfd`), new namespaces and mounts, keys, BPF,
    performance counters, modules, clocks, and all the like that only a system's owner needs;
  * `io_uring`, whose operations pass by filters; memory files, which no limit counts.

The rest depends on which other layers there are, see `Refused`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from rewards.sandbox import kernel

_SYSTEM = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "clock_settime": (227, 112),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "fanotify_init": (300, 262),
    "iopl": (172, None),
    "ioperm": (173, None),
}
_MEMORY_FILES = {"memfd_create": (319, 279), "memfd_secret": (447, 447)}
_NETWORK = {"socket": (41, 198)}
_PROCESSES = {"fork": (57, None), "vfork": (58, None)}
_GROUPS = {"setsid": (112, 157), "setpgid": (109, 154)}
_OTHERS = {
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
_SIGNALS = {
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
}
_ATTRIBUTES = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}
_CLONE, _CLONE3, _PRLIMIT = (56, 220), (435, 435), (302, 261)
_THREAD, _NAMESPACES = 0x0001_0000, 0x7E02_0080

_AUDIT_ARCHITECTURE = (0xC000_003E, 0xC000_00B7)
_X32 = 0x4000_0000
"""Numbers from here on are those of x86-64's smaller sibling."""
_FILTER_MODE = 2
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _FAIL = 0x7FFF_0000, 0x8000_0000, 0x0005_0000


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What a filter refuses besides what it always does."""

    network: bool = True
    """Sockets of every kind; `socketpair`, which reaches nobody, stays."""
    processes: bool = False
    """All new processes; threads stay. Where nothing else limits their number."""
    groups: bool = True
    """Leaving the process group. Where it is the group that is killed."""
    signals: bool = False
    """Signals to any process but itself. Where neither namespace nor Landlock keeps them in."""
    others: bool = True
    """Priorities, processors and limits of other processes, and memory shared by number. Where others are in reach."""
    attributes: bool = False
    """Modes, owners, times and extended attributes of files. Where Landlock alone guards files: it lets these."""
    memory_files: bool = True


def install(refused: Refused) -> None:
    """Filter this process, for good. It must have given up new privileges.

    Raises:
        OSError: the kernel has no filters, or this is an architecture whose numbers are not known.
    """
    if kernel.ARCHITECTURE is None:
        raise OSError(errno.ENOSYS, "no table of system calls for this architecture")
    instructions = program(refused, column=kernel.ARCHITECTURE, own=os.getpid())
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    described = _Program(len(instructions) // _INSTRUCTION.size, ctypes.addressof(buffer))
    kernel.prctl(kernel.PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(described))


def program(refused: Refused, *, column: int, own: int) -> bytes:
    """The filter's instructions.

    Args:
        column: of the tables of numbers.
        own: number of the process that may signal itself.
    """
    tables = [_SYSTEM]
    for asked, table in (
        (refused.network, _NETWORK),
        (refused.processes, _PROCESSES),
        (refused.groups, _GROUPS),
        (refused.others, _OTHERS),
        (refused.attributes, _ATTRIBUTES),
        (refused.memory_files, _MEMORY_FILES),
    ):
        tables += [table] if asked else []
    out = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_IF_EQUAL, _AUDIT_ARCHITECTURE[column], then=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_IF_AT_LEAST, _X32, otherwise=1),
        _step(_RETURN, _KILL),
    ]
    for number in [entry[column] for table in tables for entry in table.values()]:
        if number is not None:
            out += [_step(_IF_EQUAL, number, otherwise=1), _step(_RETURN, _FAIL | errno.EPERM)]
    out += [_step(_IF_EQUAL, _CLONE3[column], otherwise=1), _step(_RETURN, _FAIL | errno.ENOSYS)]
    out += _on_argument(_CLONE[column], [_step(_IF_ANY_BIT, _NAMESPACES, otherwise=1)])
    if refused.processes:
        out += _on_argument(_CLONE[column], [_step(_IF_ANY_BIT, _THREAD, then=1)])
    only_itself = [_step(_IF_EQUAL, own, then=2), _step(_IF_EQUAL, 0, then=1)]
    out += _on_argument(_PRLIMIT[column], only_itself)
    if refused.signals:
        for entry in _SIGNALS.values():
            out += _on_argument(entry[column], [_step(_IF_EQUAL, own, then=1)])
    return b"".join([*out, _step(_RETURN, _ALLOW)])


def _on_argument(number: int, test: list[bytes]) -> list[bytes]:
    """Refuse a call whose first argument a test does not let pass: it skips one instruction to let the call go."""
    body = [_step(_LOAD, _FIRST_ARGUMENT), *test, _step(_RETURN, _FAIL | errno.EPERM), _step(_LOAD, _NUMBER)]
    return [_step(_IF_EQUAL, number, otherwise=len(body)), *body]


def _step(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; a comparison skips `then` or `otherwise` instructions."""
    return _INSTRUCTION.pack(code, then, otherwise, value)


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

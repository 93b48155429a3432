"""Which system calls an agent's command may not use.

Landlock restricts files, but neither every signal nor kernel features that are often attacked. The
filter closes what it can see: the number of a call and its arguments, but no path. So it cannot
limit `chmod`, which agents need, to the sandbox; see `graphton.access`. Without capabilities,
`chown` can only give a file to another group of the user.
"""

import errno
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from graphton import bpf

_X86_64: Final = "x86_64"
_AARCH64: Final = "aarch64"

_AUDIT_ARCHITECTURES: Final = {_X86_64: 0xC000003E, _AARCH64: 0xC00000B7}
"""From linux/audit.h."""

_X32_BIT: Final = 0x40000000
"""Set in the numbers of x86_64's second, rarely used interface."""

# From asm/unistd.h of each architecture. None: it does not have the call.
_NUMBERS: Final[dict[str, tuple[int | None, int | None]]] = {
    # name: (x86_64, aarch64)
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fcntl": (72, 25),
    "file_setattr": (469, 469),
    "finit_module": (313, 273),
    "fremovexattr": (199, 16),
    "fsconfig": (431, 431),
    "fsetxattr": (190, 7),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "listen": (50, 201),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open": (2, None),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "openat": (257, 56),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "removexattr": (197, 14),
    "removexattrat": (466, 466),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "semget": (64, 190),
    "sendmmsg": (307, 269),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "setxattr": (188, 5),
    "setxattrat": (463, 463),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmget": (29, 194),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "tkill": (200, 130),
    "truncate": (76, 45),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}

_NEVER: Final = (
    *("acct", "add_key", "bpf", "chroot", "delete_module", "fanotify_init", "finit_module"),
    *("fsconfig", "fsmount", "fsopen", "fspick", "init_module", "kcmp", "kexec_file_load"),
    *("kexec_load", "keyctl", "migrate_pages", "mount", "mount_setattr", "move_mount"),
    *("move_pages", "name_to_handle_at", "open_by_handle_at", "open_tree", "open_tree_attr"),
    *("perf_event_open", "pidfd_getfd", "pivot_root", "process_madvise", "process_mrelease"),
    *("process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "quotactl_fd", "reboot"),
    *("request_key", "setns", "swapoff", "swapon", "syslog", "tkill", "umount2", "userfaultfd"),
)
"""Calls that could reach other processes, or that have had many vulnerabilities."""

_ABSENT: Final = (
    *("clone3", "file_setattr", "io_uring_enter", "io_uring_register", "io_uring_setup"),
    *("pidfd_send_signal", "removexattrat", "setxattrat"),
)
"""Calls for which programs have a fallback if the kernel is too old to have them.

The filter cannot see the flags of clone3, the operations of io_uring and the process of a pidfd."""

_ATTRIBUTES: Final = (
    *("fremovexattr", "fsetxattr", "lremovexattr", "lsetxattr", "removexattr", "setxattr"),
)
"""Extended attributes, which are also the access control lists of files.

Landlock does not restrict them. Programs work without them, because many file systems have none."""

_SHARED_MEMORY: Final = ("mq_open", "msgget", "semget", "shmat", "shmctl", "shmget")
"""Calls that reach objects of other commands of the user, unless there is an IPC namespace."""

_NEW_NAMESPACES: Final = 0x7E020000  # the CLONE_NEW… flags except CLONE_NEWTIME
_NEW_TIME_NAMESPACE: Final = 0x80

_ACCESS_MODE, _TRUNCATE = 0o3, 0o1000
_FASTOPEN: Final = 0x20000000
_TERMINAL_INPUT: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX

_FCNTL_OWNER: Final = (8, 15)  # F_SETOWN, F_SETOWN_EX
_IOCTL_OWNER: Final = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP
"""Calls that choose which process gets a signal when a descriptor is ready, such as SIGKILL."""

_FCNTL_NOTIFY: Final = 0x402  # F_NOTIFY
"""Asks for a signal when a folder changes. It is older than inotify."""

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_PROTOCOLS: Final = (0, 1, 6, 17, 58)
"""The default of a socket, ICMP, TCP, UDP and ICMPv6. Landlock does not restrict MPTCP or SCTP."""

_SOCK_STREAM, _SOCKET_TYPE = 1, 0xF

MAX_PROTECTED: Final = 300
"""How many threads fit into a filter."""


class Sockets(Enum):
    """Which sockets of the network a command may make."""

    ALL = "all"  # those for TCP, UDP and ICMP, and those that ask for this machine's addresses
    OUTGOING_TCP = "outgoing TCP"  # what Landlock restricts
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the other walls leave to the filter.

    Attributes:
        protected: The threads that a command may neither signal nor slow down.
        landlock: The version of Landlock; 0 if there is none.
        own_mounts: Whether the command has a mount namespace. If not, it could watch the folders
            of other sandboxes.
        own_ipc: Whether it has an IPC namespace.
        unix_sockets: Whether it may make Unix sockets: other walls must keep it from those of
            other programs.
        sockets: Which sockets of the network it may make.
    """

    protected: Sequence[int]
    landlock: int
    own_mounts: bool
    own_ipc: bool
    unix_sockets: bool = False
    sockets: Sockets = Sockets.ALL


def architecture() -> str:
    """The name of this machine's architecture; empty if the filter does not know it."""
    name = platform.machine()
    return name if name in _AUDIT_ARCHITECTURES else ""


def number(name: str, architecture: str) -> int | None:
    """The number of a system call; None if the architecture does not have it."""
    return _NUMBERS[name][0 if architecture == _X86_64 else 1]


def audit_architecture(architecture: str) -> int:
    """The number by which the kernel identifies an architecture in a filter."""
    return _AUDIT_ARCHITECTURES[architecture]


def assemble(policy: Policy, architecture: str) -> bytes:
    """The filter for a command, as the kernel reads it."""
    return bpf.encode(program(policy, architecture))


def program(policy: Policy, architecture: str) -> bpf.Code:
    """The filter for a command. Calls of other architectures fail."""
    denied = [bpf.fail(errno.EPERM)]
    absent = [bpf.fail(errno.ENOSYS)]
    unsupported = [bpf.fail(errno.EOPNOTSUPP)]
    code = [
        bpf.load(bpf.ARCHITECTURE_OFFSET),
        *bpf.unless_equal([_AUDIT_ARCHITECTURES[architecture]], denied),
        bpf.load(bpf.NUMBER_OFFSET),
    ]
    if architecture == _X86_64:
        code += bpf.when_at_least(_X32_BIT, absent)
    blocks: dict[str, bpf.Code] = dict.fromkeys(_NEVER, denied) | dict.fromkeys(_ABSENT, absent)
    blocks |= dict.fromkeys(_ATTRIBUTES, unsupported)
    blocks |= _signals(policy.protected) | _priorities(policy.protected) | _sockets(policy)
    blocks["clone"] = _argument(0, bpf.when_any_bit(_NEW_NAMESPACES, denied))
    blocks["unshare"] = _argument(
        0, bpf.when_any_bit(_NEW_NAMESPACES | _NEW_TIME_NAMESPACE, denied)
    )
    blocks["ioctl"] = _argument(1, bpf.when_equal([*_TERMINAL_INPUT, *_IOCTL_OWNER], denied))
    blocks["fcntl"] = _argument(1, bpf.when_equal([*_FCNTL_OWNER, _FCNTL_NOTIFY], denied))
    if policy.landlock < 3:  # older versions do not restrict truncating
        blocks["truncate"], blocks["openat2"] = denied, absent
        blocks["open"], blocks["openat"] = _read_and_truncate(1), _read_and_truncate(2)
    if not policy.own_ipc:
        blocks |= dict.fromkeys(_SHARED_MEMORY, denied)
    if not policy.own_mounts:
        blocks |= dict.fromkeys(("inotify_init", "inotify_init1"), absent)
    calls: dict[tuple[bpf.Instruction, ...], list[int]] = {}
    for name, block in blocks.items():
        if (called := number(name, architecture)) is not None:
            calls.setdefault(tuple(block), []).append(called)
    for shared, numbers in calls.items():
        # A block that does not end the program has replaced the number in the accumulator.
        code += bpf.when_equal(numbers, [*shared, bpf.allow()])
    return [*code, bpf.allow()]


def _argument(index: int, code: bpf.Code) -> bpf.Code:
    return [bpf.load_argument(index), *code]


def _signals(protected: Sequence[int]) -> dict[str, bpf.Code]:
    """Signals to the protected processes, to their groups and to all processes."""
    denied = [bpf.fail(errno.EPERM)]
    one = _argument(0, bpf.when_equal(protected, denied))
    return {
        "kill": _argument(0, bpf.when_equal([-1, *protected, *(-p for p in protected)], denied)),
        **dict.fromkeys(("tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"), one),
    }


def _priorities(protected: Sequence[int]) -> dict[str, bpf.Code]:
    """Limits, priorities and processors of other processes."""
    denied = [bpf.fail(errno.EPERM)]
    one = _argument(0, bpf.when_equal(protected, denied))
    names = ("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")
    kinds = {"setpriority": 0, "ioprio_set": 1}  # the number that means a single process
    return {
        "prlimit64": _argument(0, bpf.unless_equal([0], denied)),
        **dict.fromkeys(names, one),
        **{
            name: [
                *_argument(0, bpf.unless_equal([process], denied)),
                *_argument(1, bpf.when_equal(protected, denied)),
            ]
            for name, process in kinds.items()
        },
    }


def _sockets(policy: Policy) -> dict[str, bpf.Code]:
    """Kinds of sockets, and connecting while sending, which Landlock does not see."""
    denied = [bpf.fail(errno.EACCES)]
    unsupported = [bpf.fail(errno.EAFNOSUPPORT)]
    fastopen = bpf.when_any_bit(_FASTOPEN, [bpf.fail(errno.EOPNOTSUPP)])
    found = {
        "socket": [
            *_argument(0, bpf.when_equal([_AF_UNIX], [] if policy.unix_sockets else denied)),
            *_internet_sockets(policy.sockets),
            *_argument(2, bpf.unless_equal(_PROTOCOLS, [bpf.fail(errno.EPROTONOSUPPORT)])),
        ],
        "socketpair": _argument(0, bpf.unless_equal([_AF_UNIX], unsupported)),
        "sendto": _argument(3, fastopen),
        "sendmsg": _argument(2, fastopen),
        "sendmmsg": _argument(3, fastopen),
    }
    if policy.sockets is Sockets.OUTGOING_TCP:
        found["listen"] = denied
    return found


def _internet_sockets(sockets: Sockets) -> bpf.Code:
    """Refuse the sockets that are not allowed. The accumulator has the family."""
    denied = [bpf.fail(errno.EACCES)]
    unsupported = [bpf.fail(errno.EAFNOSUPPORT)]
    internet = [_AF_INET, _AF_INET6]
    match sockets:
        case Sockets.ALL:
            return bpf.unless_equal([_AF_UNIX, *internet, _AF_NETLINK], unsupported)
        case Sockets.NONE:
            return [
                *bpf.when_equal([*internet, _AF_NETLINK], denied),
                *bpf.unless_equal([_AF_UNIX], unsupported),
            ]
        case Sockets.OUTGOING_TCP:
            streams = [
                bpf.load_argument(1),
                bpf.mask(_SOCKET_TYPE),
                *bpf.unless_equal([_SOCK_STREAM], denied),
            ]
            return [
                *bpf.when_equal([_AF_NETLINK], denied),
                *bpf.unless_equal([_AF_UNIX, *internet], unsupported),
                *bpf.when_equal(internet, streams),
            ]


def _read_and_truncate(flags: int) -> bpf.Code:
    """Opening a file to read it and truncate it at once. Only the right to read is checked."""
    return [
        bpf.load_argument(flags),
        bpf.mask(_ACCESS_MODE | _TRUNCATE),
        *bpf.when_equal([_TRUNCATE], [bpf.fail(errno.EPERM)]),  # O_RDONLY is 0
    ]

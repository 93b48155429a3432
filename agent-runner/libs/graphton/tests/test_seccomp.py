"""Interprets the filters as the kernel does, for both architectures."""

import errno
import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from graphton import bpf, seccomp
from graphton.seccomp import Sockets

ARCHITECTURES = ("x86_64", "aarch64")
ALLOWED = 0
WORKER, THREAD = 4242, 4250

OPEN = seccomp.Policy(
    protected=(1, WORKER, THREAD), landlock=7, own_mounts=True, own_ipc=True, unix_sockets=True
)
CLOSED = seccomp.Policy(protected=(1, WORKER, THREAD), landlock=0, own_mounts=False, own_ipc=False)


def interpret(code: Sequence[bpf.Instruction], data: bytes) -> int:
    """The errno with which a system call fails; 0 if it may run."""
    position, accumulator = 0, 0
    while True:
        step = code[position]
        position += 1
        jumps = {
            0x15: accumulator == step.value,
            0x35: accumulator >= step.value,
            0x45: bool(accumulator & step.value),
        }
        if step.code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, step.value)
        elif step.code == 0x54:
            accumulator &= step.value
        elif step.code == 0x05:
            position += step.value
        elif step.code == 0x06:
            return 0 if step.value == bpf.ALLOW else step.value & 0xFFFF
        else:
            position += step.then if jumps[step.code] else step.otherwise


def result(policy: seccomp.Policy, architecture: str, name: str, *arguments: int) -> int:
    number = seccomp.number(name, architecture)
    assert number is not None
    return call(policy, architecture, number, *arguments)


def call(policy: seccomp.Policy, architecture: str, number: int, *arguments: int) -> int:
    padded = [argument & 2**64 - 1 for argument in (*arguments, *[0] * (6 - len(arguments)))]
    audit = seccomp.audit_architecture(architecture)
    data = struct.pack("=IIQ6Q", number, audit, 0, *padded)
    return interpret(seccomp.program(policy, architecture), data)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("policy", [OPEN, CLOSED])
def test_signals(policy: seccomp.Policy, architecture: str) -> None:
    for target in (-1, 1, WORKER, THREAD, -WORKER):
        assert result(policy, architecture, "kill", target, 9) == errno.EPERM
        # The kernel ignores the upper half of a pid.
        assert result(policy, architecture, "kill", target + 2**40, 9) == errno.EPERM
    for target in (0, 5000, -5000):
        assert result(policy, architecture, "kill", target, 9) == ALLOWED
    for name in ("tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        assert result(policy, architecture, name, WORKER, THREAD, 9) == errno.EPERM
        assert result(policy, architecture, name, 5000, 5000, 9) == ALLOWED
    assert result(policy, architecture, "tkill", 5000, 9) == errno.EPERM
    assert result(policy, architecture, "pidfd_send_signal", 3, 9) == errno.ENOSYS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_priorities_and_limits_of_others(architecture: str) -> None:
    assert result(OPEN, architecture, "prlimit64", 0, 7) == ALLOWED
    assert result(OPEN, architecture, "prlimit64", 5000, 7) == errno.EPERM
    assert result(OPEN, architecture, "sched_setaffinity", THREAD) == errno.EPERM
    assert result(OPEN, architecture, "sched_setaffinity", 5000) == ALLOWED
    for name, process, user in (("setpriority", 0, 2), ("ioprio_set", 1, 3)):
        assert result(OPEN, architecture, name, process, 0) == ALLOWED
        assert result(OPEN, architecture, name, process, WORKER) == errno.EPERM
        assert result(OPEN, architecture, name, user, 0) == errno.EPERM


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_namespaces(architecture: str) -> None:
    for flag in (0x00020000, 0x10000000, 0x20000000, 0x40000000, 0x04000000, 0x08000000):
        assert result(OPEN, architecture, "unshare", flag) == errno.EPERM
        assert result(OPEN, architecture, "clone", flag | 17) == errno.EPERM
    assert result(OPEN, architecture, "unshare", 0x200) == ALLOWED  # CLONE_FS
    assert result(OPEN, architecture, "clone", 0x003D0F00) == ALLOWED  # a thread
    assert result(OPEN, architecture, "clone3", 0, 88) == errno.ENOSYS
    assert result(OPEN, architecture, "setns", 3) == errno.EPERM


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sockets(architecture: str) -> None:
    unix, inet, inet6, netlink, packet, vsock = 1, 2, 10, 16, 17, 40
    for policy, expected in ((OPEN, ALLOWED), (CLOSED, errno.EACCES)):
        assert result(policy, architecture, "socket", unix, 1) == expected
        for family in (inet, inet6):
            assert result(policy, architecture, "socket", family, 1, 6) == ALLOWED
            for protocol in (132, 262):  # SCTP, MPTCP
                failed = result(policy, architecture, "socket", family, 1, protocol)
                assert failed == errno.EPROTONOSUPPORT
        assert result(policy, architecture, "socket", netlink, 3) == ALLOWED
        for family in (packet, vsock):
            assert result(policy, architecture, "socket", family, 3) == errno.EAFNOSUPPORT
        assert result(policy, architecture, "sendto", 3, 0, 0, 0x20000000) == errno.EOPNOTSUPP
        assert result(policy, architecture, "sendmsg", 3, 0, 0x20000000) == errno.EOPNOTSUPP
        assert result(policy, architecture, "sendto", 3, 0, 0, 0x4000) == ALLOWED


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("policy", [OPEN, CLOSED])
def test_descriptors_send_no_signals_to_others(policy: seccomp.Policy, architecture: str) -> None:
    for command in (8, 15, 0x402):  # F_SETOWN, F_SETOWN_EX, F_NOTIFY
        assert result(policy, architecture, "fcntl", 3, command, WORKER) == errno.EPERM
    for command in (1, 4, 10, 1030):  # F_GETFD, F_SETFL, F_SETSIG, F_DUPFD_CLOEXEC
        assert result(policy, architecture, "fcntl", 3, command) == ALLOWED
    for command in (0x8901, 0x8902):  # FIOSETOWN, SIOCSPGRP
        assert result(policy, architecture, "ioctl", 3, command) == errno.EPERM


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("policy", [OPEN, CLOSED])
def test_sockets_without_a_network(policy: seccomp.Policy, architecture: str) -> None:
    none = replace(policy, sockets=Sockets.NONE)
    for family in (2, 10, 16):  # IPv4, IPv6, netlink
        for kind in (1, 2, 3, 1 | 0o4000, 5):
            assert result(none, architecture, "socket", family, kind) == errno.EACCES
            # The kernel ignores the upper half of an argument.
            assert result(none, architecture, "socket", family + 2**40, kind) == errno.EACCES
    for family in (0, 17, 30, 38, 40, 44):  # packets, TIPC, the kernel's ciphers, vsock, XDP
        assert result(none, architecture, "socket", family, 1) == errno.EAFNOSUPPORT
    unix = result(none, architecture, "socket", 1, 2)
    assert unix == (ALLOWED if policy.unix_sockets else errno.EACCES)
    assert result(none, architecture, "socketpair", 1, 1) == ALLOWED


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("policy", [OPEN, CLOSED])
def test_sockets_for_outgoing_tcp_only(policy: seccomp.Policy, architecture: str) -> None:
    tcp = replace(policy, sockets=Sockets.OUTGOING_TCP)
    non_blocking, close_on_exec = 0o4000, 0o2000000
    for family in (2, 10):
        for protocol in (0, 6):
            kind = 1 | non_blocking | close_on_exec
            assert result(tcp, architecture, "socket", family, kind, protocol) == ALLOWED
        for kind in (2, 3, 5, 10, 2 | non_blocking):
            assert result(tcp, architecture, "socket", family, kind) == errno.EACCES
        for protocol in (132, 262):
            failed = result(tcp, architecture, "socket", family, 1, protocol)
            assert failed == errno.EPROTONOSUPPORT
    assert result(tcp, architecture, "socket", 16, 3) == errno.EACCES
    for family in (0, 17, 30, 38, 40, 44):
        assert result(tcp, architecture, "socket", family, 1) == errno.EAFNOSUPPORT
    for kind in (1, 2):
        unix = result(tcp, architecture, "socket", 1, kind)
        assert unix == (ALLOWED if policy.unix_sockets else errno.EACCES)
    assert result(tcp, architecture, "listen", 3, 1) == errno.EACCES
    assert result(policy, architecture, "listen", 3, 1) == ALLOWED
    for family in (2, 30):
        assert result(policy, architecture, "socketpair", family, 1) == errno.EAFNOSUPPORT


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_truncating_without_a_right_to_write(architecture: str) -> None:
    read, write, truncate = 0, 1, 0o1000
    old = seccomp.Policy((), landlock=2, own_mounts=False, own_ipc=False)
    names = {"openat": (0, 0), "open": (0,)} if architecture == "x86_64" else {"openat": (0, 0)}
    for name, before in names.items():
        assert result(old, architecture, name, *before, read | truncate) == errno.EPERM
        assert result(old, architecture, name, *before, write | truncate) == ALLOWED
        assert result(old, architecture, name, *before, read) == ALLOWED
        assert result(OPEN, architecture, name, *before, read | truncate) == ALLOWED
    assert result(old, architecture, "truncate") == errno.EPERM
    assert result(OPEN, architecture, "truncate") == ALLOWED
    assert result(old, architecture, "openat2") == errno.ENOSYS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_namespace_makes_harmless_is_allowed_in_it(architecture: str) -> None:
    for name in ("inotify_init1", "shmget", "semget", "msgget", "mq_open"):
        assert result(OPEN, architecture, name) == ALLOWED
        assert result(CLOSED, architecture, name) != ALLOWED


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_calls(architecture: str) -> None:
    assert result(OPEN, architecture, "ioctl", 0, 0x5412) == errno.EPERM
    assert result(OPEN, architecture, "ioctl", 0, 0x5401) == ALLOWED
    for name in (
        "ptrace",
        "bpf",
        "keyctl",
        "userfaultfd",
        "perf_event_open",
        "mount",
        "open_tree_attr",
    ):
        assert result(OPEN, architecture, name) == errno.EPERM
    for name in ("io_uring_setup", "setxattrat", "removexattrat", "file_setattr"):
        assert result(OPEN, architecture, name) == errno.ENOSYS
    for name in (
        "setxattr",
        "lsetxattr",
        "fsetxattr",
        "removexattr",
        "lremovexattr",
        "fremovexattr",
    ):
        assert result(OPEN, architecture, name) == errno.EOPNOTSUPP
    # read, write, mmap, execve, wait4
    usual = {"x86_64": (0, 1, 9, 59, 61), "aarch64": (63, 64, 222, 221, 260)}
    for number in usual[architecture]:
        assert call(CLOSED, architecture, number) == ALLOWED


def test_another_architecture_or_interface_cannot_be_used() -> None:
    code = seccomp.program(OPEN, "x86_64")
    i386 = struct.pack("=IIQ6Q", 37, 0x40000003, 0, WORKER, 9, 0, 0, 0, 0)
    assert interpret(code, i386) == errno.EPERM
    assert call(OPEN, "x86_64", 0x40000000 | 62, WORKER, 9) == errno.ENOSYS  # x32's kill


def test_many_threads_fit_into_a_filter() -> None:
    protected = range(2, 2 + seccomp.MAX_PROTECTED)
    policy = seccomp.Policy(protected, landlock=0, own_mounts=False, own_ipc=False)
    for architecture in ARCHITECTURES:
        assert len(seccomp.assemble(policy, architecture)) % 8 == 0
        for target in (2, 77, 199, protected[-1]):
            assert result(policy, architecture, "kill", target) == errno.EPERM
            assert result(policy, architecture, "kill", -target) == errno.EPERM
        assert result(policy, architecture, "kill", protected[-1] + 1) == ALLOWED
    with pytest.raises(ValueError, match="instructions, of at most 4096"):
        seccomp.assemble(
            seccomp.Policy(range(2, 2000), landlock=0, own_mounts=False, own_ipc=False), "x86_64"
        )

"""Runs a command with restricted access to files and other processes.

    confine.py FOLDER READABLE:… PROGRAM ARG…

The restriction uses Landlock. The command may read the system and the READABLE folders, and read
and write FOLDER. It may not inspect other processes of the same user, whose environment holds
keys, nor send them signals. If the kernel has no Landlock, the command runs without this
restriction. Root's capabilities are dropped in any case.

The variables for the command come with VARIABLE_PREFIX before their names, so that they have no
effect on this program: the dynamic loader would run code that LD_PRELOAD names before the
restriction is in place.

Exit codes: 125 if the restriction failed, 127 if the program does not exist.

This is a separate program because a process with threads can do very little safely between fork
and exec. It uses the standard library only.
"""

import contextlib
import ctypes
import os
import struct
import sys

# The numbers of the landlock_* system calls, the same on all architectures.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _LAST_CAPABILITY = 38, 24, 63

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""The access rights that each version of Landlock can restrict.

Version 2 adds renaming and linking to other folders, 3 truncating, 5 ioctl on devices."""

_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2

READABLE_PATHS = (
    "/bin /lib /lib32 /lib64 /sbin /usr /etc /opt /proc /sys/devices/system/cpu /dev "
    "/var/lib/dpkg /run/systemd/resolve"
)
WRITABLE_DEVICES = (
    "/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx /dev/pts"
)


VARIABLE_PREFIX = "GRAPHTON_GIVEN_"


def landlock_version() -> int:
    """The version of Landlock that the kernel supports; 0 if it has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)))


def restrict(folder: str, readable: list[str]) -> bool:
    """Restrict this process and every process it starts.

    Returns:
        False if the kernel has no Landlock.

    Raises:
        OSError: if the restriction fails.
    """
    abi = landlock_version()
    if not abi:
        return False
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *args: object) -> int:
        result = int(libc.syscall(number, *args))
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    everything = max(rights for since, rights in _RIGHTS.items() if since <= abi)
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if abi >= 6 else 0
    attributes = struct.pack("=QQQ", everything, 0, scoped)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = call(_CREATE, attributes, ctypes.c_size_t(size), 0)
    allowed = [(folder, everything), ("/dev/shm", everything)]  # noqa: S108
    allowed += [(path, _READ) for path in [*READABLE_PATHS.split(), *readable]]
    allowed += [(path, _READ | _WRITE_FILE | 1 << 15) for path in WRITABLE_DEVICES.split()]
    for path, rights in allowed:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            continue  # not every system has all of these paths
        mask = everything if os.path.isdir(path) else _FILE_ONLY  # noqa: PTH112
        rule = struct.pack("=Qi", rights & mask & everything, fd)
        call(_ADD, ruleset, 1, rule, 0)
        os.close(fd)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    call(_RESTRICT, ruleset, 0)
    os.close(ruleset)
    return True


def drop_capabilities() -> None:
    """Make sure that the program gets no capabilities, even if it runs as root.

    With some of them it could read the environment of any process.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_LAST_CAPABILITY + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails, harmlessly, for ordinary users


def main() -> None:
    """Run the command line. Does not return."""
    folder, readable, program, *arguments = sys.argv[1:]
    # When memory runs out, the kernel should kill the command rather than the worker.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("500")
    try:
        drop_capabilities()
        restrict(folder, readable.split(":"))
    except OSError as error:
        print(f"the command cannot be confined: {error}", file=sys.stderr)
        sys.exit(125)
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(VARIABLE_PREFIX)
    }
    given = {
        name.removeprefix(VARIABLE_PREFIX): value
        for name, value in os.environ.items()
        if name.startswith(VARIABLE_PREFIX)
    }
    try:
        os.execvpe(program, [program, *arguments], own | given)  # noqa: S606
    except OSError as error:
        print(f"{program}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()

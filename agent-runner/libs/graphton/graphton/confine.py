"""Runs a command that can reach no other files than it may.

    confine.py FOLDER READABLE:… PROGRAM ARG…

A variable whose name begins with GIVEN is the command's, under the rest of its name: before the
restriction it must mean nothing, to the loader least of all, which LD_PRELOAD has run code.

By Landlock, where the kernel has it: the command may read the system and what is READABLE, and
read and write FOLDER; it may look into no other process of the same user (whose environment holds
keys) and send it no signal. Where the kernel has no Landlock, the command runs without. Root's
powers it loses in any case. Exit code 125: the restriction failed; 127: there is no such program.

It is a program of its own, because between fork and exec of a process with threads hardly
anything may be done. It needs the standard library only.
"""

import contextlib
import ctypes
import os
import struct
import sys

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on all architectures
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _LAST_CAPABILITY = 38, 24, 63

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""What each version of Landlock can restrict: making and removing; linking elsewhere (2);
truncating (3); ioctl on devices (5)."""

_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2

SYSTEM = (
    "/bin /lib /lib32 /lib64 /sbin /usr /etc /opt /proc /sys/devices/system/cpu /dev "
    "/var/lib/dpkg /run/systemd/resolve"
)
DEVICES = "/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx /dev/pts"


GIVEN = "GRAPHTON_GIVEN_"


def version() -> int:
    """Which version of Landlock the kernel has; 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)))


def restrict(folder: str, readable: list[str]) -> bool:
    """Restrict this process and all it starts. Returns False where there is no Landlock.

    Raises:
        OSError: if it failed.
    """
    abi = version()
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
    allowed += [(path, _READ) for path in [*SYSTEM.split(), *readable]]
    allowed += [(path, _READ | _WRITE_FILE | 1 << 15) for path in DEVICES.split()]
    for path, rights in allowed:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            continue  # not every system has all of them
        mask = everything if os.path.isdir(path) else _FILE_ONLY  # noqa: PTH112
        rule = struct.pack("=Qi", rights & mask & everything, fd)
        call(_ADD, ruleset, 1, rule, 0)
        os.close(fd)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    call(_RESTRICT, ruleset, 0)
    os.close(ruleset)
    return True


def give_up_powers() -> None:
    """Let the program be an ordinary one, also if this is root: it gets no capability by exec.

    With some of them it could read the environment of any process.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_LAST_CAPABILITY + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused to whoever has none


def main() -> None:
    """The command line. Does not return."""
    folder, readable, program, *arguments = sys.argv[1:]
    # Short of memory, the kernel should end the command, not the worker.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("500")
    try:
        give_up_powers()
        restrict(folder, readable.split(":"))
    except OSError as error:
        print(f"the command cannot be confined: {error}", file=sys.stderr)
        sys.exit(125)
    own = {name: value for name, value in os.environ.items() if not name.startswith(GIVEN)}
    given = {
        name.removeprefix(GIVEN): value
        for name, value in os.environ.items()
        if name.startswith(GIVEN)
    }
    try:
        os.execvpe(program, [program, *arguments], own | given)  # noqa: S606
    except OSError as error:
        print(f"{program}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()

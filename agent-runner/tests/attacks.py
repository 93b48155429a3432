"""What an agent's command could try, and which wall stops it.

Each attack is a Python program. It has these variables: `outside`, a folder outside of the sandbox
with a file `secret`; `worker`, `thread` and `other`, the ids of the worker, of one of its threads,
and of a process of the same user that belongs to somebody else; `port`, a denied TCP port;
`libc`; and `reached()`, which says that the attack has succeeded. It may raise OSError.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A combination of walls, by what a machine offers."""

    NAMESPACES = "namespaces"  # a host, or a container whose engine allows all of them
    MOUNTS = "namespaces without PID"  # Podman's default
    LANDLOCK = "Landlock 6+"  # Docker's default on Linux 6.12 or newer
    PORTS = "Landlock 4"  # the same on Linux 6.7
    OLD = "Landlock 1"  # the same on Linux 5.13
    SECCOMP = "seccomp only"


N, M, L, P, O, S = Kind  # noqa: E741
ALL = frozenset(Kind)
UNSEEN = frozenset({N, M})
"""What only a mount namespace stops: Landlock restricts neither `stat` nor `chmod`."""


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        name: What it tries.
        program: The program.
        stopped: The combinations of walls that stop it. The others do not, which the documentation
            says.
    """

    name: str
    program: str
    stopped: frozenset[Kind]


FILES = frozenset({N, M, L, P, O})
"""What Landlock and a mount namespace stop."""

ATTACKS = (
    Attack("read a file outside", "open(f'{outside}/secret').read(); reached()", FILES),
    Attack("list a folder outside", "os.listdir(outside); reached()", FILES),
    Attack("write a file outside", "open(f'{outside}/new', 'w'); reached()", FILES),
    Attack("empty a file outside", "os.truncate(f'{outside}/secret', 0); reached()", ALL),
    Attack(
        "open a file outside to read and empty it",
        "os.open(f'{outside}/secret', os.O_RDONLY | os.O_TRUNC); reached()",
        ALL,
    ),
    Attack("delete a file outside", "os.unlink(f'{outside}/secret'); reached()", FILES),
    Attack(
        "take a file by renaming it", "os.rename(f'{outside}/secret', 'mine'); reached()", FILES
    ),
    Attack(
        "take a file by a hard link",
        "os.link(f'{outside}/secret', 'mine'); open('mine').read(); reached()",
        FILES,
    ),
    Attack(
        "follow a symbolic link",
        "os.symlink(outside, 'way'); open('way/secret').read(); reached()",
        FILES,
    ),
    Attack(
        "replace a folder by a link in a race",
        """
def swap():
    while True:
        os.mkdir('race'); os.rmdir('race'); os.symlink(outside, 'race'); os.unlink('race')
threading.Thread(target=swap, daemon=True).start()
end = time.monotonic() + 1
while time.monotonic() < end:
    try:
        open('race/secret').read()
    except OSError:
        continue
    reached()
    break
""",
        FILES,
    ),
    Attack("change the times of a file", "os.utime(f'{outside}/secret'); reached()", UNSEEN),
    Attack("learn that a file exists", "os.stat(f'{outside}/secret'); reached()", UNSEEN),
    Attack(
        "watch a folder outside",
        """
fd = libc.inotify_init1(0)
if fd >= 0 and libc.inotify_add_watch(fd, outside.encode(), 0xfff) >= 0:
    reached()
""",
        ALL,
    ),
    Attack(
        "go through /proc/PID/root", "os.listdir(f'/proc/{other}/root{outside}'); reached()", FILES
    ),
    Attack("go through /proc/PID/cwd", "os.listdir(f'/proc/{other}/cwd'); reached()", FILES),
    Attack("read another environment", "open(f'/proc/{other}/environ').read(); reached()", FILES),
    Attack(
        "read another command line",
        "open(f'/proc/{other}/cmdline').read(); reached()",
        frozenset({N}),
    ),
    Attack(
        "use an inherited descriptor",
        """
own = os.open('/proc/self/fd', os.O_RDONLY)
for name in os.listdir(own):
    target = os.readlink(f'/proc/self/fd/{name}')
    if int(name) not in (0, 1, 2, own):
        print(target)
        reached()
""",
        ALL,
    ),
    Attack("signal the worker", "os.kill(worker, 0); reached()", ALL),
    Attack("signal a thread of the worker", "os.kill(thread, 0); reached()", ALL),
    Attack("signal the worker's group", "os.killpg(os.getpgid(worker), 0); reached()", ALL),
    Attack("signal everybody", "os.kill(-1, 0); reached()", ALL),
    Attack(
        "signal the worker by tgkill",
        "syscall(234 if x86 else 131, worker, worker, 0) or reached()",
        ALL,
    ),
    Attack(
        "signal the worker by a pidfd",
        "signal.pidfd_send_signal(os.pidfd_open(worker), 0); reached()",
        ALL,
    ),
    Attack("signal the init", "os.kill(1, 0); reached()", ALL),
    Attack("signal another command", "os.kill(other, 0); reached()", frozenset({N, M, L})),
    Attack(
        "trace another process", "syscall(101 if x86 else 117, 16, other, 0, 0) or reached()", ALL
    ),
    Attack(
        "read another process's memory",
        """
here, there = (ctypes.c_size_t * 2)(0, 0), (ctypes.c_size_t * 2)(0, 0)
syscall(310 if x86 else 270, other, here, 1, there, 1, 0) >= 0 and reached()
""",
        ALL,
    ),
    Attack(
        "lower the limits of the worker",
        """
limit = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.prlimit(worker, resource.RLIMIT_NOFILE, limit)
reached()
""",
        ALL,
    ),
    Attack(
        "slow the worker down",
        "nice = os.getpriority(0, worker); os.setpriority(0, worker, nice); reached()",
        ALL,
    ),
    Attack(
        "slow everybody down",
        "os.setpriority(os.PRIO_USER, 0, 5); reached()",
        ALL,
    ),
    Attack(
        "take the processors from the worker",
        "os.sched_setaffinity(worker, os.sched_getaffinity(worker)); reached()",
        ALL,
    ),
    Attack(
        "connect to a Unix socket outside",
        "socket.socket(socket.AF_UNIX).connect(f'{outside}/socket'); reached()",
        ALL,
    ),
    Attack(
        "connect to an abstract Unix socket",
        "socket.socket(socket.AF_UNIX).connect(f'\\0{outside}'); reached()",
        ALL,
    ),
    Attack(
        "connect to a denied port",
        "socket.create_connection(('127.0.0.1', port), 5); reached()",
        frozenset({N, M, L, P}),
    ),
    Attack(
        "connect to a denied port by MPTCP",
        "socket.socket(2, 1, 262).connect(('127.0.0.1', port)); reached()",
        ALL,
    ),
    Attack(
        "connect to a denied port by sending",
        """
connection = socket.socket()
connection.sendto(b'x', 0x20000000, ('127.0.0.1', port))
reached()
""",
        ALL,
    ),
    Attack(
        "open a raw packet socket",
        "socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM); reached()",
        ALL,
    ),
    Attack("reach the machine's host", "socket.socket(40, socket.SOCK_STREAM); reached()", ALL),
    Attack(
        "attach shared memory",
        "libc.shmget(memory_key, 0, 0) >= 0 and reached()",
        ALL,
    ),
    Attack("list shared memory", "os.listdir('/dev/shm') and reached()", FILES),
    Attack("make a user namespace", "libc.unshare(0x10000000) or reached()", ALL),
    Attack("mount", "libc.mount(b'none', b'.', b'tmpfs', 0, None) or reached()", ALL),
    Attack(
        "use io_uring", "syscall(425, 0, None) < 0 and ctypes.get_errno() == 38 or reached()", ALL
    ),
    Attack(
        "use bpf", "syscall(321 if x86 else 280, 0, 0, 0) < 0 and errno_is(1) or reached()", ALL
    ),
    Attack(
        "use keys", "syscall(250 if x86 else 219, 0, -3, 0) < 0 and errno_is(1) or reached()", ALL
    ),
    Attack(
        "use userfaultfd", "syscall(323 if x86 else 282, 1) < 0 and errno_is(1) or reached()", ALL
    ),
    Attack(
        "measure the machine",
        "syscall(298 if x86 else 241, 0, 0, -1, -1, 0) < 0 and errno_is(1) or reached()",
        ALL,
    ),
    Attack("type into a terminal", "libc.ioctl(0, 0x5412, b'x') and errno_is(1) or reached()", ALL),
    Attack("signal the supervisor", "os.kill(os.getppid(), 0); reached()", frozenset({N, M, L})),
    Attack(
        "take all rights from a folder outside",
        "os.chmod(outside, 0); reached()",
        UNSEEN,
    ),
)

COLUMNS = {
    Kind.NAMESPACES: "all namespaces",
    Kind.MOUNTS: "without PID",
    Kind.LANDLOCK: "Linux 6.12",
    Kind.PORTS: "Linux 6.7",
    Kind.OLD: "Linux 5.13",
    Kind.SECCOMP: "no Landlock",
}


def table() -> str:
    """The table in docs/docker.md: attacks with the same result share a row."""
    rows: dict[frozenset[Kind], list[str]] = {}
    for attack in ATTACKS:
        rows.setdefault(attack.stopped, []).append(attack.name)
    lines = [f"| Attack | {' | '.join(COLUMNS.values())} |", "|---" * (len(Kind) + 1) + "|"]
    for stopped, names in sorted(rows.items(), key=lambda row: -len(row[0])):
        cells = ["stopped" if kind in stopped else "**open**" for kind in Kind]
        lines.append(f"| {'; '.join(sorted(names))} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


PRELUDE = """
import ctypes, errno, os, resource, signal, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
syscall = libc.syscall
x86 = os.uname().machine == 'x86_64'
def reached(): print('REACHED')
def errno_is(number): return ctypes.get_errno() == number
"""

SUITE = """
import json, os, signal, sys
prelude, definitions, attacks = json.loads(sys.stdin.read())
for name, program in attacks:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        os.dup2(writing, 1)
        os.close(reading)
        os.close(writing)
        try:
            exec(prelude + definitions + program)
        except OSError:
            pass
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with open(reading) as output:
        text = output.read()
    _, status = os.waitpid(child, 0)
    print(name, 'REACHED' in text, os.waitstatus_to_exitcode(status), sep='\\t', flush=True)
"""
"""A program that tries attacks and prints, for each, whether it succeeded, and its exit code."""

"""What an agent's command could try, and which wall stops it.

Each attack is a Python program. It has these variables: `outside`, a folder outside of the sandbox
with a file `secret`, a FIFO `pipe` and a Unix socket `socket`; `abstract`, the name of an abstract
Unix socket; `memory_key`, the key of a segment of shared memory; `shared`, the path of a file in
/dev/shm; `worker`, `thread` and `other`, the ids of the worker, of one of its threads, and of a
process of the same user that belongs to somebody else; `port`, a denied TCP port; `libc`; and
`reached()`, which says that the attack has succeeded. It may raise OSError.
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
"""What only a mount namespace stops: Landlock restricts neither `stat` nor `chmod` nor `chown`, and
commands need /dev/shm, for example for semaphores."""


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
        "os.link(f'{outside}/secret', 'linked'); open('linked').read(); reached()",
        FILES,
    ),
    Attack(
        "open a FIFO outside",
        "os.open(f'{outside}/pipe', os.O_RDWR | os.O_NONBLOCK); reached()",
        FILES,
    ),
    Attack("make a device", "os.mknod('device', 0o20666, os.makedev(1, 1)); reached()", ALL),
    Attack(
        "make a file of 1 TB, without content",
        """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
open('sparse', 'w').truncate(1 << 40)
reached()
""",
        ALL,
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
        "must(syscall(234 if x86 else 131, worker, worker, 0))",
        ALL,
    ),
    Attack(
        "signal the worker by a pidfd",
        "signal.pidfd_send_signal(os.pidfd_open(worker), 0); reached()",
        ALL,
    ),
    Attack(
        "have a descriptor signal the worker",
        """
import fcntl
own, _ = socket.socketpair()
fcntl.fcntl(own, fcntl.F_SETOWN, worker)
if fcntl.fcntl(own, fcntl.F_GETOWN) == worker:
    reached()
""",
        ALL,
    ),
    Attack(
        "have a descriptor signal the worker by ioctl",
        """
import fcntl
own, _ = socket.socketpair()
fcntl.ioctl(own, 0x8901, struct.pack('i', worker))
reached()
""",
        ALL,
    ),
    Attack("signal the init", "os.kill(1, 0); reached()", ALL),
    Attack("signal another command", "os.kill(other, 0); reached()", frozenset({N, M, L})),
    Attack("trace another process", "must(syscall(101 if x86 else 117, 16, other, 0, 0))", ALL),
    Attack(
        "read another process's memory",
        """
here, there = (ctypes.c_size_t * 2)(0, 0), (ctypes.c_size_t * 2)(0, 0)
must(syscall(310 if x86 else 270, other, here, 1, there, 1, 0))
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
        "socket.socket(socket.AF_UNIX).connect(f'\\0{abstract}'); reached()",
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
        "must(libc.shmget(memory_key, 0, 0))",
        ALL,
    ),
    Attack("list shared memory", "os.listdir('/dev/shm') and reached()", FILES),
    Attack("read shared memory by its name", "open(shared).read(); reached()", UNSEEN),
    Attack(
        "write into /dev/shm",
        """
os.stat(shared)  # a mount namespace has another /dev/shm
with open(f'{shared}-{os.getpid()}', 'w') as file: file.write('x')
os.unlink(file.name)
reached()
""",
        UNSEEN,
    ),
    Attack("make a user namespace", "must(libc.unshare(0x10000000))", ALL),
    Attack("mount", "must(libc.mount(b'none', b'.', b'tmpfs', 0, None))", ALL),
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
        "change the group of a file",
        "os.chown(f'{outside}/secret', os.getuid(), os.getgid()); reached()",
        UNSEEN,
    ),
    Attack(
        "write an attribute of a file",
        "os.setxattr(f'{outside}/secret', 'user.note', b'x'); reached()",
        ALL,
    ),
    Attack(
        "write an attribute of a file by setxattrat",
        """
class Value(ctypes.Structure):
    _fields_ = [('data', ctypes.c_char_p), ('size', ctypes.c_uint32), ('flags', ctypes.c_uint32)]
value, path = Value(b'x', 1, 0), f'{outside}/secret'.encode()
must(syscall(463, -100, path, 0, b'user.note', ctypes.byref(value), 16))
""",
        ALL,
    ),
    Attack(
        "give a folder an access control list",
        """
entries = ((1, 7, -1), (2, 7, os.getuid()), (4, 0, -1), (16, 7, -1), (32, 0, -1))
access = struct.pack('<I', 2) + b''.join(
    struct.pack('<HHI', kind, rights, who & 0xFFFFFFFF) for kind, rights, who in entries
)
os.setxattr(outside, 'system.posix_acl_access', access)
reached()
""",
        ALL,
    ),
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


VICTIMS = """
import ctypes, json, os, socket, sys, uuid

root, number, memory_key = sys.argv[1], int(sys.argv[2]), 0x47525054 + os.getpid()
# Containers on the host's network share its abstract sockets, so their names must differ.
shared, abstract = f'/dev/shm/attack-{os.getpid()}', uuid.uuid4().hex
libc = ctypes.CDLL(None, use_errno=True)
memory = libc.shmget(memory_key, 4096, 0o1600)
assert memory >= 0
open(shared, 'w').write('x')
sockets, definitions = [], []
for n in range(number):
    outside = f'{root}/outside-{n}'
    os.mkdir(outside)
    os.chdir(outside)  # the path of a socket has at most 107 characters
    open('secret', 'w').write('not yours')
    os.mkfifo('pipe')
    sockets.append(socket.create_server('socket', family=socket.AF_UNIX))
    definitions.append(
        f'outside, abstract, memory_key = {(outside, abstract, memory_key)!r}\\n'
        f'shared, other = {(shared, os.getpid())!r}\\n'
    )
sockets.append(socket.create_server(f'\\0{abstract}', family=socket.AF_UNIX))
print(json.dumps(definitions), flush=True)
sys.stdin.read()
os.unlink(shared)
libc.shmctl(memory, 0, None)
for n in range(number): os.chmod(f'{root}/outside-{n}', 0o700)
"""
"""Makes what the attacks are aimed at, and keeps it until its standard input is closed.

Its arguments are a folder and the number of attacks. It prints a JSON list with the definitions of
variables for each attack, which are without `worker`, `thread` and `port`.
"""

PRELUDE = """
import ctypes, errno, os, resource, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
x86 = os.uname().machine == 'x86_64'
def reached(): print('REACHED')
def errno_is(number): return ctypes.get_errno() == number
def syscall(*words):
    # Without a type, only half of each number is passed.
    return libc.syscall(*(ctypes.c_long(word) if type(word) is int else word for word in words))
def must(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    reached()
"""

"""Runs a command behind a wall, and ends every process that it started.

    confine.py PLAN PROGRAM ARG…

PLAN is JSON; `graphton.wall.Wall.plan` makes it. This process supervises the command:

- Processes whose parent ends become its children, so none can leave it. When the command ends, it
  kills all of them.
- SIGTERM is passed on to the command. SIGUSR1, or the end of the worker, ends everything at once.
- Its own exit code or signal is that of the command.

The wall is for the command only. It consists of what the plan names: namespaces, limits, Landlock,
a seccomp filter. Root's capabilities are dropped in any case.

The variables for the command come with VARIABLE_PREFIX before their names, so that they have no
effect on this program: the dynamic loader would run code that LD_PRELOAD names before the
restriction is in place.

Exit codes: 125 if the wall cannot be built, 127 if the program does not exist.

This is a separate program because a process with threads can do very little safely between fork
and exec. It uses the standard library only.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

# The numbers of system calls that are the same on all architectures.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _MOUNT_SETATTR = 444, 445, 446, 442
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 22, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_LAST_CAPABILITY = 63

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""The access rights that each version of Landlock can restrict.

Version 2 adds renaming and linking to other folders, 3 truncating, 5 ioctl on devices."""

REFER = 1 << 13
"""The right to move and link files to another folder."""

_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2
_SIGNALS_SINCE = 6
"""The version of Landlock that restricts signals."""

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS = 0x00020000, 0x08000000, 0x10000000, 0x20000000
NEW_NETWORK = 0x40000000
"""Flags of unshare(2)."""

PROXY_PORT = 3128
"""The port of the proxy in a network namespace, where no other program has it."""

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_MNT_DETACH, _AT_RECURSIVE, _AT_FDCWD = 2, 0x8000, -100

READABLE_PATHS = (
    "/bin /lib /lib32 /lib64 /sbin /usr /etc /opt /proc /sys/devices/system/cpu "
    "/var/lib/dpkg /run/systemd/resolve/resolv.conf /run/systemd/resolve/stub-resolv.conf"
)
WRITABLE_DEVICES = (
    "/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx /dev/pts"
)

SHARED_MEMORY = "/dev/shm"
_SHARED_MEMORY_BYTES = 64 << 20

VARIABLE_PREFIX = "GRAPHTON_GIVEN_"

CANNOT_CONFINE, CANNOT_EXECUTE = 125, 127

_NICENESS = 5
"""Commands yield to the worker, which has to end them if they exceed a limit."""

_PATIENCE_SECONDS = 5.0
"""How long a call is tried again that fails because of another command, for example a `chmod`."""

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def landlock_version() -> int:
    """The version of Landlock that the kernel supports; 0 if it has none."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)))


# The sandbox's folder


def with_folder_access(folder: str, work: Callable[[], T]) -> T:
    """Do something that needs the sandbox's folder.

    Another command of the same user may use `chmod` meanwhile. So if permission is denied, the
    owner's rights are restored, and it is tried again. `graphton.access` does the same for the
    worker; this program cannot import it.

    Raises:
        OSError: if `work` fails otherwise, or for too long.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return work()
        except PermissionError:
            if time.monotonic() > deadline:
                raise
        # The next attempt follows at once, before a command takes the rights away again.
        for path in (os.path.dirname(folder), folder):
            with contextlib.suppress(OSError):
                mode = os.lstat(path).st_mode
                if stat.S_ISDIR(mode):
                    os.chmod(path, stat.S_IMODE(mode) | stat.S_IRWXU)


def open_own(folder: str, name: str = "") -> int:
    """Open the sandbox's folder, or a folder in it, to refer to it.

    Raises:
        OSError: if it does not exist, is a link, or cannot be reached.
    """
    flags = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW
    return with_folder_access(folder, lambda: os.open(f"{folder}{name}", flags))


# Landlock


def restrict_files(folder: str, readable: list[str], abi: int, *, own_mounts: bool) -> None:
    """Restrict the files that this process, and every process it starts, can use.

    From version 6 on, also the processes to which they can send signals.

    Raises:
        OSError: if the restriction fails.
    """
    everything = max(rights for since, rights in _RIGHTS.items() if since <= abi)
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if abi >= 6 else 0
    attributes = struct.pack("=QQQ", everything, 0, scoped)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _check(
        _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0), "landlock"
    )
    # Without a mount namespace, other commands of this user have files in /dev/shm. No command can
    # list their names, which are usually random.
    allowed = [(SHARED_MEMORY, everything & ~_READ_DIR)]
    if own_mounts:
        allowed += [(SHARED_MEMORY, everything), ("/tmp", everything)]
        readable = [*readable, "/dev"]
    else:
        devices = [entry for entry in os.scandir("/dev") if not entry.is_symlink()]
        readable += [entry.path for entry in devices if entry.name not in ("shm", "mqueue")]
    allowed += [(path, _READ) for path in readable]
    allowed += [(path, _READ | _WRITE_FILE | 1 << 15) for path in WRITABLE_DEVICES.split()]
    _allow(ruleset, folder, open_own(folder), everything)
    for path, rights in allowed:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            continue  # not every system has all of these paths
        _allow(ruleset, path, fd, rights & everything)
    restrict(ruleset)
    os.close(ruleset)


def restrict_ports(ruleset: int, folder: str) -> None:
    """Restrict the TCP ports to which this process can connect.

    Args:
        ruleset: One of `graphton.wall.allow_other_ports`.
        folder: The folder in which files may be moved. A ruleset that does not mention moving
            files to another folder forbids it.
    """
    for name in ("", "/.tmp"):
        _allow(ruleset, f"{folder}{name}", open_own(folder, name), REFER)
    restrict(ruleset)


def _allow(ruleset: int, path: str, fd: int, rights: int) -> None:
    """Add the rights to a path, which is open as `fd`. A file has no rights of a folder.

    The descriptor is closed.
    """
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        rights &= _FILE_ONLY
    rule = struct.pack("=Qi", rights, fd)
    _check(_libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0), f"landlock `{path}`")
    os.close(fd)


def restrict(ruleset: int) -> None:
    """Apply a ruleset of Landlock. Rulesets that were applied before remain in force."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")


# seccomp


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def install_filter(program: bytes) -> None:
    """Install a seccomp filter for this process and every process it starts.

    Raises:
        OSError: if the kernel refuses it.
    """
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    structure = _Program(len(program) // 8, program)
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(structure), 0, 0), "seccomp")


# Namespaces


def enter_namespaces(flags: int) -> None:
    """Enter a new user namespace, and others with it. The user keeps its ids.

    Raises:
        OSError: if this is not allowed here.
    """
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(flags), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def open_network(channel: int | None) -> None:
    """Start the loopback device of a new network namespace, the only one that it has.

    Args:
        channel: See `graphton.wall.Wall.plan`.

    Raises:
        OSError: if this is not allowed here.
    """
    import fcntl
    import socket

    with socket.socket() as one:
        up = struct.pack("=16sH22x", b"lo", _IFF_UP)
        fcntl.ioctl(one, _SIOCSIFFLAGS, up)
    if channel is None:
        return
    # A socket stays in the namespace in which it was made, whoever uses it.
    with socket.socket() as listener, socket.socket(fileno=channel) as worker:
        listener.bind(("127.0.0.1", PROXY_PORT))
        listener.listen(128)
        socket.send_fds(worker, [b"x"], [listener.fileno()])


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _check(result, f"mount `{target}`")


def build_root(folder: str, readable: list[str], *, own_pids: bool) -> None:
    """Give this mount namespace a root that has only the system, the folder and empty devices.

    `/tmp` is the folder's `.tmp`, and the shared memory is new and small.

    Raises:
        OSError: if a mount is not allowed.
    """
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    # The new root hides the folder in which it is built, so everything is opened before.
    paths = [path for path in readable if path != "/proc"]
    opened = {}
    for path in [*paths, *WRITABLE_DEVICES.split(), "/proc"]:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            opened[path] = os.open(path, os.O_PATH | os.O_CLOEXEC)
    links = {path: os.readlink(path) for path in paths if os.path.islink(path)}
    opened[folder], temporary = open_own(folder), open_own(folder, "/.tmp")
    root = "/tmp"
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    os.chdir(root)
    bound = []
    for path in paths:
        if path in links:
            os.symlink(links[path], f"{root}{path}")
        elif path in opened and not os.path.lexists(f"{root}{path}"):
            _bind(opened[path], f"{root}{path}")
            bound.append(path)
    _make_devices(root, opened)
    if own_pids:
        os.mkdir(f"{root}/proc")
        _mount("proc", f"{root}/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    else:
        _bind(opened["/proc"], f"{root}/proc")
    attributes = struct.pack("=QQQQ", 1, 0, 0, 0)  # MOUNT_ATTR_RDONLY
    for path in bound:
        result = _libc.syscall(
            _MOUNT_SETATTR, _AT_FDCWD, f"{root}{path}".encode(), _AT_RECURSIVE,
            attributes, ctypes.c_size_t(len(attributes)),
        )  # fmt: skip
        _check(result, f"mount_setattr `{path}`")
    _bind(temporary, f"{root}/tmp")
    _bind(opened[folder], f"{root}{folder}")
    for fd in (*opened.values(), temporary):
        os.close(fd)
    _check(_libc.syscall(_pivot_root_number(), b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")
    _mount("none", "/", "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


def _make_devices(root: str, opened: dict[str, int]) -> None:
    """Make a /dev with harmless devices, terminals of its own and empty shared memory."""
    for device in ("null", "zero", "full", "random", "urandom", "tty"):
        if f"/dev/{device}" in opened:
            _bind(opened[f"/dev/{device}"], f"{root}/dev/{device}")
    os.mkdir(f"{root}/dev/pts")
    with contextlib.suppress(OSError):  # without it, there are no terminals
        _mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
        os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{name}")
    os.mkdir(f"{root}{SHARED_MEMORY}")
    options = f"size={_SHARED_MEMORY_BYTES},mode=1777"
    _mount("tmpfs", f"{root}{SHARED_MEMORY}", "tmpfs", _MS_NOSUID | _MS_NODEV, options)


def _pivot_root_number() -> int:
    return 155 if os.uname().machine == "x86_64" else 41


def _bind(fd: int, target: str) -> None:
    """Show what is open as `fd` at `target`, which is created."""
    source = f"/proc/self/fd/{fd}"
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    _mount(source, target, "", _MS_BIND | _MS_REC)


# The command


def drop_capabilities() -> None:
    """Make sure that the program gets no capabilities, even if it runs as root.

    With some of them it could read the environment of any process.
    """
    for capability in range(_LAST_CAPABILITY + 1):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails, harmlessly, for ordinary users


def _run_command(
    plan: dict[str, Any], program: str, arguments: list[str], kill_pipe: tuple[int, int] | None
) -> NoReturn:
    """Build the wall around this process, and become the program.

    Args:
        plan: The plan.
        program: The program.
        arguments: Its arguments.
        kill_pipe: See `_start_killer`; None in a PID namespace.
    """
    folder, readable = plan["folder"], plan["readable"]
    own_mounts = bool(plan["namespaces"] & NEW_MOUNTS)
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setsid()
        if own_mounts:
            build_root(folder, readable, own_pids=bool(plan["namespaces"] & NEW_PIDS))
            with_folder_access(folder, lambda: os.chdir(folder))
        os.nice(_NICENESS)
        for name, value in plan["limits"].items():
            kind = getattr(resource, f"RLIMIT_{name}")
            _, hard = resource.getrlimit(kind)
            limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (limit, limit))
        drop_capabilities()
        if plan["landlock"]:
            restrict_files(folder, readable, plan["landlock"], own_mounts=own_mounts)
            if plan["ports"] is not None:
                restrict_ports(plan["ports"], folder)
                os.set_inheritable(plan["ports"], False)
        if plan["landlock"] >= _SIGNALS_SINCE and kill_pipe is not None:
            _start_killer(kill_pipe, plan["worker"])
        if plan["filter"]:
            install_filter(bytes.fromhex(plan["filter"]))
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
    except (OSError, ValueError) as error:
        print(f"the command cannot be confined: {_reason(error)}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(CANNOT_CONFINE)
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
        sys.stderr.flush()
        os._exit(CANNOT_EXECUTE)


def _start_killer(kill_pipe: tuple[int, int], worker: int) -> None:
    """Start a process that kills all others behind this wall, when the supervisor says so.

    Landlock lets it signal only processes behind the same wall. The kernel kills all of them at
    once, so not even a fork bomb is faster. If the supervisor ends, they are killed too.

    Args:
        kill_pipe: A pipe of the supervisor: the ends for reading and writing.
        worker: The worker's pid, to make sure that it is out of reach.
    """
    first = _fork_patiently()
    if first:
        os.waitpid(first, 0)
        return
    try:
        if not _fork_patiently():  # a child of the supervisor, not of the command
            os.setsid()
            null = os.open("/dev/null", os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            try:
                os.kill(worker, 0)
            except PermissionError:
                os.close(kill_pipe[1])
                os.read(kill_pipe[0], 1)
                os.kill(-1, signal.SIGKILL)
    finally:
        os._exit(0)


# The supervisor

_HANDLED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1}


def _fork_patiently() -> int:
    """Fork, also if another command has used up all processes for a moment."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return os.fork()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _fork(work: Callable[[], NoReturn]) -> int:
    child = _fork_patiently()
    if not child:
        try:
            work()
        finally:
            os._exit(CANNOT_CONFINE)
    return child


def _supervise(child: int, *, is_init: bool, kill_pipe: int | None = None) -> int:
    """Wait until the child ends, then end everything that it has left behind.

    Args:
        child: The process whose status counts.
        is_init: Whether it is the first process of a PID namespace, else it leads a process group.
        kill_pipe: The end of a pipe. If it is closed, a process of `_start_killer` kills the rest.

    Returns:
        Its status as that of waitpid.
    """
    status: int | None = None
    while status is None:
        match signal.sigwait(_HANDLED):
            case signal.SIGTERM:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    (os.kill if is_init else os.killpg)(child, signal.SIGTERM)
            case signal.SIGUSR1:
                status = int(signal.SIGKILL)
            case _:
                status = _reap(child)
    if kill_pipe is not None:
        os.close(kill_pipe)
    _end_everything((lambda: [child]) if is_init else _descendants)
    return status


def _reap(child: int) -> int | None:
    """Take the status of all children that have ended. Returns that of `child`."""
    result = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                result = ended[1]
    return result


def _end_everything(find: Callable[[], list[int]]) -> None:
    """Kill all descendants. They stay descendants, because this process is their subreaper.

    Args:
        find: Finds the processes to kill. In a PID namespace this is only the first process: the
            kernel ends the others with it.
    """
    pause = 0.001
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in find():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(pause)
        # Soon all have ended, unless one hangs in the kernel. This process must not end before.
        pause = min(0.5, pause * 1.2)


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found = list(children.get(os.getpid(), []))
    for pid in found:
        found += children.get(pid, [])
    return found


def _run_init(plan: dict[str, Any], program: str, arguments: list[str], result: int) -> NoReturn:
    """Be the first process of a PID namespace. When it ends, the kernel ends all others."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    command = _fork(lambda: _run_command(plan, program, arguments, None))
    status = None
    while status is None:
        if signal.sigwait(_HANDLED) == signal.SIGTERM:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(command, signal.SIGTERM)
        else:
            status = _reap(command)
    os.write(result, status.to_bytes(4, "little"))
    os._exit(0)


def main() -> None:
    """Run the command line. Does not return."""
    plan = json.loads(sys.argv[1])
    program, *arguments = sys.argv[2:]
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
    if os.getppid() != plan["worker"]:
        sys.exit(CANNOT_CONFINE)  # the worker has ended meanwhile
    # When memory runs out, the kernel should kill the command rather than the worker.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if plan["report"] is not None:
        os.set_inheritable(plan["report"], False)
    try:
        if plan["namespaces"]:
            enter_namespaces(plan["namespaces"])
        if plan["namespaces"] & NEW_NETWORK:
            open_network(plan["channel"])
    except OSError as error:
        print(f"the command cannot be confined: {_reason(error)}", file=sys.stderr)
        sys.exit(CANNOT_CONFINE)
    if plan["namespaces"] & NEW_PIDS:
        reading, writing = os.pipe()
        child = _fork(lambda: _run_init(plan, program, arguments, writing))
        os.close(writing)
        status = _supervise(child, is_init=True)
        reported = os.read(reading, 4)
        if len(reported) == 4:
            status = int.from_bytes(reported, "little")
    else:
        kill_pipe = os.pipe()
        child = _fork(lambda: _run_command(plan, program, arguments, kill_pipe))
        os.close(kill_pipe[0])
        status = _supervise(child, is_init=False, kill_pipe=kill_pipe[1])
    if plan["report"] is not None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(plan["report"], struct.pack("=d", used.ru_utime + used.ru_stime))
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.kill(os.getpid(), number)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()

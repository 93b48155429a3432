"""Runs an agent's commands, behind a wall and with limits on time, output and resources."""

import asyncio
import contextlib
import ctypes
import errno
import os
import secrets
import signal
import stat
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from graphton import confine, limits
from graphton.access import restore_access
from graphton.blocking import run_blocking
from graphton.gateway import Gateway, open_gateway
from graphton.isolation import Isolation
from graphton.network import Network
from graphton.wall import Wall, allow_other_ports, command_line, find_wall, with_network

if TYPE_CHECKING:
    from graphton.proxy import Allowlist

TERMINATION_GRACE_SECONDS: Final = 1.0
"""Seconds between SIGTERM and SIGKILL."""

END_SECONDS: Final = 15.0
"""How long the supervisor of a command may take to end all of its processes."""

START_SECONDS: Final = 5.0
"""How long starting a command is tried again if there are too many processes, or if another command
has taken the rights from the sandbox."""

FIRST_DISK_SECONDS: Final = 1.0
"""The shortest time between two measurements of the sandbox's size while a command runs.

If a measurement takes long, the next pause is ten times as long as it took."""

INHERITED_VARIABLES: Final = ("LANG", "LC_ALL", "PATH", "TZ")
"""The variables that a command inherits from this process. The others may hold keys."""

COMMAND_ID_VARIABLE: Final = "GRAPHTON_COMMAND"
"""Holds a random id in the environment of every process that a command starts."""

_PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(frozen=True, slots=True)
class Configuration:
    """How commands run.

    Attributes:
        isolation: What happens without a wall.
        denied_ports: TCP ports to which commands cannot connect if the network is open, and the
            kernel can restrict them.
        network: What commands reach.
        allowlist: What the proxy of Network.ALLOWLIST allows; None if it is not needed.
    """

    isolation: Isolation = Isolation.AUTO
    denied_ports: frozenset[int] = frozenset()
    network: Network = Network.OPEN
    allowlist: "Allowlist | None" = None


_configuration = Configuration()


def configure(configuration: Configuration) -> None:
    """Set how commands run from now on."""
    global _configuration  # noqa: PLW0603 (it is the same for the whole process)
    _configuration = configuration
    _port_ruleset.cache_clear()


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command.

    Attributes:
        exit_code: The exit code; negative for the signal that ended it; None after a timeout.
        output: Standard output and standard error, interleaved. If there is too much, the middle
            is left out.
        dropped_bytes: The number of bytes left out.
        excess: Which limit ended it; empty if none. The exit code is then that of SIGKILL.
        note: What has become too large at its end, for the model; usually empty.
    """

    exit_code: int | None
    output: bytes
    dropped_bytes: int
    excess: str = ""
    note: str = ""


_trying = threading.Lock()


def wall() -> Wall:
    """The wall of commands. It is tried out once."""
    with _trying:
        found = _wall()
        return found if network() is Network.OPEN else _with_network(found)


_wall = cache(find_wall)
_with_network = cache(with_network)


def network() -> Network:
    """What commands reach outside of the sandbox."""
    return _configuration.network


def refusal() -> str:
    """Why commands must not run; empty if they may."""
    if _configuration.isolation is Isolation.REQUIRE and (missing := wall().missing):
        return f"SANDBOX_ISOLATION is `require`, but {missing}; with `auto`, commands run without"
    if missing := wall().missing_for(network()):
        return (
            f"AGENT_NETWORK is `{network()}`, but {missing}; use a newer kernel, an engine that "
            "allows user namespaces, or AGENT_NETWORK=open"
        )
    return ""


def prepare() -> None:
    """Do what the first command needs. This takes half a second, mostly for the ports."""
    wall()
    _port_ruleset()
    _watch().start()


@cache
def _port_ruleset() -> int | None:
    denied = _configuration.denied_ports
    return allow_other_ports(denied) if denied and network() is Network.OPEN else None


@cache
def _watch() -> limits.Watch:
    return limits.Watch()


async def run(  # noqa: PLR0913 (the last has a default)
    arguments: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 (it ends the command, which a caller's timeout would not)
    output_limit: int,
    account: limits.Account | None = None,
) -> CommandResult:
    """Run a program, and end every process that it started before returning.

    Args:
        arguments: The program and its arguments.
        folder: The working folder, the only one that the program can write to.
        environment: Variables in addition to INHERITED_VARIABLES.
        timeout: Seconds after which the program is ended.
        output_limit: Bytes of output to keep.
        account: The account of the execution; None for a new one.

    Raises:
        OSError: if the program cannot be started, must not run without a wall, or the execution
            has used up a limit.
    """
    account = account or limits.Account()
    output, input_end = os.pipe()
    # With asyncio's own pipe, `wait` would also wait for background processes that keep it open.
    pipe, end = os.fdopen(output, "rb", buffering=0), os.fdopen(input_end, "wb", buffering=0)
    kept, timed_out = BoundedOutput(output_limit), False
    reading = None
    try:
        async with running(
            arguments, folder, environment, account, stdout=end, stderr=end
        ) as command:
            end.close()
            reading = asyncio.create_task(_read(pipe, kept))
            try:
                async with asyncio.timeout(timeout):
                    await command.process.wait()
            except TimeoutError:
                timed_out = True
                await command.terminate()
    finally:
        end.close()
        if reading is None:
            pipe.close()
        else:
            # A process that hangs in the kernel may keep the pipe open.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERMINATION_GRACE_SECONDS):
                    await asyncio.shield(reading)
            reading.cancel()
    code = None if timed_out and not command.excess else command.process.returncode
    note = await command.note()
    return CommandResult(code, kept.join(), kept.dropped_bytes, command.excess, note)


@contextlib.asynccontextmanager
async def running(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    account: limits.Account,
    **pipes: Any,
) -> AsyncIterator["Command"]:
    """Start a program, and watch it during the `with` block. All its processes end with the block.

    Args:
        arguments: See `run`.
        folder: See `run`.
        environment: See `run`.
        account: That of the execution. What the program uses is added to it.
        pipes: Arguments for `create_subprocess_exec`.

    Raises:
        OSError: see `run`.
    """
    await run_blocking(prepare)
    if reason := refusal():
        raise OSError(errno.EPERM, reason)
    if account.refusal:
        raise OSError(errno.EDQUOT, account.refusal)
    async with contextlib.AsyncExitStack() as exits:
        gateway = await exits.enter_async_context(
            open_gateway(network(), wall(), _configuration.allowlist, _port_ruleset())
        )
        report, report_end = os.pipe()
        os.set_blocking(report, False)
        reports = exits.enter_context(os.fdopen(report, "rb", buffering=0))
        plan = _plan(folder, account, gateway, report_end)
        try:
            process = await _start(
                [*command_line(plan), *arguments],
                folder,
                {**environment, **gateway.variables},
                pass_fds=[*gateway.descriptors, report_end],
                **pipes,
            )
        finally:
            os.close(report_end)
        command = Command(process, folder, account)
        account.running.append(command.exceeded)
        exits.callback(account.running.remove, command.exceeded)
        measuring = asyncio.create_task(command.watch_disk())
        with _watch().watching(process.pid, account, command.exceeded) as watched:
            try:
                yield command
            finally:
                measuring.cancel()
                # This ends background processes too, and the command itself if this task is
                # cancelled.
                await command.end()
                # The report lacks the processes that end together with a PID namespace.
                reported = _parse_report(reports.read(_REPORT.size))
                account.cpu_seconds += max(watched.cpu_seconds, reported)


_REPORT: Final = struct.Struct("=d")


def _parse_report(data: bytes | None) -> float:
    """The processor time that a supervisor has reported; 0 if it was killed before."""
    return float(_REPORT.unpack(data)[0]) if data and len(data) == _REPORT.size else 0.0


def _plan(folder: Path, account: limits.Account, gateway: Gateway, report: int) -> str:
    return wall().plan(
        folder,
        protected=_worker_threads(),
        limits=account.of_each_process,
        network=gateway.network,
        ports=gateway.ports,
        channel=None if gateway.channel is None else gateway.channel.fileno(),
        report=report,
    )


async def _start(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    stdin: int = asyncio.subprocess.DEVNULL,
    **pipes: Any,
) -> asyncio.subprocess.Process:
    """Start a program. `pipes` are arguments for `create_subprocess_exec`."""
    base = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    own = {"HOME": str(folder), "TMPDIR": f"{folder}/.tmp", "PWD": str(folder)}
    command_id = {COMMAND_ID_VARIABLE: secrets.token_hex(16)}
    given = {
        f"{confine.VARIABLE_PREFIX}{n}": value
        for n, value in environment.items()
        if n != COMMAND_ID_VARIABLE
    }
    _adopt_orphans()
    deadline = time.monotonic() + START_SECONDS
    while True:
        # Another execution's command of the same user may have used `chmod`.
        for path in (folder.parent, folder, folder / ".tmp"):
            restore_access(path)
        try:
            _make_temporary_folder(folder / ".tmp")
            return await asyncio.create_subprocess_exec(
                *arguments,
                cwd=folder,
                env=base | own | command_id | given,
                stdin=stdin,
                start_new_session=True,
                **pipes,
            )
        except (BlockingIOError, PermissionError):  # too many processes, or `chmod` again
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def _make_temporary_folder(path: Path) -> None:
    """Make the folder for temporary files, which an earlier command may have removed or replaced.

    Raises:
        OSError: if it cannot be made.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            return
        path.unlink()
    path.mkdir()


class Command:
    """A command that runs.

    Args:
        process: Its supervisor: see `graphton.confine`.
        folder: The sandbox.
        account: That of the execution.

    Attributes:
        process: See above.
        excess: Which limit ended it; empty if none.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, folder: Path, account: limits.Account
    ) -> None:
        self.process = process
        self._folder = folder
        self._account = account
        self._exceeded_at = 0.0
        self.excess = ""

    def exceeded(self, excess: str) -> None:
        """End the command because of a limit."""
        if not self.excess:
            self.excess, self._exceeded_at = excess, time.monotonic()
        # A command may stop its supervisor again and again. `end` then ends its processes.
        late = time.monotonic() - self._exceeded_at > END_SECONDS
        self._signal(signal.SIGKILL if late else signal.SIGUSR1)

    async def watch_disk(self) -> None:
        """Measure the size of the sandbox again and again, and end a command if it is too large.

        That is the one that has started last: which one has written is not known. If the sandbox
        was too large before, commands may make it smaller.
        """
        if self._account.disk is None:
            await self._measure_disk()
        while True:
            await asyncio.sleep(max(FIRST_DISK_SECONDS, 10 * self._account.measuring_seconds))
            if (excess := await self._measure_disk()) and self._account.running:
                self._account.running[-1](excess)

    async def note(self) -> str:
        """Measure the sandbox after the command, and say whether it is too large.

        So many short commands cannot fill it. A measurement that took long is not repeated at
        once, unless the sandbox was too large.
        """
        took = self._account.measuring_seconds
        is_due = time.monotonic() - self._account.measured > 10 * took
        if took < FIRST_DISK_SECONDS or is_due or self._account.is_disk_exceeded:
            await self._measure_disk()
        if not self._account.is_disk_exceeded:
            return ""
        return (
            f"the sandbox has more than {self._account.limits.disk >> 20} MiB: remove files; "
            "until then, commands cannot write files larger than "
            f"{limits.MAX_FILE_BYTES_OVER_DISK >> 10} KiB"
        )

    async def _measure_disk(self) -> str:
        began = time.monotonic()
        size = await _measure(self._folder)
        self._account.measured = time.monotonic()
        self._account.measuring_seconds = self._account.measured - began
        return "" if size is None else self._account.disk_excess(size)

    async def terminate(self) -> None:
        """Ask the command to end, and wait a moment."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERMINATION_GRACE_SECONDS):
                await self.process.wait()

    async def end(self) -> None:
        """End all processes of the command, and wait for that."""
        self._signal(signal.SIGUSR1)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self.process.wait()
            if self.process.returncode is None:  # a command may have stopped it
                self._signal(signal.SIGKILL)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TERMINATION_GRACE_SECONDS):
                        await self.process.wait()
        finally:
            # A supervisor that still runs goes on killing. If it was killed, nobody else ends the
            # command's processes.
            if self.process.returncode == -signal.SIGKILL:
                await run_blocking(_end_orphans)

    def _signal(self, number: signal.Signals) -> None:
        # Not if it has ended: another process may have its id by now.
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)
                os.kill(self.process.pid, signal.SIGCONT)  # a command may have stopped it


async def _measure(folder: Path) -> int | None:
    """The bytes that a folder takes on the disk; None if they cannot be counted."""
    # Programs, because they also count folders that are nested too deeply for a path.
    count = ("du", "-skx", str(folder))
    output, is_denied = await _run_own(*count)
    if is_denied:
        # A command may have hidden files in a folder from which it has taken its own rights.
        await _run_own("chmod", "-R", "u+rX", str(folder))
        output, _ = await _run_own(*count)
    return int(output.split()[0]) << 10 if output else None


async def _run_own(*arguments: str) -> tuple[bytes, bool]:
    """Run a program of the worker. Returns its output, and whether it lacked a permission."""
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            # Without the worker's keys: other commands may be able to read this environment.
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError:
        return b"", False
    assert process.stdout and process.stderr  # noqa: S101 (both are pipes)
    try:
        async with asyncio.TaskGroup() as tasks:
            output = tasks.create_task(process.stdout.read())
            denied = tasks.create_task(_contains(process.stderr, b"Permission denied"))
        await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    return output.result(), denied.result()


async def _contains(stream: asyncio.StreamReader, words: bytes) -> bool:
    """Read a stream to its end, without keeping it. Returns whether the words are in it."""
    found, last = False, b""
    while chunk := await stream.read(1 << 16):
        found = found or words in last + chunk
        last = chunk[-len(words) :]
    return found


def _worker_threads() -> set[int]:
    """The threads of this process, its process group, and the processes that it depends on.

    A signal to any thread reaches its process.
    """
    found = {1, os.getppid(), os.getpid(), os.getpgrp()}
    with contextlib.suppress(OSError):
        found |= {int(name) for name in os.listdir("/proc/self/task")}  # noqa: PTH208
    return found - {0}


@cache
def _adopt_orphans() -> None:
    """Become the parent of processes whose supervisor was killed. See `_end_orphans`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_orphans() -> None:
    """End the processes of a command whose supervisor was killed.

    A command can kill or stop it only on a kernel whose Landlock does not restrict signals, and
    without a PID namespace. The supervisor's processes become children of this one. They are
    recognised by their filter.
    """
    deadline = time.monotonic() + END_SECONDS
    own = _count_filters(os.getpid())
    ended_before: set[int] = set()
    while time.monotonic() < deadline:
        children = [one for one in limits.list_processes() if one.parent == os.getpid()]
        ended = {one.pid for one in children if one.ended}
        # asyncio or the thread that started a process reaps it at once. A process that has ended
        # and is still there in the next round is an orphan.
        for pid in ended & ended_before:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        orphans = [one.pid for one in children if _count_filters(one.pid) > own and not one.ended]
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not orphans and not ended:
            return
        ended_before = ended
        time.sleep(0.01 if orphans else 0.5)


def _count_filters(pid: int) -> int:
    """How many seccomp filters a process has; before Linux 5.9, whether it has some."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(fields.get("Seccomp_filters", fields.get("Seccomp", "0")))
    return 0


async def _read(pipe: BinaryIO, kept: "BoundedOutput") -> None:
    loop, stream = asyncio.get_running_loop(), asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    try:
        while chunk := await stream.read(65536):
            kept.add(chunk)
    finally:
        transport.close()


class BoundedOutput:
    """Keeps the first three quarters and the last quarter of `limit` bytes of output.

    Args:
        limit: The number of bytes to keep.

    Attributes:
        dropped_bytes: The number of bytes left out.
    """

    def __init__(self, limit: int) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self._head_limit, self._tail_limit = limit - limit // 4, limit // 4
        self.dropped_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Add output, and leave out what is too much."""
        room = self._head_limit - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        excess = len(self._tail) - self._tail_limit
        if excess > 0:
            del self._tail[:excess]
            self.dropped_bytes += excess

    def join(self) -> bytes:
        """The output, with a line that says how much is left out."""
        if not self.dropped_bytes:
            return bytes(self._head + self._tail)
        note = f"\n[… {self.dropped_bytes} bytes left out …]\n".encode()
        return bytes(self._head) + note + bytes(self._tail)

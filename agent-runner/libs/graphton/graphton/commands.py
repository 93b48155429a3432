"""Runs an agent's commands, behind a wall and with limits on time, output and resources."""

import asyncio
import contextlib
import ctypes
import errno
import os
import secrets
import signal
import stat
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

from graphton import confine, limits
from graphton.access import restore_access
from graphton.blocking import run_blocking
from graphton.isolation import Isolation
from graphton.wall import Wall, allow_ports, command_line, find_wall

TERMINATION_GRACE_SECONDS: Final = 1.0
"""Seconds between SIGTERM and SIGKILL."""

END_SECONDS: Final = 15.0
"""How long the supervisor of a command may take to end all of its processes."""

START_SECONDS: Final = 5.0
"""How long starting a command is tried again if there are too many processes."""

FIRST_DISK_SECONDS: Final = 1.0
"""The shortest time between two measurements of the sandbox's size, and before the first one.

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
        denied_ports: TCP ports to which commands cannot connect, if the kernel can restrict them.
    """

    isolation: Isolation = Isolation.AUTO
    denied_ports: frozenset[int] = frozenset()


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
    """

    exit_code: int | None
    output: bytes
    dropped_bytes: int
    excess: str = ""


_trying = threading.Lock()


def wall() -> Wall:
    """The wall of commands. It is tried out once."""
    with _trying:
        return _wall()


_wall = cache(find_wall)


def refusal() -> str:
    """Why commands must not run; empty if they may."""
    if _configuration.isolation is Isolation.REQUIRE and (missing := wall().missing):
        return f"SANDBOX_ISOLATION is `require`, but {missing}; with `auto`, commands run without"
    return ""


def prepare() -> None:
    """Do what the first command needs. This takes half a second, mostly for the ports."""
    wall()
    _port_ruleset()
    _watch().start()


@cache
def _port_ruleset() -> int | None:
    denied = _configuration.denied_ports
    return allow_ports(denied) if denied else None


@cache
def _watch() -> limits.Watch:
    return limits.Watch()


async def run(
    arguments: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 (it ends the command, which a caller's timeout would not)
    output_limit: int,
) -> CommandResult:
    """Run a program, and end every process that it started before returning.

    Args:
        arguments: The program and its arguments.
        folder: The working folder, the only one that the program can write to.
        environment: Variables in addition to INHERITED_VARIABLES.
        timeout: Seconds after which the program is ended.
        output_limit: Bytes of output to keep.

    Raises:
        OSError: if the program cannot be started, or must not run without a wall.
    """
    await run_blocking(prepare)
    if reason := refusal():
        raise OSError(errno.EPERM, reason)
    allowed = limits.Limits(memory=limits.memory_limit(limits.available_memory()))
    output, input_end = os.pipe()
    # With asyncio's own pipe, `wait` would also wait for background processes that keep it open.
    pipe = os.fdopen(output, "rb", buffering=0)
    try:
        process = await _start(arguments, folder, environment, allowed, input_end)
    except BaseException:
        pipe.close()
        raise
    finally:
        os.close(input_end)
    kept = _BoundedOutput(output_limit)
    reading = asyncio.create_task(_read(pipe, kept))
    command = _Command(process, folder, allowed)
    measuring = asyncio.create_task(command.watch_disk())
    timed_out = False
    try:
        with _watch().watching(process.pid, allowed, command.exceeded):
            try:
                async with asyncio.timeout(timeout):
                    await process.wait()
            except TimeoutError:
                timed_out = True
                await command.terminate()
    finally:
        measuring.cancel()
        # This ends background processes too, and the command itself if this task is cancelled.
        await command.end()
        # A process that hangs in the kernel may keep the pipe open.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERMINATION_GRACE_SECONDS):
                await asyncio.shield(reading)
        reading.cancel()
    code = None if timed_out and not command.excess else process.returncode
    return CommandResult(code, kept.join(), kept.dropped_bytes, command.excess)


async def _start(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    allowed: limits.Limits,
    output: int,
) -> asyncio.subprocess.Process:
    base = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    own = {"HOME": str(folder), "TMPDIR": f"{folder}/.tmp", "PWD": str(folder)}
    command_id = {COMMAND_ID_VARIABLE: secrets.token_hex(16)}
    given = {
        f"{confine.VARIABLE_PREFIX}{n}": value
        for n, value in environment.items()
        if n != COMMAND_ID_VARIABLE
    }
    ports = _port_ruleset()
    plan = wall().plan(
        folder,
        protected=_worker_threads(),
        limits=allowed.of_each_process,
        ports=ports,
    )
    _adopt_orphans()
    deadline = time.monotonic() + START_SECONDS
    while True:
        # Another execution's command of the same user may have used `chmod`.
        for path in (folder.parent, folder, folder / ".tmp"):
            restore_access(path)
        try:
            _make_temporary_folder(folder / ".tmp")
            return await asyncio.create_subprocess_exec(
                *command_line(plan),
                *arguments,
                cwd=folder,
                env=base | own | command_id | given,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=() if ports is None else (ports,),
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


class _Command:
    """A command that runs.

    Args:
        process: Its supervisor: see `graphton.confine`.
        folder: The sandbox.
        allowed: The limits.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, folder: Path, allowed: limits.Limits
    ) -> None:
        self._process = process
        self._folder = folder
        self._limits = allowed
        self.excess = ""

    def exceeded(self, excess: str) -> None:
        """End the command because of a limit."""
        self.excess = self.excess or excess
        self._signal(signal.SIGUSR1)

    async def watch_disk(self) -> None:
        """Measure the size of the sandbox again and again, and end the command if it is too large.

        If the sandbox was too large before, the command may make it smaller.
        """
        pause, before = FIRST_DISK_SECONDS, None
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            size = await _measure(self._folder)
            pause = max(FIRST_DISK_SECONDS, 10 * (time.monotonic() - began))
            if size > self._limits.disk and before is not None and size > before:
                self.exceeded(f"the sandbox had more than {self._limits.disk >> 20} MiB")
            before = size if before is None else min(before, size)

    async def terminate(self) -> None:
        """Ask the command to end, and wait a moment."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERMINATION_GRACE_SECONDS):
                await self._process.wait()

    async def end(self) -> None:
        """End all processes of the command, and wait for that."""
        self._signal(signal.SIGUSR1)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
        finally:
            # A supervisor that still runs goes on killing. If a command killed it, nobody else ends
            # the command's processes.
            if self._process.returncode == -signal.SIGKILL:
                await run_blocking(_end_orphans)

    def _signal(self, number: signal.Signals) -> None:
        # Not if it has ended: another process may have its id by now.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


async def _measure(folder: Path) -> int:
    """The bytes that a folder takes on the disk; 0 if they cannot be counted."""
    # A program, because it also counts folders that are nested too deeply for a path.
    with contextlib.suppress(OSError, ValueError):
        process = await asyncio.create_subprocess_exec(
            *("du", "-skx", str(folder)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        return int(output.split()[0]) << 10 if output else 0
    return 0


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
    """End the processes of a command that has killed its supervisor.

    A command can do this only on a kernel whose Landlock does not restrict signals, and without a
    PID namespace. Its processes become children of this one. They are recognised by their filter.
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


async def _read(pipe: BinaryIO, kept: "_BoundedOutput") -> None:
    loop, stream = asyncio.get_running_loop(), asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    try:
        while chunk := await stream.read(65536):
            kept.add(chunk)
    finally:
        transport.close()


class _BoundedOutput:
    """Keeps the first three quarters and the last quarter of `limit` bytes of output."""

    def __init__(self, limit: int) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self._head_limit, self._tail_limit = limit - limit // 4, limit // 4
        self.dropped_bytes = 0

    def add(self, chunk: bytes) -> None:
        room = self._head_limit - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        excess = len(self._tail) - self._tail_limit
        if excess > 0:
            del self._tail[:excess]
            self.dropped_bytes += excess

    def join(self) -> bytes:
        if not self.dropped_bytes:
            return bytes(self._head + self._tail)
        note = f"\n[… {self.dropped_bytes} bytes left out …]\n".encode()
        return bytes(self._head) + note + bytes(self._tail)

"""Runs an agent's commands, confined and with limits on time and output."""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from graphton import confine

TERMINATION_GRACE_SECONDS: Final = 1.0
"""Seconds between SIGTERM and SIGKILL."""

INHERITED_VARIABLES: Final = ("LANG", "LC_ALL", "PATH", "TZ")
"""The variables that a command inherits from this process. The others may hold keys."""

COMMAND_ID_VARIABLE: Final = "GRAPHTON_COMMAND"
"""Holds a random id in the environment of every process that a command starts.

Processes that left the command's process group are found by it."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command.

    Attributes:
        exit_code: The exit code; negative for the signal that ended it; None after a timeout.
        output: Standard output and standard error, interleaved. If there is too much, the middle
            is left out.
        dropped_bytes: The number of bytes left out.
    """

    exit_code: int | None
    output: bytes
    dropped_bytes: int


def can_confine() -> bool:
    """Whether the kernel can confine commands."""
    return sys.platform == "linux" and confine.landlock_version() > 0


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
        OSError: if the program cannot be started.
    """
    base = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    own = {"HOME": str(folder), "TMPDIR": f"{folder}/.tmp", "PWD": str(folder)}
    command_id = {COMMAND_ID_VARIABLE: secrets.token_hex(16)}
    given = {
        f"{confine.VARIABLE_PREFIX}{n}": value
        for n, value in environment.items()
        if n != COMMAND_ID_VARIABLE
    }
    readable = ":".join(sorted({sys.prefix, sys.base_prefix}))  # so that it can run Python
    wrapper = [sys.executable, "-I", "-S", str(Path(confine.__file__)), str(folder), readable]
    # With asyncio's own pipe, `wait` would also wait for background processes that keep it open.
    output, input_end = os.pipe()
    pipe = os.fdopen(output, "rb", buffering=0)
    try:
        process = await asyncio.create_subprocess_exec(
            *wrapper,
            *arguments,
            cwd=folder,
            env=base | own | command_id | given,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=input_end,
            stderr=input_end,
            start_new_session=True,
        )
    except BaseException:
        pipe.close()
        raise
    finally:
        os.close(input_end)
    kept = _BoundedOutput(output_limit)
    reading = asyncio.create_task(_read(pipe, kept))
    timed_out = False
    try:
        try:
            async with asyncio.timeout(timeout):
                await process.wait()
        except TimeoutError:
            timed_out = True
            await _terminate(process)
    finally:
        # This also ends background processes, and the command itself if this task is cancelled.
        _signal_group(process.pid, signal.SIGKILL)
        _kill_remaining(command_id[COMMAND_ID_VARIABLE])
        # A process that has cleared its environment is not found and may keep the pipe open.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERMINATION_GRACE_SECONDS):
                await asyncio.shield(reading)
        reading.cancel()
    return CommandResult(None if timed_out else process.returncode, kept.join(), kept.dropped_bytes)


async def _terminate(process: asyncio.subprocess.Process) -> None:
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TERMINATION_GRACE_SECONDS):
            await process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill_remaining(command_id: str) -> None:
    """Kill processes that left the process group, such as daemons."""
    wanted = f"{COMMAND_ID_VARIABLE}={command_id}".encode()
    for _ in range(5):  # a process may start another one during the search
        found = False
        for name in os.listdir("/proc") if sys.platform == "linux" else ():  # noqa: PTH208 (names)
            if name.isdigit():
                with contextlib.suppress(OSError):
                    if wanted in Path(f"/proc/{name}/environ").read_bytes():
                        os.kill(int(name), signal.SIGKILL)
                        found = True
        if not found:
            return


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

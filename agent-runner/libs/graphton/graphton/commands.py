"""Shell commands of an agent: confined, within limits of time and output."""

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

KILL_SECONDS: Final = 1.0
"""How long a command may tidy up between SIGTERM and SIGKILL."""

HANDED_ON: Final = ("LANG", "LC_ALL", "PATH", "TZ")
"""What a command gets of this process's environment. It holds keys: nothing else goes along."""

MARK: Final = "GRAPHTON_COMMAND"
"""The variable by which processes are known as a command's, wherever they went."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended.

    Attributes:
        code: Its exit code, minus the signal's number after a signal, None after a timeout.
        output: What it wrote to stdout and stderr, as it came. What is too much is left out in
            the middle.
        dropped: How many bytes were left out.
    """

    code: int | None
    output: bytes
    dropped: int


def confined() -> bool:
    """Whether the kernel can confine commands."""
    return sys.platform == "linux" and confine.version() > 0


async def run(
    arguments: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 (the command is ended, not only its waiter)
    output_limit: int,
) -> Finished:
    """Run a program in a folder. It and all that it started has ended when this returns.

    Args:
        arguments: The program and its arguments.
        folder: Its working folder, and the only one it can write to.
        environment: Variables, beside the few of HANDED_ON.
        timeout: Seconds, after which it is ended.
        output_limit: Bytes of output to keep.

    Raises:
        OSError: if it cannot be started.
    """
    base = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    own = {"HOME": str(folder), "TMPDIR": f"{folder}/.tmp", "PWD": str(folder)}
    mark = {MARK: secrets.token_hex(16)}
    given = {f"{confine.GIVEN}{n}": value for n, value in environment.items() if n != MARK}
    readable = ":".join(sorted({sys.prefix, sys.base_prefix}))  # Python, wherever it is
    wrapper = [sys.executable, "-I", "-S", str(Path(confine.__file__)), str(folder), readable]
    # A pipe of our own: asyncio's would have us wait for all who hold it, not for the command.
    output, input_end = os.pipe()
    pipe = os.fdopen(output, "rb", buffering=0)
    try:
        process = await asyncio.create_subprocess_exec(
            *wrapper,
            *arguments,
            cwd=folder,
            env=base | own | mark | given,
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
    kept = _Ends(output_limit)
    reading = asyncio.create_task(_read(pipe, kept))
    timed_out = False
    try:
        try:
            async with asyncio.timeout(timeout):
                await process.wait()
        except TimeoutError:
            timed_out = True
            await _end(process)
    finally:
        # Also what it left in the background, and all of it if we are cancelled.
        _signal(process.pid, signal.SIGKILL)
        _kill_marked(mark[MARK])
        # Somebody who has cleared its environment may still hold the pipe.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_SECONDS):
                await asyncio.shield(reading)
        reading.cancel()
    return Finished(None if timed_out else process.returncode, kept.join(), kept.dropped)


async def _end(process: asyncio.subprocess.Process) -> None:
    _signal(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_SECONDS):
            await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill_marked(mark: str) -> None:
    """End who left the process group (a daemon does), told by the environment it began with."""
    wanted = f"{MARK}={mark}".encode()
    for _ in range(5):  # one may start another while we look
        found = False
        for name in os.listdir("/proc") if sys.platform == "linux" else ():  # noqa: PTH208 (names)
            if name.isdigit():
                with contextlib.suppress(OSError):
                    if wanted in Path(f"/proc/{name}/environ").read_bytes():
                        os.kill(int(name), signal.SIGKILL)
                        found = True
        if not found:
            return


async def _read(pipe: BinaryIO, kept: "_Ends") -> None:
    loop, stream = asyncio.get_running_loop(), asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    try:
        while chunk := await stream.read(65536):
            kept.add(chunk)
    finally:
        transport.close()


class _Ends:
    """The beginning and the end of what is too long: three quarters and one quarter of a limit."""

    def __init__(self, limit: int) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self._head_limit, self._tail_limit = limit - limit // 4, limit // 4
        self.dropped = 0

    def add(self, chunk: bytes) -> None:
        room = self._head_limit - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        excess = len(self._tail) - self._tail_limit
        if excess > 0:
            del self._tail[:excess]
            self.dropped += excess

    def join(self) -> bytes:
        if not self.dropped:
            return bytes(self._head + self._tail)
        note = f"\n[… {self.dropped} bytes left out …]\n".encode()
        return bytes(self._head) + note + bytes(self._tail)

"""Runs programs that talk over their standard input and output, such as MCP servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from graphton import limits
from graphton.commands import (
    TERMINATION_GRACE_SECONDS,
    BoundedOutput,
    Command,
    CommandResult,
    running,
)

ERROR_BYTES: Final = 8_000
"""How much of a service's standard error is kept."""


class Service:
    """A program that runs until it is ended, and talks over its standard input and output.

    Attributes:
        input: Its standard input.
        output: Its standard output.
    """

    def __init__(self, command: Command) -> None:
        process = command.process
        assert process.stdin and process.stdout and process.stderr  # noqa: S101 (for mypy)
        self.input, self.output = process.stdin, process.stdout
        self._process, self._command = process, command
        self._errors = BoundedOutput(ERROR_BYTES)
        self._reading = asyncio.create_task(self._read_errors(process.stderr))

    async def _read_errors(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(65536):
            self._errors.add(chunk)

    @property
    def errors(self) -> bytes:
        """What the program has written to its standard error so far."""
        return self._errors.join()

    async def result(self) -> CommandResult:
        """Wait a moment for the program's end. The output is its standard error.

        Its exit code is None if it still runs.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERMINATION_GRACE_SECONDS):
                await self._process.wait()
                await asyncio.shield(self._reading)
        errors, excess = self._errors, self._command.excess
        return CommandResult(self._process.returncode, errors.join(), errors.dropped_bytes, excess)

    async def end(self) -> None:
        """Close its input, ask it to end, waiting a moment for each, and end all its processes."""
        try:
            self.input.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERMINATION_GRACE_SECONDS):
                    await self._process.wait()
            if self._process.returncode is None:
                await self._command.terminate()
        finally:
            await self._command.end()
            if self.input.transport.get_write_buffer_size():
                self.input.transport.abort()
            # asyncio closes a pipe when it has read all of it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERMINATION_GRACE_SECONDS):
                    while await self.output.read(65536):
                        pass
                    await self._reading
            self._reading.cancel()


@contextlib.asynccontextmanager
async def run_service(
    arguments: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str],
    line_limit: int,
    account: limits.Account | None = None,
) -> AsyncIterator[Service]:
    """Run a program during the `with` block, behind the same wall and with the limits of commands.

    Args:
        arguments: The program and its arguments.
        folder: The working folder, the only one that the program can write to.
        environment: Variables in addition to those that every command inherits.
        line_limit: The maximum length in bytes of a line that `Service.output` reads.
        account: The account of the execution; None for a new one.

    Raises:
        OSError: if the program cannot be started, must not run without a wall, or the execution
            has used up a limit.
    """
    pipe = asyncio.subprocess.PIPE
    pipes = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "limit": line_limit}
    account = account or limits.Account()
    async with running(arguments, folder, environment, account, **pipes) as command:
        service = Service(command)
        try:
            yield service
        finally:
            await service.end()

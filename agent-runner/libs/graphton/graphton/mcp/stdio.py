"""The transport to a server that is a program in the sandbox."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from graphton import limits, services
from graphton.commands import CommandResult
from graphton.confine import CANNOT_EXECUTE
from graphton.mcp.protocol import MAX_MESSAGE_BYTES, McpError, parse
from graphton.text import compact_json, truncate_middle
from graphton.tools import find_program

MAX_ERROR_CHARACTERS: Final = 2000
"""How much of a server's standard error is in the message if it ends."""

_ENTER: Final = 'mkdir -p -- "$1" && cd -- "$1" && shift && exec "$@"'
"""Starts a program in a folder. The wall keeps it in the sandbox, so the path needs no check."""

_OF_TOOLS_IMAGE: Final = frozenset({"node", "uv", "uvx"})


class StdioTransport:
    """A program whose standard input and output have one message a line.

    It runs behind the wall of the agent's commands, and ends with its processes.

    Args:
        arguments: The program and its arguments.
        environment: Its variables, in addition to those that all commands inherit.
        sandbox: The sandbox.
        working_folder: A path in the sandbox where it starts; empty for the sandbox itself.
        account: The account of the execution; None for a new one.
        redact: Removes secrets from what the program says, before it is cut.
    """

    def __init__(  # noqa: PLR0913 (the last three have defaults)
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        sandbox: Path,
        working_folder: str = "",
        account: limits.Account | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._redact = redact
        self._account = account
        self._arguments = arguments
        self._environment = environment
        self._sandbox = sandbox
        self._working_folder = working_folder
        self._exits = AsyncExitStack()
        self._service: services.Service | None = None
        self._reading: asyncio.Task[None] | None = None
        self._end = ""

    async def open(self, receive: Callable[[Any], None], fail: Callable[[McpError], None]) -> None:
        """See Transport."""
        arguments = self._arguments
        if self._working_folder:
            arguments = [find_program("sh"), "-c", _ENTER, "sh", self._working_folder, *arguments]
        try:
            service = await self._exits.enter_async_context(
                services.run_service(
                    arguments,
                    self._sandbox,
                    environment=self._environment,
                    line_limit=MAX_MESSAGE_BYTES,
                    account=self._account,
                )
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL character
            reason = error.strerror if isinstance(error, OSError) else error
            raise McpError(f"`{self._arguments[0]}` cannot be started: {reason}") from None
        self._service = service
        self._reading = asyncio.create_task(self._read(service, receive, fail))

    async def _read(
        self,
        service: services.Service,
        receive: Callable[[Any], None],
        fail: Callable[[McpError], None],
    ) -> None:
        try:
            while line := await service.output.readline():
                with contextlib.suppress(ValueError):  # many programs print other lines too
                    receive(parse(line))
                # Lines that have arrived already are read without a pause.
                await asyncio.sleep(0)
            self._end = self._describe_end(await service.result())
        except ValueError:
            self._end = f"it sent a message larger than {MAX_MESSAGE_BYTES // 1_000_000} MB"
        except McpError as error:
            self._end = str(error)
        except RecursionError:
            self._end = "it sent a message that is nested too deeply"
        fail(McpError(self._end))

    async def send(self, message: Mapping[str, Any]) -> None:
        """See Transport."""
        if self._service is None or self._end:
            raise McpError(self._end or "it has not been started")
        try:
            self._service.input.write(compact_json(message).encode(errors="replace") + b"\n")
            await self._service.input.drain()
        except ConnectionError:
            if self._reading:
                await asyncio.wait({self._reading})
            raise McpError(self._end) from None

    def use_version(self, version: str) -> None:
        """See Transport. The version changes nothing here."""

    def describe_silence(self) -> str:
        """See Transport."""
        return self._quoted(self._service.errors) if self._service else ""

    async def close(self) -> None:
        """See Transport."""
        try:
            if self._reading:
                self._reading.cancel()
                await asyncio.wait({self._reading})
        finally:
            await self._exits.aclose()

    def _describe_end(self, result: CommandResult) -> str:
        program = self._arguments[0]
        if result.exit_code == CANNOT_EXECUTE and not result.excess:
            hint = ""
            if program.rpartition("/")[2] in _OF_TOOLS_IMAGE:
                hint = "; the image with tools (its tag ends with `-tools`) has Node.js and uv"
            return f"the program `{program}` cannot be executed{self._quoted(result.output)}{hint}"
        if result.excess:
            ended = f"it was ended because {result.excess}"
        elif result.exit_code is None:
            ended = "it closed its output"
        elif result.exit_code < 0:
            ended = f"it was ended by signal {-result.exit_code}"
        else:
            ended = f"it ended with exit code {result.exit_code}"
        return ended + self._quoted(result.output)

    def _quoted(self, errors: bytes) -> str:
        """What the program wrote to its standard error, for a message."""
        text = self._redact(errors.decode(errors="replace").strip())
        return f": {truncate_middle(text, MAX_ERROR_CHARACTERS)}" if text else ""

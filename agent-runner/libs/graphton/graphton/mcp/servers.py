"""Starts the servers of an agent, and makes their tools available to it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import RootModel

from graphton import limits
from graphton.mcp.naming import tool_names
from graphton.mcp.protocol import MAX_SEARCHED_CHARACTERS, McpError, RemoteTool
from graphton.mcp.session import CALL_SECONDS, Session, Transport
from graphton.mcp.stdio import StdioTransport
from graphton.text import truncate_middle
from graphton.tools import MAX_TOOL_RESULT_CHARACTERS, Tool, ToolError

CHANGE_SECONDS: Final = 1.0
"""The pause between two readings of a list of tools that changes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioServer:
    """A server that is a program in the sandbox.

    Attributes:
        arguments: The program and its arguments.
        environment: Its environment variables.
        working_folder: A path in the sandbox where it starts; empty for the sandbox itself.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    working_folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """A server at an HTTP address.

    Attributes:
        url: Its address.
        headers: Headers for every request.
        query: Parameters that are added to the address.
        call_seconds: The time limit of a call.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    call_seconds: float = CALL_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """A server that an agent uses.

    Attributes:
        name: Its name, different from those of the agent's other servers.
        endpoint: What it is.
        enabled_tools: The names of the tools that the agent gets; empty for all.
    """

    name: str
    endpoint: StdioServer | HttpServer
    enabled_tools: Sequence[str] = ()

    @property
    def label(self) -> str:
        """Its name and its kind, for messages."""
        kind = "stdio" if isinstance(self.endpoint, StdioServer) else "http"
        return f"the MCP server `{self.name}` ({kind})"

    def open_session(
        self, sandbox: Path, account: limits.Account | None, redact: Callable[[str], str]
    ) -> Session:
        """A session that is not started yet.

        Raises:
            McpError: if the address is not valid.
        """
        transport: Transport
        match self.endpoint:
            case StdioServer(arguments=arguments, environment=given, working_folder=working_folder):
                transport = StdioTransport(
                    arguments, given, sandbox, working_folder, account, redact
                )
                return Session(transport, redact=redact)
            case HttpServer(url=url, headers=headers, query=query, call_seconds=seconds):
                from graphton.mcp.http import HttpTransport

                return Session(HttpTransport(url, headers, query, redact), seconds, redact)


class AnyArguments(RootModel[dict[str, Any]]):
    """Arguments that the server validates."""


class Servers:
    """The tools of servers that have been started.

    Args:
        tools: For each server, by its name: its enabled tools by their names at the server.

    Attributes:
        on_change: Called after a server has changed its tools.
    """

    def __init__(self, tools: Mapping[str, Mapping[str, Tool]]) -> None:
        self._tools = tools
        self.on_change: Callable[[], None] = lambda: None

    def replace(self, tools: Mapping[str, Mapping[str, Tool]]) -> None:
        """Have these tools from now on."""
        self._tools = tools
        self.on_change()

    @property
    def all(self) -> list[Tool]:
        """The tools of all servers."""
        return [tool for tools in self._tools.values() for tool in tools.values()]

    def select(self, server: str, names: Sequence[str] = ()) -> list[Tool]:
        """The tools of one server with these names; all if there are no names.

        Raises:
            McpError: if the server does not have a tool of such a name.
        """
        tools = self._tools[server]
        _check_names(f"the MCP server `{server}`", names, tools)
        return [tool for name, tool in tools.items() if not names or name in names]


@contextlib.asynccontextmanager
async def connect(
    servers: Sequence[McpServer],
    sandbox: Path,
    reserved: Collection[str] = (),
    account: limits.Account | None = None,
    redact: Callable[[str], str] = str,
) -> AsyncIterator[Servers]:
    """Start servers side by side, and end them after the `with` block.

    Args:
        servers: The servers.
        sandbox: Where those that are programs run.
        reserved: Names that other tools of the agent have.
        account: The account of the execution, to which programs are added; None for a new one.
        redact: Removes secrets from all that servers say, before it is cut.

    Raises:
        McpError: if a server cannot be used. The message names all such servers.
    """
    sessions: dict[str, Session] = {}
    try:
        for server in servers:
            with _naming(server):
                sessions[server.name] = server.open_session(sandbox, account, redact)
        starts = (_start(server, sessions[server.name]) for server in servers)
        results = await asyncio.gather(*starts, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if unexpected := [error for error in errors if not isinstance(error, McpError)]:
            raise unexpected[0]
        if errors:
            raise McpError("; ".join(map(str, errors)))
        found = {
            server.name: result
            for server, result in zip(servers, results, strict=True)
            if isinstance(result, list)
        }

        def make_tools() -> dict[str, dict[str, Tool]]:
            return _make_tools(found, sessions, reserved, redact)

        started = Servers(make_tools())

        async def follow(server: McpServer) -> None:
            """Read the list of tools again whenever the server has changed it."""
            session = sessions[server.name]
            while await session.tools_changed.wait():
                try:
                    found[server.name] = _enabled(server, await session.list_tools())
                except McpError as error:
                    _log.warning("%s cannot list its new tools: %s", server.label, error)
                else:
                    started.replace(make_tools())
                await asyncio.sleep(CHANGE_SECONDS)

        followers = [asyncio.create_task(follow(server)) for server in servers]
        try:
            yield started
        finally:
            for follower in followers:
                follower.cancel()
    finally:
        closing = (session.close() for session in sessions.values())
        problems = await asyncio.gather(*closing, return_exceptions=True)
        for name, problem in zip(sessions, problems, strict=True):
            if problem is not None:
                _log.error("the MCP server `%s` was not closed", name, exc_info=problem)


async def _start(server: McpServer, session: Session) -> list[RemoteTool]:
    with _naming(server):
        tools = await session.start()
    _check_names(server.label, server.enabled_tools, [tool.name for tool in tools])
    return _enabled(server, tools)


def _enabled(server: McpServer, tools: Sequence[RemoteTool]) -> list[RemoteTool]:
    return [tool for tool in tools if not server.enabled_tools or tool.name in server.enabled_tools]


@contextlib.contextmanager
def _naming(server: McpServer) -> Iterator[None]:
    """Say in an error which server cannot be used."""
    try:
        yield
    except McpError as error:
        raise McpError(f"{server.label} cannot be used: {error}") from None


def _check_names(label: str, names: Sequence[str], known: Collection[str]) -> None:
    if missing := [name for name in dict.fromkeys(names) if name not in known]:
        there = ", ".join(f"`{name}`" for name in sorted(known)) or "none"
        listed = ", ".join(f"`{name}`" for name in missing)
        raise McpError(
            f"{label} does not have all tools that `enabled_tools` names: {listed} "
            f"(there are: {truncate_middle(there, 2000)})"
        )


def _make_tools(
    found: Mapping[str, Sequence[RemoteTool]],
    sessions: Mapping[str, Session],
    reserved: Collection[str],
    redact: Callable[[str], str],
) -> dict[str, dict[str, Tool]]:
    names = tool_names(
        [(server, tool.name) for server, tools in found.items() for tool in tools], reserved
    )
    return {
        server: {
            tool.name: Tool(
                name=names[server, tool.name],
                description=tool.description,
                arguments=AnyArguments,
                run=partial(_call, server, tool.name, sessions[server], redact),
                given_schema=tool.schema,
            )
            for tool in tools
        }
        for server, tools in found.items()
    }


async def _call(
    server: str,
    tool: str,
    session: Session,
    redact: Callable[[str], str],
    arguments: AnyArguments,
) -> str:
    try:
        text, failed = await session.call_tool(tool, arguments.root)
    except McpError as error:
        raise ToolError(f"the MCP server `{server}` failed: {error}") from None
    # Secrets are replaced before the text is cut to what the model gets.
    text = redact(truncate_middle(text, MAX_SEARCHED_CHARACTERS))
    if failed:
        raise ToolError(truncate_middle(text, MAX_TOOL_RESULT_CHARACTERS))
    return text

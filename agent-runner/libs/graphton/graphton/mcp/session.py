"""A session with one server: requests and their answers, over any transport."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from graphton.mcp.protocol import (
    CLIENT,
    VERSIONS,
    McpError,
    RemoteTool,
    SessionLostError,
    is_answer_to,
    notification,
    parse_tools,
    redact_start,
    redacted,
    reply_to,
    request,
    result_of,
    tool_result,
)

START_SECONDS: Final = 60.0
"""The time limit for starting a server, with the list of its tools. It may install itself first."""

CALL_SECONDS: Final = 120.0
"""The time limit of a call, unless the server's definition has another one."""

MAX_PAGES: Final = 100
"""How many pages of a list of tools are read."""

MAX_LIST_BYTES: Final = 1_000_000
"""The maximum size of a list of tools, on all its pages: their names, descriptions and schemas."""

MAX_REPLIES: Final = 100
"""How many replies to a server's requests may be unsent at a time.

Its other requests get no reply."""

_CANCEL_SECONDS: Final = 1.0
"""How long telling a server that nobody waits for its answer may take."""


class Transport(Protocol):
    """Brings messages to a server and back."""

    async def open(self, receive: Callable[[Any], None], fail: Callable[[McpError], None]) -> None:
        """Connect to the server.

        Args:
            receive: Called with each message.
            fail: Called if no more messages can come.

        Raises:
            McpError: if this fails.
        """

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            McpError: if this fails.
            SessionLostError: if the server needs another `initialize`.
        """

    def use_version(self, version: str) -> None:
        """Use a version of the protocol from now on."""

    def describe_silence(self) -> str:
        """What is known of a server that does not answer, to add to a message; may be empty."""

    async def close(self) -> None:
        """End the connection. Does not raise."""


class Session:
    """A session with a server.

    Args:
        transport: The transport to the server.
        call_seconds: The time limit of a call.
        redact: Removes secrets from what the server says, before it is cut.

    Attributes:
        tools_changed: Set if the server says that it has other tools now.
    """

    def __init__(
        self,
        transport: Transport,
        call_seconds: float = CALL_SECONDS,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._transport = transport
        self._redact = redact
        self._call_seconds = call_seconds
        self._numbers = itertools.count(1)
        self._waiting: dict[Any, asyncio.Future[Mapping[str, Any]]] = {}
        self._replies: set[asyncio.Task[None]] = set()
        self._failure: McpError | None = None
        self._has_tools = False
        self._renewing = asyncio.Lock()
        self._renewed = 0
        self.tools_changed = asyncio.Event()

    async def start(self) -> list[RemoteTool]:
        """Connect to the server, and return its tools.

        Raises:
            McpError: if this fails, or takes too long.
        """
        limit = asyncio.timeout(START_SECONDS)
        try:
            async with limit:
                await self._transport.open(self._receive, self._fail)
                await self._initialize()
                return await self.list_tools()
        except TimeoutError:
            if not limit.expired():
                raise
            known = self._transport.describe_silence()
            raise McpError(f"it did not start within {START_SECONDS:g} s{known}") from None

    async def list_tools(self) -> list[RemoteTool]:
        """The tools that the server has now.

        Raises:
            McpError: if the server does not answer, answers with something else, or has too many
                tools.
        """
        try:
            return [redacted(tool, self._redact) for tool in await self._read_list()]
        except RecursionError:
            raise McpError("its list of tools has a schema that is nested too deeply") from None

    async def _read_list(self) -> list[RemoteTool]:
        self.tools_changed.clear()
        tools: dict[str, RemoteTool] = {}
        cursor: str | None = None
        size = 0
        for _ in range(MAX_PAGES if self._has_tools else 0):
            params = {} if cursor is None else {"cursor": cursor}
            page, cursor = parse_tools(await self._request("tools/list", params, START_SECONDS))
            for tool in page:
                size += tool.size
                tools.setdefault(tool.name, tool)
            if size > MAX_LIST_BYTES:
                limit = MAX_LIST_BYTES // 1_000_000
                raise McpError(f"its list of tools is larger than {limit} MB")
            if cursor is None:
                break
        if cursor is not None:
            raise McpError(f"its list of tools has more than {MAX_PAGES} pages")
        return list(tools.values())

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
        """Call a tool. Returns the text of its result, and whether it failed.

        Raises:
            McpError: if the server does not answer, or answers with an error.
        """
        params = {"name": name, "arguments": dict(arguments)}
        return tool_result(await self._request("tools/call", params, self._call_seconds))

    async def close(self) -> None:
        """End the session. Does not raise."""
        for task in self._replies:
            task.cancel()
        await self._transport.close()

    async def _initialize(self) -> None:
        result = await self._request_once(
            "initialize",
            {"protocolVersion": VERSIONS[0], "capabilities": {}, "clientInfo": CLIENT},
            START_SECONDS,
        )
        version, capabilities = result.get("protocolVersion"), result.get("capabilities")
        if version not in VERSIONS:
            shown = redact_start(str(version), self._redact)[:100]
            raise McpError(
                f"it speaks version {shown!r} of MCP, and this agent-runner {', '.join(VERSIONS)}"
            )
        self._has_tools = isinstance(capabilities, dict) and "tools" in capabilities
        self._transport.use_version(version)
        await self._transport.send(notification("notifications/initialized"))

    async def _request(
        self, method: str, params: Mapping[str, Any], seconds: float
    ) -> dict[str, Any]:
        """Send a request, once more if the server has lost the session. Return the result."""
        renewed = self._renewed
        try:
            return await self._request_once(method, params, seconds)
        except SessionLostError:
            await self._renew(renewed)
            return await self._request_once(method, params, seconds)

    async def _renew(self, renewed: int) -> None:
        """Begin a new session, unless another request has done it since `renewed` of them."""
        limit = asyncio.timeout(START_SECONDS)
        try:
            async with limit, self._renewing:
                if self._renewed == renewed:
                    await self._initialize()
                    self._renewed += 1
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"it lost the session, and did not begin another within {START_SECONDS:g} s"
            raise McpError(text) from None

    async def _request_once(
        self, method: str, params: Mapping[str, Any], seconds: float
    ) -> dict[str, Any]:
        if self._failure:
            raise McpError(str(self._failure))
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await self._transport.send(request(number, method, params))
                return result_of(await answer, self._redact)
        except (asyncio.CancelledError, TimeoutError) as error:
            if method != "initialize":  # the protocol forbids to cancel it
                await self._cancel(number)
            if limit.expired() and isinstance(error, TimeoutError):
                raise McpError(f"it did not answer `{method}` within {seconds:g} s") from None
            raise
        finally:
            del self._waiting[number]
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # read it, or asyncio logs that it was never retrieved

    async def _cancel(self, number: int) -> None:
        params = {"requestId": number, "reason": "nobody waits for the answer any more"}
        with contextlib.suppress(McpError, TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._transport.send(notification("notifications/cancelled", params))

    def _receive(self, message: Any) -> None:
        """Take a message of the server. Other notifications, such as progress, are ignored."""
        match message:
            case list():  # version 2025-03-26 sends several together
                for item in message:
                    if not isinstance(item, list):
                        self._receive(item)
            case {"method": "notifications/tools/list_changed"}:
                self.tools_changed.set()
            case {"method": _, "id": _} if len(self._replies) < MAX_REPLIES:
                reply = asyncio.create_task(self._reply(message))
                self._replies.add(reply)
                reply.add_done_callback(self._replies.discard)
            case {"id": int() as number} if is_answer_to(message, int(number)):
                answer = self._waiting.get(number)
                if answer and not answer.done():
                    answer.set_result(message)

    async def _reply(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(McpError):
            await self._transport.send(reply_to(message))

    def _fail(self, error: McpError) -> None:
        """End all requests, also later ones, with this error."""
        self._failure = error
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(McpError(str(error)))

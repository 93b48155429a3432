"""The transport to a server at an HTTP address: Streamable HTTP."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import httpx

from graphton.hosts import is_this_machine
from graphton.mcp.protocol import (
    MAX_MESSAGE_BYTES,
    McpError,
    SessionLostError,
    is_answer_to,
    parse,
    redact_start,
    result_of,
)
from graphton.providers.events import sse_data
from graphton.text import compact_json
from graphton.tls import tls_context

CONNECT_SECONDS: Final = 10.0
MAX_REDIRECTS: Final = 3

_OLD_TRANSPORT_SECONDS: Final = 5.0
"""How long finding out whether a server speaks the older transport may take."""

_DELETE_SECONDS: Final = 2.0

_JSON, _EVENTS = "application/json", "text/event-stream"
_SESSION, _VERSION = "mcp-session-id", "mcp-protocol-version"


class HttpTransport:
    """A server that answers each message in the response to it, as JSON or as a stream of events.

    Args:
        url: Its address.
        headers: Headers for every request.
        query: Parameters that are added to the address.
        redact: Removes secrets from what the server says, before it is cut.

    Raises:
        McpError: if the address is not valid.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        redact: Callable[[str], str] = str,
    ) -> None:
        self._redact = redact
        try:
            self._url = httpx.URL(url).copy_merge_params(dict(query))
        except httpx.InvalidURL as error:
            raise McpError(f"its URL is not valid: {error}") from None
        if self._url.scheme not in {"http", "https"} or not self._url.host:
            raise McpError("its URL does not begin with `http://` or `https://` and a host")
        self._client = httpx.AsyncClient(
            headers=dict(headers),
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            verify=tls_context() if self._url.scheme == "https" else False,
            trust_env=not is_this_machine(self._url.host),
        )
        self._session = ""
        self._version = ""
        self._receive: Callable[[Any], None] = lambda _: None

    async def open(self, receive: Callable[[Any], None], fail: Callable[[McpError], None]) -> None:
        """See Transport. Each message has a connection of its own, so none ends the session."""
        self._receive = receive

    def use_version(self, version: str) -> None:
        """See Transport."""
        self._version = version

    def describe_silence(self) -> str:
        """See Transport."""
        return ""

    async def send(self, message: Mapping[str, Any]) -> None:
        """See Transport. Receives the answer too, if the message needs one."""
        is_first = message.get("method") == "initialize"
        if is_first:
            self._session = self._version = ""
        number = message.get("id") if "method" in message else None
        session = self._session
        try:
            async with self._exchange("POST", compact_json(message)) as response:
                if response.status_code >= 400:
                    await self._refuse(response, session, is_first)
                if is_first:
                    session = response.headers.get(_SESSION, "")
                    if not re.fullmatch(r"[\x21-\x7e]*", session):
                        raise McpError("the id of its session is not printable ASCII")
                    self._session = session
                if number is not None:
                    await self._receive_answer(response, number)
        except httpx.ConnectTimeout:
            raise McpError(f"it did not accept a connection for {CONNECT_SECONDS:g} s") from None
        except httpx.HTTPError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise McpError(f"it cannot be reached: {reason}") from None

    async def _receive_answer(self, response: httpx.Response, number: Any) -> None:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == _EVENTS:
            async for text in sse_data(_bounded(response), lenient=False):
                if text.strip():
                    message = self._parse(text)
                    self._receive(message)
                    if is_answer_to(message, number):
                        return
            raise McpError("it ended its stream of events without an answer")
        if kind != _JSON:
            status = f"{response.status_code} {response.reason_phrase}".strip()
            raise McpError(f"it answered with {kind or 'no content'} and not with JSON ({status})")
        message = self._parse(await _read(response))
        self._receive(message)
        messages = message if isinstance(message, list) else [message]
        if not any(is_answer_to(one, number) for one in messages):
            raise McpError("its response does not contain the answer")

    def _parse(self, text: str) -> Any:
        try:
            return parse(text)
        except (ValueError, RecursionError):
            shown = redact_start(text, self._redact)[:100]
            raise McpError(f"its answer is not JSON: {shown!r}") from None

    async def _refuse(self, response: httpx.Response, session: str, is_first: bool) -> None:
        """Raise the error for a status that is one."""
        status, text = response.status_code, ""
        with contextlib.suppress(McpError):  # the status says more
            text = await _read(response)
        # Some servers that were written before the specification answer with 400.
        if session and (status == 404 or (status == 400 and "session" in text.lower())):
            if self._session == session:  # another request may have begun a new one
                self._session = ""
            raise SessionLostError("it does not know the session any more")
        if is_first and status in {400, 404, 405} and await self._speaks_old_transport():
            raise McpError(
                "it speaks only the transport HTTP+SSE of 2024-11-05, which was replaced by "
                "Streamable HTTP: use the server's address for that, which often ends with `/mcp`"
            )
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(answer := parse(text), dict) and "error" in answer:
                result_of(answer, self._redact)
        hint = "; check its headers and query parameters" if status in {401, 403} else ""
        detail = " ".join(redact_start(text, self._redact).split())[:300]
        raise McpError(
            f"it answered with {status} {response.reason_phrase}{hint}"
            + (f" ({detail})" if detail else "")
        )

    async def _speaks_old_transport(self) -> bool:
        """Whether a server answers GET with a stream that begins with the event `endpoint`."""
        begin = b""
        with contextlib.suppress(httpx.HTTPError, McpError, TimeoutError):
            async with (
                asyncio.timeout(_OLD_TRANSPORT_SECONDS),
                self._exchange("GET") as response,
            ):
                async for chunk in _bounded(response):
                    begin += chunk
                    if b"endpoint" in begin or len(begin) > 1000:
                        break
        return b"event: endpoint" in begin or b"event:endpoint" in begin

    @contextlib.asynccontextmanager
    async def _exchange(
        self, method: str, body: str | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and yield the response. Redirects are followed within the origin only.

        The headers, which often have a key, and the message are not for another server.
        """
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            request = self._client.build_request(
                method,
                url,
                headers=self._headers(_EVENTS if body is None else f"{_JSON}, {_EVENTS}"),
                content=None if body is None else body.encode(errors="replace"),
            )
            try:
                response = await self._client.send(request, stream=True)
            except (httpx.InvalidURL, ValueError):  # httpx looks at the target of a redirect
                raise McpError("it redirects to an address that is not valid") from None
            try:
                if not response.has_redirect_location:
                    yield response
                    return
                target = url.join(response.headers["location"])
            finally:
                await response.aclose()
            if response.status_code not in {307, 308} or not _is_same_origin(url, target):
                shown = target.copy_with(userinfo=b"", query=None, fragment=None)
                raise McpError(
                    f"it redirects to {shown}: if that is the right server, set this URL in the "
                    "agent's definition"
                )
            url = target
        raise McpError(f"it redirects more than {MAX_REDIRECTS} times")

    def _headers(self, accepted: str) -> dict[str, str]:
        headers = {"accept": accepted, "accept-encoding": "identity", "content-type": _JSON}
        if self._session:
            headers[_SESSION] = self._session
        if self._version:
            headers[_VERSION] = self._version
        return headers

    async def close(self) -> None:
        """See Transport. Tells the server that the session has ended."""
        try:
            if self._session:
                with contextlib.suppress(httpx.HTTPError, McpError, TimeoutError):
                    async with asyncio.timeout(_DELETE_SECONDS), self._exchange("DELETE"):
                        pass
        finally:
            await self._client.aclose()


async def _bounded(response: httpx.Response) -> AsyncIterator[bytes]:
    """The parts of a response.

    Raises:
        McpError: if it is too large, or compressed. A small compressed answer can be a huge one.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        raise McpError(f"it compressed its answer ({encoding}), which it was not asked to do")
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > MAX_MESSAGE_BYTES:
            raise McpError(f"its answer is larger than {MAX_MESSAGE_BYTES // 1_000_000} MB")
        yield chunk


async def _read(response: httpx.Response) -> str:
    return b"".join([chunk async for chunk in _bounded(response)]).decode(errors="replace")


def _is_same_origin(url: httpx.URL, target: httpx.URL) -> bool:
    return (url.scheme, url.host, url.port) == (target.scheme, target.host, target.port)

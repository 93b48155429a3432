"""A proxy through which an agent's commands reach the hosts that are listed, and no others.

It checks the name that a command asks for before it resolves it. Commands have no DNS of their own.
It connects to the address that it has checked. Of a request, only the host and the port are logged.
"""

import asyncio
import base64
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined] # it is documented

from graphton import proxy_request
from graphton.hosts import is_own_address
from graphton.network import Address, Rule, Target, allowed_addresses, allows
from graphton.proxy_request import MAX_HEAD_BYTES, Request, RequestError, chunk_size

_log = logging.getLogger(__name__)

HEAD_SECONDS: Final = 15.0
"""How long a command may take to send a request."""

CONNECT_SECONDS: Final = 30.0
"""How long resolving a name and connecting may take together."""

ATTEMPT_SECONDS: Final = 10.0
"""How long connecting to one address may take."""

ANSWER_SECONDS: Final = 1.0
"""How long what a command still sends is read, after the proxy has refused it."""

IDLE_SECONDS: Final = 300.0
"""After this time without data in either direction, a connection is closed."""

MAX_CONNECTIONS: Final = 64
"""Connections of one command at the same time."""

_RESOLVERS: Final = 4
"""How many names are resolved for one command at the same time."""

_ALL_RESOLVERS: Final = 16
"""The number of threads that resolve names for all commands."""

_UNRESOLVED: Final = (OSError, UnicodeError, RuntimeError)
"""The errors of resolving a name. The last one means that no other thread can start."""

_MAX_LOGGED: Final = 100
_CHUNK: Final = 1 << 16

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Allowlist:
    """What the proxy allows, and how it connects.

    Attributes:
        rules: The hosts.
        own_servers: The hosts of Temporal and stigmer-server. A listed name must not lead there.
        proxies: The worker's own proxies by `http`, `https` and `all`, and `no` for the hosts that
            are reached without one, as from `urllib.request.getproxies_environment`.
    """

    rules: Sequence[Rule] = ()
    own_servers: Sequence[str] = ()
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)


class _Refusal(Exception):  # noqa: N818 (it is an answer)
    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Proxy:
    """The proxy of one command.

    Args:
        allowlist: What it allows.
    """

    def __init__(self, allowlist: Allowlist) -> None:
        self._allowlist = allowlist
        _resolver_threads()  # they start before the command
        self._resolving = asyncio.Semaphore(_RESOLVERS)
        self._connections: set[asyncio.Task[None]] = set()
        self._logged: set[tuple[Target, str]] = set()

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Accept connections during the `with` block. All are closed at its end.

        Args:
            listener: A socket that listens. It is closed at the end.
        """
        server = await asyncio.start_server(self._accept, sock=listener, limit=MAX_HEAD_BYTES)
        try:
            yield
        finally:
            server.close()
            for connection in list(self._connections):
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._run(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._connections) <= MAX_CONNECTIONS:
                await self._serve(reader, writer)
            elif len(self._connections) <= 2 * MAX_CONNECTIONS:
                text = "too many connections"
                await _answer((reader, writer), HTTPStatus.SERVICE_UNAVAILABLE, text)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # the command or the server has gone, says nothing any more, or something invalid
        finally:
            await _close(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = (reader, writer)
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            request = proxy_request.parse(head)
            server = await self._open(request)
        except asyncio.LimitOverrunError:
            text = f"the request is larger than {MAX_HEAD_BYTES >> 10} KiB"
            return await _answer(command, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
        except RequestError as error:
            return await _answer(command, HTTPStatus.BAD_REQUEST, str(error))
        except _Refusal as refusal:
            return await _answer(command, refusal.status, str(refusal))
        try:
            if request.is_tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _exchange(request, command, server)
        except BaseException:
            for _, one in (command, server):
                one.transport.abort()
            raise
        finally:
            await _close(server[1])

    async def _open(self, request: Request) -> Streams:
        """Connect to the server of a request, and send the request itself if it is no tunnel."""
        target = request.target
        if not allows(self._allowlist.rules, target):
            self._record("refused", target)
            raise _Refusal(
                HTTPStatus.FORBIDDEN,
                f"`{target}` is not in AGENT_NETWORK_ALLOW, the list of what commands may reach",
            )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if proxy := self._own_proxy(request):
                    streams = await _open_through(proxy, request, self._resolve)
                else:
                    streams = await self._connect(target)
                    if not request.is_tunnel:
                        streams[1].write(request.render())
        except TimeoutError:
            raise _Refusal(
                HTTPStatus.GATEWAY_TIMEOUT, f"no connection to `{target}` in time"
            ) from None
        self._record("connected", target)
        return streams

    def _own_proxy(self, request: Request) -> str:
        proxies, target = dict(self._allowlist.proxies), request.target
        if not proxies or proxy_bypass_environment(target.host, proxies):
            return ""
        return proxies.get("https" if request.is_tunnel else "http", proxies.get("all", ""))

    async def _connect(self, target: Target) -> Streams:
        try:
            found = await self._resolve(target.host)
        except _UNRESOLVED:
            raise _Refusal(HTTPStatus.BAD_GATEWAY, f"`{target.host}` has no address") from None
        denied = [address for address in found if is_own_address(address)]
        for host in self._allowlist.own_servers:
            try:
                denied += await self._resolve(host)
            except _UNRESOLVED:
                raise _Refusal(
                    HTTPStatus.BAD_GATEWAY,
                    f"the runner cannot resolve `{host}` of Temporal or stigmer-server, "
                    f"so whether `{target}` leads there is not known; try again later",
                ) from None
        addresses = allowed_addresses(self._allowlist.rules, found, target.port, denied)
        if not addresses:
            self._record("refused, because of its address", target)
            raise _Refusal(
                HTTPStatus.FORBIDDEN,
                f"`{target}` resolves to this machine, to Temporal or to stigmer-server; "
                "to allow it, add the IP address with its port to AGENT_NETWORK_ALLOW",
            )
        try:
            return await _open_one(addresses, target.port)
        except OSError:
            text = f"`{target}` does not accept the connection"
            raise _Refusal(HTTPStatus.BAD_GATEWAY, text) from None

    async def _resolve(self, host: str) -> list[Address]:
        return await _resolve(host, self._resolving)

    def _record(self, what: str, target: Target) -> None:
        if (target, what) not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add((target, what))
            _log.info("network: %s: %s", target, what)


async def _resolve(host: str, slots: asyncio.Semaphore) -> list[Address]:
    """Look a name up.

    Args:
        host: The name.
        slots: How many threads a command may still use. A name that takes long keeps its thread,
            and so its slot, also after the command has given up or ended.
    """
    await slots.acquire()
    loop = asyncio.get_running_loop()
    look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    try:
        future = _resolver_threads().submit(look_up)
    except RuntimeError:
        slots.release()
        raise
    future.add_done_callback(lambda _: _release(slots, loop))
    found = await asyncio.wrap_future(future)
    return list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))


def _release(slots: asyncio.Semaphore, loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # the worker has ended meanwhile
        loop.call_soon_threadsafe(slots.release)


@cache
def _resolver_threads() -> ThreadPoolExecutor:
    """The threads that resolve names. Names can take long, so they are not those of the event loop.

    All start at once: a command's filter protects only the threads that exist when it starts.
    """
    threads = ThreadPoolExecutor(_ALL_RESOLVERS, "resolver")
    all_run = threading.Barrier(_ALL_RESOLVERS)
    try:
        for _ in range(_ALL_RESOLVERS):
            threads.submit(all_run.wait)
    except RuntimeError:  # no more threads can be started
        all_run.abort()
    return threads


async def _open_through(
    proxy: str, request: Request, resolve: Callable[[str], Awaitable[list[Address]]]
) -> Streams:
    """Connect through the worker's own proxy, which resolves the name."""
    failed = _Refusal(HTTPStatus.BAD_GATEWAY, "the runner's own proxy does not connect")
    url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    credentials = ""
    if url.username is not None:
        pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
        credentials = f"Basic {base64.b64encode(pair.encode()).decode()}"
    try:
        is_tls, host = url.scheme == "https", url.hostname or ""
        addresses = await resolve(host)
        port = url.port or (443 if is_tls else 80)
        options = {"ssl": True, "server_hostname": host} if is_tls else {}
        reader, writer = await _open_one(addresses, port, **options)
    except (*_UNRESOLVED, ValueError):
        raise failed from None
    try:
        if not request.is_tunnel:
            writer.write(request.render(credentials=credentials, to_proxy=True))
            return reader, writer
        authorization = f"Proxy-Authorization: {credentials}\r\n" if credentials else ""
        target = request.target
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")):
            raise failed
    except BaseException as error:
        writer.transport.abort()
        if isinstance(error, OSError | EOFError | asyncio.LimitOverrunError):
            raise failed from None
        raise
    return reader, writer


async def _open_one(addresses: Sequence[Address], port: int, **options: Any) -> Streams:
    """Connect to the first address that accepts it. `options` are those of `open_connection`.

    Raises:
        OSError: if none does.
    """
    for address in addresses:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ATTEMPT_SECONDS):
                return await asyncio.open_connection(
                    str(address), port, limit=MAX_HEAD_BYTES, **options
                )
    raise ConnectionRefusedError


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection after what is left was sent, or after a while without that."""
    writer.close()
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS):
                await writer.wait_closed()
    finally:
        writer.transport.abort()


async def _answer(command: Streams, status: HTTPStatus, text: str) -> None:
    reader, writer = command
    body = f"agent-runner: {text}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
    writer.write_eof()
    # If a socket is closed before everything is read, the command loses the answer.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            while await reader.read(_CHUNK):
                pass


async def _exchange(request: Request, command: Streams, server: Streams) -> None:
    """Pass everything on in both directions, until the server and a tunnel's command have ended."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(IDLE_SECONDS) as idle:

        def active() -> None:
            idle.reschedule(loop.time() + IDLE_SECONDS)

        async def send() -> None:
            try:
                if request.is_tunnel:
                    await _copy(command[0], server[1], active)
                else:
                    await _send_body(request, command[0], server[1], active)
            except BaseException:
                server[1].transport.abort()  # so that receiving ends too
                raise

        sending = asyncio.ensure_future(send())
        try:
            await _copy(server[0], command[1], active)
            if request.is_tunnel:
                await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, active: Callable[[], None]
) -> None:
    while data := await reader.read(_CHUNK):
        active()
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _send_body(
    request: Request,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    active: Callable[[], None],
) -> None:
    """Send the body of a request, and nothing after it: that would be another request."""
    if request.length is not None:
        await _send_exactly(request.length, reader, writer, active)
        return
    while True:
        line = await reader.readuntil(b"\r\n")
        writer.write(line)
        if not (size := chunk_size(line)):
            break
        await _send_exactly(size, reader, writer, active)
        if await reader.readexactly(2) != b"\r\n":
            raise RequestError("a chunk of the body is invalid")
        writer.write(b"\r\n")
    writer.write(b"\r\n")  # the fields after the body are left out
    await writer.drain()


async def _send_exactly(
    size: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    active: Callable[[], None],
) -> None:
    while size:
        data = await reader.read(min(size, _CHUNK))
        if not data:
            raise EOFError("the body is too short")
        active()
        size -= len(data)
        writer.write(data)
        await writer.drain()

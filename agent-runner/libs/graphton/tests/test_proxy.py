"""The proxy between real sockets."""

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from graphton import proxy
from graphton.network import Address, parse_rules
from graphton.proxy import Allowlist, Proxy

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def proxying(allowlist: Allowlist) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with Proxy(allowlist).serving(listener):
        yield port


def listing(*hosts: str) -> Allowlist:
    return Allowlist(rules=parse_rules(",".join(hosts)))


async def ask(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def echo_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with what arrives within a moment."""
    data = b""
    try:
        while more := await asyncio.wait_for(reader.read(1000), 0.3):
            data += more
    except TimeoutError:
        pass
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + data)
    writer.close()


def resolving(monkeypatch: pytest.MonkeyPatch, **names: str) -> list[str]:
    """Let names have these addresses. Returns a list of what is resolved."""
    asked: list[str] = []

    async def resolve(host: str, _: object) -> list[Address]:
        asked.append(host)
        if host.endswith(".invalid"):
            raise OSError
        if host.replace(".", "_") not in names:
            return [ip_address(host)]
        return [ip_address(one) for one in names[host.replace(".", "_")].split()]

    monkeypatch.setattr(proxy, "_resolve", resolve)
    return asked


async def test_a_tunnel() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"first ")
        writer.write((await reader.read()).upper())  # until the end of what the command sends
        writer.close()

    async with serving(handle) as server, proxying(listing(f"127.0.0.1:{server}")) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"first HELLO"


@pytest.mark.parametrize(
    ("framing", "body", "rest"),
    [
        (b"Content-Length: 5\r\n", b"hello", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", None),
        (b"Transfer-Encoding: chunked\r\n", b"2;a=b\r\nhe\r\n0\r\nX: y\r\n\r\n",
         b"2;a=b\r\nhe\r\n0\r\n\r\n"),
        (b"", b"", b""),
    ],
)  # fmt: skip
async def test_a_request_with_its_body_and_nothing_after_it(
    framing: bytes, body: bytes, rest: bytes | None
) -> None:
    async with serving(echo_head) as server, proxying(listing(f"127.0.0.1:{server}")) as port:
        head = f"POST http://127.0.0.1:{server}/x HTTP/1.1\r\nHost: a.example\r\n".encode()
        second = f"GET http://127.0.0.1:{server}/second HTTP/1.1\r\n\r\n".encode()
        answer = await ask(port, head + framing + b"\r\n" + body + second)
        status, _, sent = answer.partition(b"\r\n\r\n")
        assert status == b"HTTP/1.1 200 OK"
        expected = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%sConnection: close\r\n\r\n%s"
        assert sent == expected % (server, framing, body if rest is None else rest)


async def test_what_is_not_listed_is_neither_resolved_nor_connected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = resolving(monkeypatch)
    caplog.set_level(logging.DEBUG)
    async with proxying(listing("pypi.org")) as port:
        for request in (
            "CONNECT secret.evil.example:443",
            "GET http://pypi.org:8080/token?key=hunter2",
        ):
            answer = await ask(port, f"{request} HTTP/1.1\r\nX-Key: hunter2\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
            assert b"is not in AGENT_NETWORK_ALLOW" in answer
    assert asked == []
    assert "secret.evil.example:443: refused" in caplog.text
    assert "hunter2" not in caplog.text
    assert "token" not in caplog.text


async def test_a_listed_name_must_not_lead_to_this_machine_or_the_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(echo_head) as server:
        names = {
            "a_example": "127.0.0.1", "b_example": "::ffff:127.0.0.1 0.0.0.0",
            "c_example": "203.0.113.9", "temporal": "203.0.113.9",
        }  # fmt: skip
        asked = resolving(monkeypatch, **names)
        hosts = ",".join(f"{name}.example:{server}" for name in "abc")
        allowlist = Allowlist(parse_rules(hosts), own_servers=["temporal"])
        async with proxying(allowlist) as port:
            for name in "abc":
                request = f"CONNECT {name}.example:{server} HTTP/1.1\r\n\r\n"
                answer = await ask(port, request.encode())
                assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n"), answer
                assert b"add the IP address with its port to AGENT_NETWORK_ALLOW" in answer
        # It connects to the address that was checked, and resolves the name once.
        asked.clear()
        async with proxying(listing(hosts, f"127.0.0.1:{server}")) as port:
            request = f"GET http://a.example:{server}/ HTTP/1.1\r\n\r\n"
            assert b"\r\nHost: a.example:" in await ask(port, request.encode())
        assert asked == ["a.example"]


async def test_bad_requests_and_servers_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "HEAD_SECONDS", 0.2)
    # While the socket is bound, no other server can have its port. It does not listen.
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        free = closed.getsockname()[1]
        async with proxying(listing(f"127.0.0.1:{free}", "nowhere.invalid:80")) as port:
            assert (await ask(port, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
            assert (await ask(port, b"x" * 70_000)).startswith(b"HTTP/1.1 431 ")
            unfinished_head = b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n"
            assert await ask(port, unfinished_head) == b""
            refused = await ask(port, f"CONNECT 127.0.0.1:{free} HTTP/1.1\r\n\r\n".encode())
            assert refused.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
            unknown = await ask(port, b"CONNECT nowhere.invalid:80 HTTP/1.1\r\n\r\n")
            assert unknown.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


async def test_a_listed_name_must_not_lead_to_another_address_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect(("203.0.113.1", 9))  # sends nothing
            own = one.getsockname()[0]
    except OSError:
        pytest.skip("this machine has no network")
    resolving(monkeypatch, a_example=own, b_example=f"::ffff:{own}")
    server = await asyncio.start_server(echo_head, own, 0)
    number = server.sockets[0].getsockname()[1]
    hosts = f"a.example:{number},b.example:{number}"
    async with proxying(listing(hosts)) as port:
        for name in "ab":
            answer = await ask(port, f"CONNECT {name}.example:{number} HTTP/1.1\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n"), answer
    async with proxying(listing(hosts, f"{own}:{number}")) as port:
        answer = await ask(port, f"GET http://a.example:{number}/ HTTP/1.1\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    server.close()


async def test_servers_that_cannot_be_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, a_example="203.0.113.9")
    rules = parse_rules("a.example:80")
    allowlist = Allowlist(rules, own_servers=["temporal.invalid"])
    async with proxying(allowlist) as port:
        answer = await ask(port, b"CONNECT a.example:80 HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"the runner cannot resolve `temporal.invalid` of Temporal or stigmer-server" in answer


async def test_slow_names_delay_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait(20))
    threads = ThreadPoolExecutor(2)
    asyncio.get_running_loop().set_default_executor(threads)
    async with proxying(listing(".example")) as port:
        head = b"CONNECT %d.example:80 HTTP/1.1\r\n\r\n"
        waiting = [asyncio.create_task(ask(port, head % n)) for n in range(10)]
        await asyncio.sleep(0.2)
        await asyncio.wait_for(asyncio.to_thread(int), 10)
        end.set()
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_slow_names_of_a_command_keep_its_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    end, asked = threading.Event(), list[str]()

    def slow(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        end.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(proxy, "CONNECT_SECONDS", 0.1)
    async with proxying(listing(".example")) as port:
        head = b"CONNECT %d.example:80 HTTP/1.1\r\n\r\n"
        for number in range(proxy._RESOLVERS + 4):
            answer = await ask(port, head % number)
            assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
        assert len(asked) == proxy._RESOLVERS
        end.set()


async def test_names_are_resolved_by_threads_that_exist_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The filter of a command protects the threads that exist when it starts."""

    def nothing(*_: object, **__: object) -> None:
        raise OSError

    def resolvers() -> set[int | None]:
        threads = threading.enumerate()
        return {thread.ident for thread in threads if thread.name.startswith("resolver")}

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    proxy._resolver_threads.cache_clear()
    async with proxying(listing(".example")) as first, proxying(listing(".example")) as second:
        before = resolvers()
        assert len(before) >= proxy._ALL_RESOLVERS
        head = b"CONNECT %d.example:80 HTTP/1.1\r\n\r\n"
        for port in (first, second):
            answers = await asyncio.gather(*(ask(port, head % number) for number in range(8)))
            assert all(b"has no address" in answer for answer in answers)
        assert resolvers() <= before  # threads of earlier tests may end meanwhile


@pytest.mark.parametrize("ends", [False, True])
async def test_a_command_that_reads_nothing_keeps_no_socket(
    monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr(proxy, "IDLE_SECONDS", 0.3)

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # More than the sockets' buffers take.
        with contextlib.suppress(OSError):
            for _ in range(1000):
                writer.write(bytes(1 << 16))
                await asyncio.wait_for(writer.drain(), 0.2 if ends else 20)
        writer.close()

    async with serving(send) as server, proxying(listing(f"127.0.0.1:{server}")) as port:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with socket.create_connection(("127.0.0.1", port)) as command:
            command.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            command.sendall(f"GET http://127.0.0.1:{server}/ HTTP/1.1\r\n\r\n".encode())
            await asyncio.sleep(2)
            assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208


async def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(proxy, "IDLE_SECONDS", 0.3)
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    async with serving(wait) as server, proxying(listing(f"127.0.0.1:{server}")) as port:
        connect = f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\n\r\n".encode()
        waiting = [asyncio.create_task(ask(port, connect)) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert (await ask(port, connect)).startswith(b"HTTP/1.1 503 ")
        for one in waiting:  # nothing is sent, so they end
            assert (await one).startswith(b"HTTP/1.1 200 ")
        await asyncio.wait_for(ended.wait(), 20)
        assert (await ask(port, connect)).startswith(b"HTTP/1.1 200 ")


async def test_all_connections_end_with_the_command() -> None:
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    async with serving(wait) as server:
        async with proxying(listing(f"127.0.0.1:{server}")) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 20) == b""
        await asyncio.wait_for(ended.wait(), 20)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.close()


async def test_through_the_workers_own_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        heads.append(head)
        if head.startswith("CONNECT refused"):
            writer.write(b"HTTP/1.1 407 Authenticate\r\n\r\n")
        elif head.startswith("CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nfrom the server")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nfrom the proxy")
        writer.close()

    asked = resolving(monkeypatch)
    async with serving(upstream) as own:
        url = f"http://me:s%20cret@127.0.0.1:{own}"
        allowlist = Allowlist(
            parse_rules("pypi.org,refused.example,127.0.0.1:1"),
            proxies={"http": url, "https": url, "no": "127.0.0.1"},
        )
        async with proxying(allowlist) as port:
            answer = await ask(port, b"CONNECT pypi.org:443 HTTP/1.1\r\n\r\n")
            assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nfrom the server"
            answer = await ask(port, b"GET http://pypi.org/x HTTP/1.1\r\n\r\n")
            assert answer.endswith(b"from the proxy")
            answer = await ask(port, b"CONNECT refused.example:443 HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert b"own proxy" in answer
            assert b"s cret" not in answer
            answer = await ask(port, b"CONNECT evil.example:443 HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert set(asked) == {"127.0.0.1"}  # the other proxy's; it resolves the names
            asked.clear()
            await ask(port, b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
            assert asked == ["127.0.0.1"]
    credentials = "Proxy-Authorization: Basic bWU6cyBjcmV0\r\n"
    assert heads[0] == f"CONNECT pypi.org:443 HTTP/1.1\r\nHost: pypi.org:443\r\n{credentials}\r\n"
    assert heads[1].startswith("GET http://pypi.org/x HTTP/1.1\r\nHost: pypi.org\r\n")
    assert credentials in heads[1]
    assert len(heads) == 3

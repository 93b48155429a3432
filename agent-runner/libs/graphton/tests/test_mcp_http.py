"""Tests MCP servers at an HTTP address that do what good servers do not do, or rarely."""

import asyncio
import contextlib
import gzip
import json
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from graphton.mcp import HttpServer, McpError, McpServer, Servers, connect, session
from graphton.mcp.http import HttpTransport
from graphton.tools import ToolError

JSON, EVENTS = "application/json", "text/event-stream"


@dataclass
class Answer:
    """What the server answers."""

    body: str | bytes = ""
    kind: str = JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """What the server was asked."""

    method: str
    path: str
    headers: dict[str, str]
    message: Any


class Scripted:
    """A server with sessions. A test replaces its methods."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.sessions = 0
        self.known: set[str] = set()
        self.answer: Callable[[Request], Answer] = self._answer
        self.call: Callable[[Request], Answer] = lambda request: self.result(
            request.message, {"content": [{"type": "text", "text": "called"}]}
        )
        self.lost: Callable[[], Answer] = lambda: Answer("Not Found", "text/plain", 404)
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = self.rfile.read(length)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(
                    self.command, self.path, headers, json.loads(body) if body else None
                )
                scripted.requests.append(request)
                answer = scripted.answer(request)
                data = answer.body if isinstance(answer.body, bytes) else answer.body.encode()
                with contextlib.suppress(OSError):
                    self.send_response(answer.status)
                    self.send_header("content-type", answer.kind)
                    self.send_header("content-length", str(len(data)))
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: Request) -> Answer:
        if request.method != "POST":
            return Answer(status=204 if request.method == "DELETE" else 405)
        message, name = request.message, request.headers.get("mcp-session-id", "")
        match message.get("method"):
            case "initialize":
                self.sessions += 1
                name = f"session-{self.sessions}"
                self.known.add(name)
                result = {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "scripted", "version": "1"},
                }
                return self.result(message, result, {"mcp-session-id": name})
            case _ if name not in self.known:
                return self.lost()
            case "tools/list":
                tools = [{"name": "t", "inputSchema": {"type": "object"}}]
                return self.result(message, {"tools": tools})
            case "tools/call":
                return self.call(request)
        return Answer(status=202)

    def result(
        self, message: Any, result: dict[str, Any], headers: dict[str, str] | None = None
    ) -> Answer:
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})
        return Answer(body, headers=headers or {})

    def methods(self) -> list[str]:
        """The methods of the messages, in their order."""
        return [one.message["method"] for one in self.requests if one.message]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(session, "START_SECONDS", 10)
    scripted = Scripted()
    yield scripted
    scripted.stop()


@contextlib.asynccontextmanager
async def connected(
    url: str, seconds: float = 10, headers: dict[str, str] | None = None, **query: str
) -> AsyncIterator[Servers]:
    endpoint = HttpServer(url=url, headers=headers or {}, query=query, call_seconds=seconds)
    async with connect([McpServer(name="s", endpoint=endpoint)], Path()) as servers:
        yield servers


async def failure(url: str) -> str:
    """Why a server cannot be used."""
    with pytest.raises(McpError) as caught:
        async with connected(url):
            pass
    return str(caught.value).removeprefix("the MCP server `s` (http) cannot be used: ")


async def call(servers: Servers) -> str:
    return await servers.all[0].call({"a": 1})


async def failed_call(servers: Servers) -> str:
    with pytest.raises(ToolError) as caught:
        await call(servers)
    return str(caught.value).removeprefix("the MCP server `s` failed: ")


async def test_each_request_has_what_the_protocol_wants(scripted: Scripted) -> None:
    headers = {"Authorization": "Bearer hunter2", "accept": "text/html"}
    async with connected(f"{scripted.url}/mcp?x=1", headers=headers, key="a&b") as servers:
        assert await call(servers) == "called"
    assert scripted.methods() == [
        *("initialize", "notifications/initialized", "tools/list", "tools/call"),
    ]
    first, *others = scripted.requests
    assert "mcp-session-id" not in first.headers
    assert "mcp-protocol-version" not in first.headers
    for request in others:
        assert request.headers["mcp-session-id"] == "session-1"
        assert request.headers["mcp-protocol-version"] == "2025-06-18"
    for request in scripted.requests:
        assert request.path == "/mcp?x=1&key=a%26b"
        assert request.headers["authorization"] == "Bearer hunter2"
    *posted, ended = scripted.requests
    assert {one.headers["accept"] for one in posted} == {"application/json, text/event-stream"}
    assert ended.method == "DELETE"


@pytest.mark.parametrize("status", [404, 400])
async def test_a_lost_session_begins_anew_once(scripted: Scripted, status: int) -> None:
    scripted.lost = lambda: Answer("Bad Request: No valid session ID", "text/plain", status)
    async with connected(scripted.url) as servers:
        scripted.known.clear()
        assert await asyncio.gather(*(call(servers) for _ in range(5))) == ["called"] * 5
        assert scripted.sessions == 2
        assert scripted.requests[-1].headers["mcp-session-id"] == "session-2"


async def test_a_session_that_is_lost_again_is_an_error(scripted: Scripted) -> None:
    async with connected(scripted.url) as servers:
        scripted.call = lambda _: scripted.lost()
        assert await failed_call(servers) == "it does not know the session any more"
        assert scripted.sessions == 2


async def test_a_new_session_has_a_time_limit(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, ended = scripted.answer, threading.Event()

    def silent(request: Request) -> Answer:
        if scripted.sessions == 2 and _method(request) == "notifications/initialized":
            ended.wait(5)
        return answer(request)

    async with connected(scripted.url) as servers:
        scripted.answer = silent
        scripted.known.clear()
        monkeypatch.setattr(session, "START_SECONDS", 0.5)
        try:
            assert set(await asyncio.gather(failed_call(servers), failed_call(servers))) == {
                "it lost the session, and did not begin another within 0.5 s"
            }
        finally:
            ended.set()


@pytest.mark.parametrize("name", ["caf\u00e9", "a b", "a\x7f"])
async def test_the_id_of_a_session_is_printable(scripted: Scripted, name: str) -> None:
    answer = scripted.answer

    def naming(request: Request) -> Answer:
        found = answer(request)
        if _method(request) == "initialize":
            found.headers["mcp-session-id"] = name
        return found

    scripted.answer = naming
    assert await failure(scripted.url) == "the id of its session is not printable ASCII"


BAD_LOCATIONS = ["javascript:a", ":mailto://http:[0", "//xn--a ", "//xn--mailto:"]


@pytest.mark.parametrize("location", BAD_LOCATIONS)
async def test_a_redirect_to_an_address_that_is_not_one(scripted: Scripted, location: str) -> None:
    scripted.answer = lambda _: Answer(status=307, headers={"location": location})
    assert await failure(scripted.url) == "it redirects to an address that is not valid"


@pytest.mark.parametrize("location", [*BAD_LOCATIONS, "http://[", "//a:99999999/", "http:", ""])
async def test_the_end_of_a_session_never_fails(scripted: Scripted, location: str) -> None:
    answer = scripted.answer

    def redirecting(request: Request) -> Answer:
        if request.method == "DELETE":
            return Answer(status=307, headers={"location": location})
        return answer(request)

    scripted.answer = redirecting
    transport = HttpTransport(scripted.url, {}, {})
    await session.Session(transport).start()
    await transport.close()
    assert scripted.requests[-1].method == "DELETE"


async def test_a_server_that_cannot_be_closed_does_not_end_the_run(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: HttpTransport) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(HttpTransport, "close", fail)
    async with connected(scripted.url) as servers:
        assert await call(servers) == "called"
    assert "the MCP server `s` was not closed" in caplog.text


async def test_a_server_that_has_ended_does_not_end_the_run(scripted: Scripted) -> None:
    async with connected(scripted.url) as servers:
        scripted.stop()
        assert (await failed_call(servers)).startswith("it cannot be reached: ")


async def test_a_redirect_to_another_server_is_not_followed(scripted: Scripted) -> None:
    other = Scripted()
    location = {"location": f"{other.url}/mcp?key=hunter2"}
    scripted.answer = lambda _: Answer(status=307, headers=location)
    try:
        text = await failure(scripted.url)
    finally:
        other.stop()
    assert text == (
        f"it redirects to {other.url}/mcp: if that is the right server, set this URL in the "
        "agent's definition"
    )
    assert other.requests == []


async def test_a_redirect_on_the_same_server_is_followed(scripted: Scripted) -> None:
    answer = scripted.answer

    def redirecting(request: Request) -> Answer:
        if request.path == "/mcp":
            return Answer(status=308, headers={"location": "/mcp/"})
        return answer(request)

    scripted.answer = redirecting
    async with connected(f"{scripted.url}/mcp", headers={"x-key": "hunter2"}) as servers:
        assert await call(servers) == "called"
    assert all(request.headers["x-key"] == "hunter2" for request in scripted.requests)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(status=302, headers={"location": "/login?next=hunter2"}), "it redirects to"),
        (Answer(status=307, headers={"location": "/"}), "it redirects more than 3 times"),
        (Answer("<html>", "text/html"), "it answered with text/html and not with JSON (200 OK)"),
        (Answer(status=202, kind=""), "it answered with no content and not with JSON (202"),
        (Answer("{", JSON), "its answer is not JSON: '{'"),
        (Answer('{"jsonrpc": "2.0", "id": 7, "result": {}}'), "does not contain the answer"),
        (Answer("data: {}\n\n", EVENTS), "it ended its stream of events without an answer"),
        (Answer("data: {\n\n", EVENTS), "its answer is not JSON"),
        (
            Answer(json.dumps({"error": {"code": -32600, "message": "too new"}, "id": None}), JSON,
                   400),
            "it answered with error -32600: too new",
        ),
        (Answer("no key", "text/plain", 401), "401 Unauthorized; check its headers and query"),
        (Answer("down", "text/plain", 503), "it answered with 503 Service Unavailable (down)"),
        (Answer('"' + "x" * 3_000_000 + '"'), "its answer is larger than 2 MB"),
        (Answer("data: " + "x" * 3_000_000, EVENTS), "its answer is larger than 2 MB"),
        (Answer(": ping\n\n" * 400_000, EVENTS), "its answer is larger than 2 MB"),
    ],
)  # fmt: skip
async def test_an_unexpected_answer_is_an_error(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, answer: Answer, text: str
) -> None:
    monkeypatch.setattr("graphton.mcp.http.MAX_MESSAGE_BYTES", 2_000_000)
    scripted.answer = lambda _: answer
    found = await failure(f"{scripted.url}/?key=hunter2")
    assert text in found
    assert "hunter2" not in found


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_the_older_transport_is_named(scripted: Scripted, status: int) -> None:
    def answer(request: Request) -> Answer:
        if request.method == "GET":
            return Answer("event: endpoint\ndata: /messages?id=1\n\n", EVENTS)
        return Answer(status=status)

    scripted.answer = answer
    assert (await failure(f"{scripted.url}/sse")).startswith(
        "it speaks only the transport HTTP+SSE of 2024-11-05"
    )


@pytest.mark.parametrize(
    "answer",
    [
        Answer("x" * 290 + "hunter2", "text/plain", 503),
        Answer("x" * 95 + "hunter2"),
        Answer(json.dumps({"error": {"message": "x" * 995 + "hunter2"}}), JSON, 400),
    ],
)
async def test_secrets_are_replaced_before_an_answer_is_cut(
    scripted: Scripted, answer: Answer
) -> None:
    scripted.answer = lambda _: answer
    server = McpServer(name="s", endpoint=HttpServer(url=scripted.url))
    with pytest.raises(McpError) as caught:
        async with connect([server], Path(), redact=lambda text: text.replace("hunter2", "[*]")):
            pass
    assert "x[" in str(caught.value)
    assert "hunter" not in str(caught.value)


async def test_nothing_listens() -> None:
    assert (await failure("http://127.0.0.1:9/mcp")).startswith("it cannot be reached: ")


@pytest.mark.parametrize(
    "url", ["", "example.com/mcp", "file:///etc/passwd", "http://", "http://a\x7fb"]
)
async def test_an_address_that_is_not_one(url: str) -> None:
    assert (await failure(url)).startswith("its URL ")


async def test_a_compressed_answer_is_refused_before_it_is_unpacked(scripted: Scripted) -> None:
    packed = gzip.compress(gzip.compress(b" " * 30_000_000))
    scripted.answer = lambda _: Answer(packed, headers={"content-encoding": "gzip, gzip"})
    tracemalloc.start()
    try:
        text = await failure(scripted.url)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert text == "it compressed its answer (gzip, gzip), which it was not asked to do"
    assert most < 5_000_000


async def test_the_status_of_a_compressed_answer_counts(scripted: Scripted) -> None:
    scripted.lost = lambda: Answer(b"", status=404, headers={"content-encoding": "gzip"})
    async with connected(scripted.url) as servers:
        scripted.known.clear()
        assert await call(servers) == "called"


async def test_requests_in_a_stream_are_answered(scripted: Scripted) -> None:
    def asking(request: Request) -> Answer:
        ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
        progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
        body = scripted.result(request.message, {"content": [{"type": "text", "text": "a\u2028b"}]})
        events = [json.dumps(ping), json.dumps(progress), str(body.body)]
        return Answer("".join(f"event: message\ndata: {e}\n\n" for e in events), EVENTS)

    scripted.call = asking
    async with connected(scripted.url) as servers:
        assert await call(servers) == "a\u2028b"
        for _ in range(100):
            replies = [r.message for r in scripted.requests if r.message and "result" in r.message]
            if replies:
                break
            await asyncio.sleep(0.02)
    assert replies == [{"jsonrpc": "2.0", "id": "p", "result": {}}]


async def test_a_call_has_a_time_limit_and_the_server_learns_of_it(scripted: Scripted) -> None:
    ended = threading.Event()

    def silent(request: Request) -> Answer:
        ended.wait(5)
        return Answer()

    scripted.call = silent
    async with connected(scripted.url, seconds=0.3) as servers:
        assert await failed_call(servers) == "it did not answer `tools/call` within 0.3 s"
    ended.set()
    (asked,) = [r.message["id"] for r in scripted.requests if _method(r) == "tools/call"]
    (told,) = [r.message for r in scripted.requests if _method(r) == "notifications/cancelled"]
    assert told["params"]["requestId"] == asked


def _method(request: Request) -> str:
    return str(request.message.get("method")) if request.message else ""

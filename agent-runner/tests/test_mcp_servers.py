"""Tests the client with MCP servers that others wrote."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import mcp_types
import pytest
from mcp_types.methods import validate_client_notification, validate_client_request
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from graphton.mcp import HttpServer, McpError, McpServer, Servers, StdioServer, connect
from graphton.mcp.http import HttpTransport
from graphton.mcp.protocol import VERSIONS
from graphton.mcp.stdio import StdioTransport
from graphton.tools import Tool, ToolError
from tests.mcp_servers import (
    EVERYTHING,
    copy_servers,
    everything,
    needs_mcp_servers,
    sdk_server,
)


def test_the_versions_are_those_of_the_official_sdk() -> None:
    assert tuple(reversed(VERSIONS)) == HANDSHAKE_PROTOCOL_VERSIONS


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sandbox with the servers."""
    box = tmp_path_factory.mktemp("mcp") / "box"
    (box / ".tmp").mkdir(parents=True)
    copy_servers(box)
    return box


@contextlib.asynccontextmanager
async def tools(
    box: Path, endpoint: StdioServer | HttpServer, *enabled: str
) -> AsyncIterator[dict[str, Tool]]:
    """The tools of a server, by their names there."""
    server = McpServer(name="it", endpoint=endpoint, enabled_tools=enabled)
    async with connect([server], box) as servers:
        yield by_name(servers)


def by_name(servers: Servers) -> dict[str, Tool]:
    return {tool.name.partition("__")[2]: tool for tool in servers.all}


async def failed(tool: Tool, **arguments: object) -> str:
    with pytest.raises(ToolError) as caught:
        await tool.call(arguments)
    return str(caught.value)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """All messages that the client sends."""
    sent: list[Mapping[str, Any]] = []
    for transport in (HttpTransport, StdioTransport):
        send = transport.send

        async def record(self: Any, message: Mapping[str, Any], send: Any = send) -> None:
            sent.append(message)
            await send(self, message)

        monkeypatch.setattr(transport, "send", record)
    return sent


def check_messages(sent: list[Mapping[str, Any]]) -> None:
    """Validate messages of the client with the SDK's types, for each version."""
    for message in sent:
        mcp_types.jsonrpc_message_adapter.validate_json(json.dumps(message))
        for version in HANDSHAKE_PROTOCOL_VERSIONS:
            method, params = message.get("method"), message.get("params")
            if method is None:
                continue
            validate = validate_client_request if "id" in message else validate_client_notification
            validate(method, version, params)


async def use_everything(found: Mapping[str, Tool]) -> None:
    """Call tools of server-everything."""
    assert await found["echo"].call({"message": "h\u2028i"}) == "Echo: h\u2028i"
    assert await found["get-sum"].call({"a": 2, "b": 3}) == "The sum of 2 and 3 is 5."
    assert "Invalid arguments for tool get-sum" in await failed(found["get-sum"], a="x")
    image = await found["get-tiny-image"].call({})
    assert "\n[image, image/png, 4033 bytes, not shown]\n" in image
    weather = await found["get-structured-content"].call({"location": "Chicago"})
    assert set(json.loads(weather)) == {"temperature", "conditions", "humidity"}
    text = await found["get-resource-reference"].call({"resourceType": "Text", "resourceId": 1})
    assert "[resource demo://resource/dynamic/text/1]\nResource 1: This is a plaintext" in text
    blob = await found["get-resource-reference"].call({"resourceType": "Blob", "resourceId": 1})
    assert "[resource demo://resource/dynamic/blob/1, text/plain, " in blob
    links = await found["get-resource-links"].call({"count": 2})
    assert "[resource demo://resource/dynamic/text/2: Text Resource 2" in links
    assert found["get-sum"].schema["required"] == ["a", "b"]
    assert found["get-env"].schema["properties"] == {}
    assert "completed. Duration: 0.4" in (
        await found["trigger-long-running-operation"].call({"duration": 0.4, "steps": 2})
    )


@needs_mcp_servers
async def test_server_everything_over_stdio(box: Path, sent: list[Mapping[str, Any]]) -> None:
    endpoint = StdioServer(arguments=["node", EVERYTHING, "stdio"], environment={"GIVEN": "value"})
    async with tools(box, endpoint) as found:
        await use_everything(found)
        environment = json.loads(await found["get-env"].call({}))
        call = asyncio.create_task(found["trigger-long-running-operation"].call({"duration": 60}))
        await asyncio.sleep(0.2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert environment["GIVEN"] == "value"
    assert environment["HOME"] == str(box)
    assert not {"PYTEST_CURRENT_TEST", "AGENT_RUNNER_TEST_MCP"} & environment.keys()
    assert {message.get("method") for message in sent} >= {
        *("initialize", "notifications/initialized", "tools/list", "tools/call"),
        "notifications/cancelled",
    }
    check_messages(sent)


@needs_mcp_servers
async def test_server_everything_over_http(tmp_path: Path, sent: list[Mapping[str, Any]]) -> None:
    async with everything("streamableHttp") as url:
        async with tools(tmp_path, HttpServer(url=f"{url}/mcp", call_seconds=3)) as found:
            await use_everything(found)
            slow = found["trigger-long-running-operation"]
            assert "did not answer `tools/call` within 3 s" in await failed(slow, duration=60)
        # The server has ended the session, and knows it no more.
        assert sent[-1]["method"] == "notifications/cancelled"
    check_messages(sent)


@needs_mcp_servers
async def test_the_older_transport_is_refused_clearly(tmp_path: Path) -> None:
    async with everything("sse") as url:
        with pytest.raises(McpError, match=r"`it` \(http\) .* only the transport HTTP\+SSE"):
            async with tools(tmp_path, HttpServer(url=f"{url}/sse")):
                pass


@needs_mcp_servers
async def test_the_reference_server_for_git(box: Path) -> None:
    repository = box / "repository"
    await run_git("init", "--quiet", str(repository))
    (repository / "a.txt").write_text("one\n")
    endpoint = StdioServer(
        arguments=[sys.executable, "-m", "mcp_server_git"],
        environment={
            "PYTHONPATH": str(box / "python"),
            **{f"GIT_{who}_{what}": "x@example.com"
               for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        },
        working_folder="repository",
    )  # fmt: skip
    path = str(repository)
    async with tools(box, endpoint, "git_status", "git_add", "git_commit", "git_log") as found:
        assert sorted(found) == ["git_add", "git_commit", "git_log", "git_status"]
        assert "a.txt" in await found["git_status"].call({"repo_path": path})
        await found["git_add"].call({"repo_path": path, "files": ["a.txt"]})
        await found["git_commit"].call({"repo_path": path, "message": "The first one"})
        assert "The first one" in await found["git_log"].call({"repo_path": path})
        assert await failed(found["git_status"], repo_path="/nowhere")
    assert "The first one" in await run_git("-C", path, "log")


async def run_git(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec("git", *arguments, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


class Page(BaseHTTPRequestHandler):
    """A small web site."""

    def do_GET(self) -> None:
        kind, body = "text/html", b"<html><body><h1>Title</h1><p>Hello there.</p></body></html>"
        if self.path == "/robots.txt":
            kind, body = "text/plain", b"User-agent: *\nAllow: /\n"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@needs_mcp_servers
async def test_the_reference_server_for_web_pages(box: Path) -> None:
    site = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
    endpoint = StdioServer(
        arguments=[sys.executable, "-m", "mcp_server_fetch", "--allow-private-ips"],
        environment={"PYTHONPATH": str(box / "python"), "NO_PROXY": "*"},
    )
    try:
        async with tools(box, endpoint) as found:
            url = f"http://127.0.0.1:{site.server_port}/"
            assert "Hello there." in await found["fetch"].call({"url": url})
            assert await failed(found["fetch"], url=7)
    finally:
        site.shutdown()
        site.server_close()


@pytest.mark.parametrize("stateless", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
async def test_a_server_of_the_sdk(
    tmp_path: Path, sent: list[Mapping[str, Any]], stateless: bool, as_json: bool
) -> None:
    async with sdk_server(stateless=stateless, json=as_json) as server:
        endpoint = HttpServer(
            url=server.url,
            headers={"Authorization": "Bearer hunter2"},
            query={"key": "a b"},
            call_seconds=2,
        )
        async with tools(tmp_path, endpoint) as found:
            assert await found["add"].call({"a": 1, "b": 2}) == "3"
            assert await failed(found["fail"]) == "Error executing tool fail"
            assert "valid integer" in await failed(found["add"], a="x", b=1)
            assert await found["slow"].call({"seconds": 0.3}) == "done"
            headers = await found["headers"].call({})
            assert "'authorization': 'Bearer hunter2'" in headers
            assert f"'mcp-protocol-version': '{VERSIONS[0]}'" in headers
            assert "'key': 'a b'" in headers
            assert ("mcp-session-id" in headers) is not stateless
            began = time.monotonic()
            assert "did not answer" in await failed(found["slow"], seconds=30)
            assert time.monotonic() - began < 15
            if not stateless:
                assert server.cancelled
    check_messages(sent)


async def test_a_server_of_the_sdk_that_was_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sdk_server() as first, sdk_server() as second:
        transports = []
        opened = HttpTransport.open

        async def open_and_keep(self: HttpTransport, *arguments: Any) -> None:
            transports.append(self)
            await opened(self, *arguments)

        monkeypatch.setattr(HttpTransport, "open", open_and_keep)
        async with tools(tmp_path, HttpServer(url=first.url)) as found:
            transports[0]._url = transports[0]._url.copy_with(
                port=int(second.url.split(":")[2][:-4])
            )
            sums = await asyncio.gather(*(found["add"].call({"a": n, "b": 1}) for n in range(5)))
    assert sums == ["1", "2", "3", "4", "5"]


CHANGING = """
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("changing")

@server.tool()
async def unlock(context: Context) -> str:
    server.add_tool(lambda: "unlocked", name="unlocked")
    server.remove_tool("locked")
    await context.session.send_tool_list_changed()
    return "done"

@server.tool()
def locked() -> str:
    return "locked"

server.run("stdio")
"""


async def test_a_server_changes_its_tools(tmp_path: Path) -> None:
    (tmp_path / ".tmp").mkdir()
    endpoint = StdioServer(arguments=[sys.executable, "-c", CHANGING])
    async with connect([McpServer(name="it", endpoint=endpoint)], tmp_path) as servers:
        changed = asyncio.Event()
        servers.on_change = changed.set
        before = by_name(servers)
        assert sorted(before) == ["locked", "unlock"]
        assert await before["unlock"].call({}) == "done"
        await asyncio.wait_for(changed.wait(), 20)
        after = by_name(servers)
        assert sorted(after) == ["unlock", "unlocked"]
        assert await after["unlocked"].call({}) == "unlocked"
        assert "Unknown tool: locked" in await failed(before["locked"])

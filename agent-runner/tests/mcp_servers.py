"""MCP servers that others wrote.

AGENT_RUNNER_TEST_MCP is the folder that `install_mcp_servers` in .ci/lib/mcp.sh makes. The servers
of the official SDK need no folder.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from mcp.server.mcpserver import Context, MCPServer

from tests.ports import free_port
from tests.runners import until

FOLDER = os.environ.get("AGENT_RUNNER_TEST_MCP", "")
needs_mcp_servers = pytest.mark.skipif(not FOLDER, reason="AGENT_RUNNER_TEST_MCP is not set")

EVERYTHING = "node_modules/@modelcontextprotocol/server-everything/dist/index.js"


def copy_servers(sandbox: Path) -> None:
    """Copy the servers to a sandbox: behind the wall, they can read nothing else."""
    for name in ("node_modules", "python"):
        shutil.copytree(Path(FOLDER) / name, sandbox / name, symlinks=True)


@contextlib.asynccontextmanager
async def everything(mode: str) -> AsyncIterator[str]:
    """Run server-everything outside of a sandbox. Yields its address without a path.

    Args:
        mode: `streamableHttp` or `sse`.
    """
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *("node", str(Path(FOLDER) / EVERYTHING), mode),
        env={"PATH": os.environ["PATH"], "PORT": str(port)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    def listens() -> bool:
        assert process.returncode is None
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        await until(listens, what="server-everything")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


class SdkServer:
    """A server of the official SDK.

    Attributes:
        url: Its address.
        cancelled: Whether a call of `slow` was cancelled.
    """

    def __init__(self) -> None:
        self.url = ""
        self.cancelled = False

    def make(self) -> MCPServer:
        """The server."""

        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        def fail() -> str:
            """Always fail."""
            raise ValueError("no")

        async def slow(context: Context, seconds: float) -> str:
            """Report progress for a while."""
            try:
                for number in range(int(seconds * 20)):
                    await context.report_progress(number, seconds * 20)
                    await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            return "done"

        async def headers(context: Context) -> str:
            """Show the headers of the request."""
            request = context.request_context.request
            assert request is not None
            return str(dict(request.headers) | dict(request.query_params))

        server = MCPServer("sdk")
        for function in (add, fail, slow, headers):  # the decorator has no type without the SDK
            server.add_tool(function)
        return server


@contextlib.asynccontextmanager
async def sdk_server(*, stateless: bool = False, json: bool = False) -> AsyncIterator[SdkServer]:
    """Run a server of the official SDK, over Streamable HTTP."""
    server = SdkServer()
    app = server.make().streamable_http_app(stateless_http=stateless, json_response=json)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1
    )
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    try:
        await until(lambda: running.started, what="the SDK's server")
        port = running.servers[0].sockets[0].getsockname()[1]
        server.url = f"http://127.0.0.1:{port}/mcp"
        yield server
    finally:
        running.should_exit = True
        await task

"""Tests MCP servers that are programs in the sandbox, and do what good servers do not do."""

import asyncio
import contextlib
import json
import os
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from graphton import commands
from graphton.isolation import Isolation
from graphton.mcp import McpError, McpServer, Servers, StdioServer, connect, session
from graphton.tools import Tool, ToolError

SERVER = """
import json, os, sys, time

def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

version, received = "2025-11-25", []
tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("good", "bad")]

def list_tools(request):
    return {"tools": tools}

def call(request):
    return {"content": [{"type": "text", "text": "called " + request["params"]["name"]}]}

def note(message):
    pass

CHANGED

for line in sys.stdin:
    request = json.loads(line)
    received.append(request)
    if "method" not in request or "id" not in request:
        note(request)
        continue
    result = {
        "initialize": lambda request: {
            "protocolVersion": version,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "scripted", "version": "1"},
        },
        "tools/list": list_tools,
        "tools/call": call,
    }[request["method"]](request)
    if result is not None:
        send(id=request["id"], result=result)
"""


@pytest.fixture
def box(tmp_path: Path) -> Path:
    (tmp_path / "box/.tmp").mkdir(parents=True)
    return tmp_path / "box"


@pytest.fixture(autouse=True)
def short_time_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "START_SECONDS", 10)


@contextlib.asynccontextmanager
async def serving(
    box: Path, changed: str = "", enabled: Sequence[str] = (), **environment: str
) -> AsyncIterator[Servers]:
    """Start a scripted server. `changed` replaces its functions."""
    (box / "server.py").write_text(SERVER.replace("CHANGED", textwrap.dedent(changed)))
    endpoint = StdioServer(arguments=[sys.executable, "server.py"], environment=environment)
    servers = [McpServer(name="s", endpoint=endpoint, enabled_tools=enabled)]
    async with connect(servers, box) as started:
        yield started


async def failure(box: Path, changed: str = "", enabled: Sequence[str] = ()) -> str:
    """Why a scripted server cannot be used."""
    with pytest.raises(McpError) as caught:
        async with serving(box, changed, enabled):
            pass
    return str(caught.value)


def tool(servers: Servers, name: str = "good") -> Tool:
    return next(tool for tool in servers.all if tool.name == f"s__{name}")


async def failed_call(servers: Servers, name: str = "good") -> str:
    with pytest.raises(ToolError) as caught:
        await tool(servers, name).call({})
    return str(caught.value)


async def test_tools_have_the_name_of_their_server(box: Path) -> None:
    async with serving(box) as servers:
        assert [tool.name for tool in servers.all] == ["s__good", "s__bad"]
        assert await tool(servers).call({}) == "called good"


async def test_only_enabled_tools_are_there(box: Path) -> None:
    async with serving(box, enabled=["bad"]) as servers:
        assert [tool.name for tool in servers.all] == ["s__bad"]
        assert servers.select("s") == servers.select("s", ["bad"]) == servers.all
        with pytest.raises(McpError, match=r"names: `good` \(there are: `bad`\)"):
            servers.select("s", ["good"])


async def test_an_unknown_enabled_tool_is_an_error_that_lists_the_others(box: Path) -> None:
    assert await failure(box, enabled=["good", "gone"]) == (
        "the MCP server `s` (stdio) does not have all tools that `enabled_tools` names: `gone` "
        "(there are: `bad`, `good`)"
    )


async def test_all_pages_of_the_list_are_read(box: Path) -> None:
    pages = """
    def list_tools(request):
        page = int(request["params"].get("cursor", 0))
        tool = {"name": f"t{page}", "inputSchema": {"type": "object"}}
        return {"tools": [tool, tool], **({"nextCursor": str(page + 1)} if page < 4 else {})}
    """
    async with serving(box, pages) as servers:
        assert [tool.name for tool in servers.all] == [f"s__t{page}" for page in range(5)]


async def test_a_list_without_an_end_is_an_error(box: Path) -> None:
    endless = """
    def list_tools(request):
        return {"tools": [], "nextCursor": "again"}
    """
    assert "more than 100 pages" in await failure(box, endless)


async def test_a_server_without_tools_is_asked_for_none(box: Path) -> None:
    program = """
    import json, sys
    result = {"protocolVersion": "2024-11-05", "capabilities": {}}
    print(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}), flush=True)
    sys.stdin.read()
    """
    (box / "plain.py").write_text(textwrap.dedent(program))
    endpoint = StdioServer(arguments=[sys.executable, "plain.py"])
    async with connect([McpServer(name="s", endpoint=endpoint)], box) as servers:
        assert servers.all == []


async def test_a_version_that_is_not_known_is_an_error(box: Path) -> None:
    assert await failure(box, 'version = "2031-01-01"') == (
        "the MCP server `s` (stdio) cannot be used: it speaks version '2031-01-01' of MCP, and "
        "this agent-runner 2025-11-25, 2025-06-18, 2025-03-26, 2024-11-05"
    )


async def test_lines_that_are_no_messages_are_ignored(box: Path) -> None:
    noisy = """
    print("Listening…", "{", "[1, [2]]", "null", '{"id": {}}',
          '{"id": true, "result": {}}', '{"id": 99, "result": {}}',
          '{"method": "notifications/progress", "params": 7}', sep="\\n", flush=True)
    """
    async with serving(box, noisy) as servers:
        assert await tool(servers).call({}) == "called good"


async def test_requests_of_the_server_are_answered(box: Path) -> None:
    asking = """
    answers = []

    def call(request):
        for number, method in enumerate(("ping", "roots/list", "sampling/createMessage")):
            send(id=f"q{number}", method=method, params={})
        global call_id
        call_id = request["id"]

    def note(message):
        if "method" not in message:
            answers.append(message)
            if len(answers) == 3:
                text = json.dumps(answers)
                send(id=call_id, result={"content": [{"type": "text", "text": text}]})
    """
    async with serving(box, asking) as servers:
        text = await tool(servers).call({})
    assert '{"jsonrpc": "2.0", "id": "q0", "result": {}}' in text
    assert text.count('"code": -32601') == 2


async def test_a_server_that_asks_without_end_does_not_hold_up_others(box: Path) -> None:
    flooding = """
    def call(request):
        while True:
            print('{"jsonrpc": "2.0", "id": "p", "method": "ping"}\\n' * 1000, flush=True)
    """
    async with serving(box, flooding) as servers:
        call = asyncio.create_task(tool(servers).call({}))
        longest = 0.0
        for _ in range(50):
            began = time.monotonic()
            await asyncio.sleep(0.02)
            longest = max(longest, time.monotonic() - began)
        assert len(asyncio.all_tasks()) < session.MAX_REPLIES + 20
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert longest < 0.5


async def test_what_cannot_be_sent_to_a_model_is_replaced(box: Path) -> None:
    odd = r"""
    def list_tools(request):
        text = '[{"name": "x\\ud800", "description": "\\udfff", "inputSchema": {"default": NaN}}]'
        return {"tools": json.loads(text)}
    """
    async with serving(box, odd) as servers:
        (found,) = servers.all
        sent = json.dumps([found.name, found.description, found.schema], ensure_ascii=False)
        assert json.loads(sent.encode(), parse_constant=pytest.fail) == [
            *("s__x_", "?"),
            {"default": "NaN", "type": "object", "properties": {}},
        ]


async def test_a_server_is_asked_to_end(box: Path) -> None:
    tidy = """
    import signal
    def end(*_):
        open("ended", "w").close()
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    """
    waiting = "\nimport atexit; atexit.register(time.sleep, 60)"
    async with serving(box, textwrap.dedent(tidy) + waiting):
        pass
    assert (box / "ended").exists()


async def test_a_program_that_does_not_exist_is_named(box: Path) -> None:
    for command, hint in (
        ("/nowhere/uvx", "; the image with tools (its tag ends with `-tools`) has Node.js and uv"),
        ("/nowhere/npx", ""),
        ("no-such-program", ""),
    ):
        for folder in ("", "deep/below"):
            endpoint = StdioServer(arguments=[command, "-y", "x"], working_folder=folder)
            with pytest.raises(McpError) as caught:
                async with connect([McpServer(name="s", endpoint=endpoint)], box):
                    pass
            text = str(caught.value)
            assert text.startswith(
                "the MCP server `s` (stdio) cannot be used: the program "
                f"`{command}` cannot be executed: "
            )
            assert text.endswith(hint)
            assert ("-tools" in text) is bool(hint)


async def test_a_server_that_ends_says_why(box: Path) -> None:
    text = await failure(box, 'sys.exit("the key is missing")')
    assert text == (
        "the MCP server `s` (stdio) cannot be used: it ended with exit code 1: the key is missing"
    )
    text = await failure(box, 'sys.stderr.write("x" * 100_000); os.kill(os.getpid(), 6)')
    assert "it was ended by signal 6: xxx" in text
    assert len(text) < 3000


async def test_a_server_that_ends_later_does_not_end_the_run(box: Path) -> None:
    dying = """
    def call(request):
        print("out of ideas", file=sys.stderr)
        sys.exit(3)
    """
    async with serving(box, dying) as servers:
        expected = "the MCP server `s` failed: it ended with exit code 3: out of ideas"
        assert await failed_call(servers) == expected
        assert await failed_call(servers, "bad") == expected


async def test_a_silent_server_does_not_start(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "START_SECONDS", 1.4)
    text = await failure(box, 'print("installing…", file=sys.stderr); time.sleep(60)')
    assert text.endswith("it did not start within 1.4 s: installing…")


async def test_a_call_has_a_time_limit_and_the_server_learns_of_it(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = """
    def call(request):
        if request["params"]["name"] == "good":
            return None
        cancelled = [r["params"]["requestId"] for r in received
                     if r["method"] == "notifications/cancelled"]
        asked = [r["id"] for r in received if r["method"] == "tools/call"]
        return {"content": [{"type": "text", "text": f"{cancelled == asked[:1]}"}]}
    """
    monkeypatch.setattr(session.Session.__init__, "__defaults__", (0.5, str))
    async with serving(box, slow) as servers:
        assert "it did not answer `tools/call` within 0.5 s" in await failed_call(servers)
        assert await tool(servers, "bad").call({}) == "True"


async def test_a_cancelled_call_is_cancelled_at_the_server(box: Path) -> None:
    slow = """
    def call(request):
        open("asked", "w").close()

    def note(message):
        if message["method"] == "notifications/cancelled":
            open("cancelled", "w").close()
    """
    async with serving(box, slow) as servers:
        call = asyncio.create_task(tool(servers).call({}))
        while not (box / "asked").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert (box / "cancelled").exists()


async def test_a_message_that_is_too_large_ends_the_server(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphton.mcp.stdio.MAX_MESSAGE_BYTES", 2_000_000)
    huge = """
    def call(request):
        return {"content": [{"type": "text", "text": "x" * 3_000_000}]}
    """
    async with serving(box, huge) as servers:
        assert "it sent a message larger than 2 MB" in await failed_call(servers)


async def test_a_message_that_is_nested_too_deeply_ends_the_server(box: Path) -> None:
    deep = """
    def call(request):
        print("[" * 90_000, flush=True)
    """
    async with serving(box, deep) as servers:
        assert "it sent a message that is nested too deeply" in await failed_call(servers)


async def test_a_message_with_too_many_values_ends_the_server(box: Path) -> None:
    many = """
    def call(request):
        print("[" + "{}," * 1_000_000 + "{}]", flush=True)
    """
    async with serving(box, many) as servers:
        expected = "it sent a message with more than 100000 objects and lists"
        assert expected in await failed_call(servers)


@pytest.mark.parametrize("pages", [1, 20])
async def test_a_list_that_is_too_large_is_an_error(box: Path, pages: int) -> None:
    large = f"""
    def list_tools(request):
        page = int(request["params"].get("cursor", 0))
        text = "x" * (1_100_000 // {pages})
        schema = {{"type": "object", "properties": {{"a": {{"description": text}}}}}}
        tool = {{"name": f"t{{page}}", "inputSchema": schema}}
        return {{"tools": [tool], **({{"nextCursor": str(page + 1)}} if page < 20 else {{}})}}
    """
    assert (await failure(box, large)).endswith("its list of tools is larger than 1 MB")


async def test_a_list_that_changes_without_end_is_read_with_pauses(box: Path) -> None:
    changing = """
    readings = 0

    def list_tools(request):
        global readings
        readings += 1
        send(method="notifications/tools/list_changed")
        return {"tools": tools}

    def call(request):
        return {"content": [{"type": "text", "text": str(readings)}]}
    """
    async with serving(box, changing) as servers:
        await asyncio.sleep(0.5)
        assert await tool(servers).call({}) == "2"


@pytest.mark.parametrize("depth", [500, 800, 900])
async def test_a_schema_that_is_nested_too_deeply_is_an_error(box: Path, depth: int) -> None:
    deep = f"""
    def list_tools(request):
        schema = '{{"a":' * {depth} + "1" + "}}" * {depth}
        print('{{"id": %d, "result": {{"tools": [{{"name": "t", "inputSchema": %s}}]}}}}'
              % (request["id"], schema), flush=True)
    """
    assert (await failure(box, deep)).endswith("nested too deeply")


async def test_a_long_result_is_shortened(box: Path) -> None:
    long = """
    def call(request):
        return {"content": [{"type": "text", "text": "x" * 200_000}], "isError": True}
    """
    async with serving(box, long) as servers:
        assert len(await failed_call(servers)) < 31_000


SECRET = "hunter" + "".join(map(str, range(40)))


def redact(text: str) -> str:
    return text.replace(SECRET, "[secret]")


@pytest.mark.parametrize(
    "changed",
    [
        f'sys.exit("x" * 1490 + "{SECRET}" + "y" * 1000)',
        f'version = "x" * 80 + "{SECRET}"',
        f"""
        def list_tools(request):
            error = {{"code": "{SECRET}", "message": "x" * 990 + "{SECRET}"}}
            send(id=request["id"], error=error)
        """,
    ],
)
async def test_secrets_are_replaced_before_an_error_is_cut(box: Path, changed: str) -> None:
    (box / "server.py").write_text(SERVER.replace("CHANGED", textwrap.dedent(changed)))
    servers = [
        McpServer(name="s", endpoint=StdioServer(arguments=[sys.executable, "server.py"])),
    ]
    with pytest.raises(McpError) as caught:
        async with connect(servers, box, redact=redact):
            pass
    assert "[secret" in str(caught.value)
    assert "hunter" not in str(caught.value)


async def test_secrets_in_results_and_descriptions_are_replaced(box: Path) -> None:
    changed = f"""
    def list_tools(request):
        about = {{"description": "{SECRET}", "default": "{SECRET}", "type": "string"}}
        schema = {{"type": "object", "properties": {{"a": about}}}}
        return {{"tools": [
            {{"name": name, "description": "with {SECRET}", "inputSchema": schema}}
            for name in ("good", "bad")
        ]}}

    def call(request):
        text = "x" * 22_490 + "{SECRET}" + "y" * 20_000
        failed = request["params"]["name"] == "bad"
        return {{"content": [{{"type": "text", "text": text}}], "isError": failed}}
    """
    (box / "server.py").write_text(SERVER.replace("CHANGED", textwrap.dedent(changed)))
    endpoint = StdioServer(arguments=[sys.executable, "server.py"])
    servers = [McpServer(name="s", endpoint=endpoint)]
    async with connect(servers, box, redact=redact) as started:
        good = tool(started)
        assert good.description == "with [secret]"
        assert good.schema["properties"]["a"] == {
            "description": "[secret]",
            "default": "[secret]",
            "type": "string",
        }
        for text in (await good.call({}), await failed_call(started, "bad")):
            assert "x[secret]" in text
            assert "hunter" not in text


async def test_only_a_part_of_a_huge_result_is_searched_for_secrets(box: Path) -> None:
    changed = f"""
    def call(request):
        return {{"content": [{{"type": "text", "text": "{SECRET}" * 100_000}}]}}
    """
    (box / "server.py").write_text(SERVER.replace("CHANGED", textwrap.dedent(changed)))
    endpoint = StdioServer(arguments=[sys.executable, "server.py"])
    searched = []

    def search(text: str) -> str:
        searched.append(len(text))
        return redact(text)

    servers = [McpServer(name="s", endpoint=endpoint)]
    async with connect(servers, box, redact=search) as started:
        text = await tool(started).call({})
    assert max(searched) < 601_000
    assert text.startswith("[secret]" * 2800)
    assert "hunter" not in text


async def test_servers_start_side_by_side_and_all_failures_are_named(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "START_SECONDS", 4)
    waiting = StdioServer(arguments=["sleep", "60"])
    servers = [McpServer(name=f"s{number}", endpoint=waiting) for number in range(3)]
    began = time.monotonic()
    with pytest.raises(McpError) as caught:
        async with connect(servers, box):
            pass
    assert time.monotonic() - began < 10  # one after the other would take 12 s
    assert all(f"`s{number}` (stdio) cannot be used" in str(caught.value) for number in range(3))


async def test_all_processes_end_with_the_agent(box: Path) -> None:
    daemon = """
    if os.fork() == 0:
        os.setsid()
        while True:
            open("clock", "w").write(str(time.time()))
            time.sleep(0.02)
    """
    async with serving(box, daemon):
        while not (box / "clock").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    before = (box / "clock").read_text()
    await asyncio.sleep(0.2)
    assert (box / "clock").read_text() == before


async def test_a_server_that_does_not_end_by_itself_is_ended(box: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    sleeping = "\nimport atexit; atexit.register(time.sleep, 60)"
    began = time.monotonic()
    async with serving(box, stubborn + sleeping):
        pass
    assert time.monotonic() - began < 30


@pytest.mark.skipif(
    not commands.wall().landlock and not commands.wall().own_mounts, reason="no wall for files"
)
async def test_a_server_runs_behind_the_wall(box: Path) -> None:
    (box.parent / "outside").write_text("secret")
    reading = """
    def call(request):
        text = ""
        for path in ("../outside", f"/proc/{os.getppid()}/environ"):
            try:
                text += open(path).read()
            except OSError as error:
                text += "refused "
        text += f"{os.environ.get('GIVEN')} {os.environ.get('OF_THE_WORKER')}"
        return {"content": [{"type": "text", "text": text}]}
    """
    os.environ["OF_THE_WORKER"] = "secret"
    try:
        async with serving(box, reading, GIVEN="given") as servers:
            text = await tool(servers).call({})
    finally:
        del os.environ["OF_THE_WORKER"]
    assert text == "refused refused given None"


async def test_a_server_has_the_limits_of_a_command(box: Path) -> None:
    greedy = """
    def call(request):
        for _ in range(300):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        return None
    """
    async with serving(box, greedy) as servers:
        assert "it was ended because it had more than 256 processes" in await failed_call(servers)


async def test_without_a_wall_that_is_required_no_server_starts(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "refusal", lambda: "there is no wall")
    commands.configure(commands.Configuration(isolation=Isolation.AUTO))
    assert await failure(box) == (
        f"the MCP server `s` (stdio) cannot be used: `{sys.executable}` cannot be started: "
        "there is no wall"
    )


async def test_a_working_folder_is_made(box: Path) -> None:
    endpoint = StdioServer(
        arguments=[sys.executable, "-c", "import os; print(os.getcwd()); exit(os.getcwd())"],
        working_folder="a b/$(c)",
    )
    with pytest.raises(McpError, match=r"a b/\$\(c\)$"):
        async with connect([McpServer(name="s", endpoint=endpoint)], box):
            pass
    assert (box / "a b/$(c)").is_dir()

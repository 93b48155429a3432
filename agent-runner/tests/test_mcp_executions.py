"""Whole executions with MCP servers, with a real Temporal server and a real worker."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from stigmer_stubs import agentexecution_pb2 as pb
from tests.mcp_servers import EVERYTHING, copy_servers, needs_mcp_servers, sdk_server
from tests.runners import until
from tests.stack import Stack, answer, needs_temporal, start_stack
from tests.test_executions import add_agent, tool
from tests.test_mcp_servers import CHANGING

pytestmark = needs_temporal


@pytest_asyncio.fixture
async def shared(tmp_path: Path) -> AsyncIterator[Stack]:
    async with start_stack(tmp_path / "workspace") as stack:
        await stack.runner()
        yield stack


@needs_mcp_servers
async def test_an_agent_uses_a_program_and_a_server_at_an_address(shared: Stack) -> None:
    agent = add_agent(shared, "mcp")
    box = shared.sandbox("mcp")
    box.mkdir()
    copy_servers(box)
    files = agent.spec.mcp_servers.add(name="every thing")
    files.stdio.command = "node"
    files.stdio.args.extend([EVERYTHING, "stdio"])
    files.stdio.env_placeholders["API_KEY"] = "${A_SECRET}"
    message = (
        tool("every_thing__get-sum", a=2, b=3)
        + tool("every_thing__get-env")
        + tool("web__headers")
        + tool("web__add", a=1, b="x")
        + tool("web__add", a=20, b=22)
        + "!say It is {result}"
    )
    async with sdk_server() as server:
        web = agent.spec.mcp_servers.add(name="web")
        web.http.url = server.url
        web.http.headers["Authorization"] = "Bearer ${A_SECRET}"
        web.http.query_params["key"] = "${A_SECRET}"
        web.enabled_tools.extend(["add", "headers"])
        execution_id = await shared.create(message, "mcp", A_SECRET="hunter2")  # noqa: S106
        returned = await shared.server.workflow(execution_id).result()
        status = await shared.ended(execution_id)
    assert status == returned
    assert answer(status) == "It is 42"
    total, environment, headers, wrong, added = status.tool_calls
    assert total.result == "The sum of 2 and 3 is 5."
    assert json.loads(environment.result)["API_KEY"] == "[secret A_SECRET]"
    assert "PATH" in environment.result
    assert "STIGMER" not in environment.result
    assert "Bearer [secret A_SECRET]" in headers.result
    assert "'key': '[secret A_SECRET]'" in headers.result
    assert wrong.status == pb.TOOL_CALL_FAILED
    assert added.status == pb.TOOL_CALL_COMPLETED
    _, _, body = shared.model.requests[-1]
    offered = re.findall(r'"name": "(\w+)"', json.dumps(body["tools"]))
    assert [name for name in offered if name.startswith("web__")] == ["web__add", "web__headers"]
    for text in (str(status), json.dumps(shared.model.requests), "".join(shared.runners[0].log)):
        assert "hunter2" not in text


async def test_a_sub_agent_gets_the_servers_that_it_names(shared: Stack) -> None:
    agent = add_agent(shared, "sub-mcp")
    with_it = agent.spec.sub_agents.add(name="with")
    with_it.mcp_tool_selections["web"].enabled_tools.append("add")
    agent.spec.sub_agents.add(name="without")
    message = "".join(
        tool("task", agent=name, prompt=tool(f"web__{called}", a=1, b=2) + "!say {result}")
        for name, called in (("with", "add"), ("with", "headers"), ("without", "add"))
    )
    async with sdk_server() as server:
        agent.spec.mcp_servers.add(name="web").http.url = server.url
        status = await shared.run(message + "!say ok", "sub-mcp")
    assert answer(status) == "ok"
    added, unselected, without = (call.result for call in status.tool_calls)
    assert added == "3"
    assert unselected.startswith("there is no tool `web__headers`; there are: read_file")
    assert unselected.endswith("run_command, web__add")
    assert without.startswith("there is no tool `web__add`; there are: read_file")


async def test_the_model_can_use_a_tool_that_a_server_adds(shared: Stack) -> None:
    agent = add_agent(shared, "changing-mcp")
    program = agent.spec.mcp_servers.add(name="it")
    program.stdio.command = sys.executable
    program.stdio.args.extend(["-c", CHANGING])
    message = tool("it__unlock") + "!sleep 1\n" + tool("it__unlocked") + "!say {result}"
    status = await shared.run(message, "changing-mcp")
    assert answer(status) == "unlocked"
    _, _, body = shared.model.requests[-1]
    assert re.findall(r"it__\w+", json.dumps(body["tools"])) == ["it__unlock", "it__unlocked"]


async def test_a_cancelled_execution_cancels_the_call(shared: Stack) -> None:
    agent = add_agent(shared, "cancelled-mcp")
    async with sdk_server() as server:
        agent.spec.mcp_servers.add(name="web").http.url = server.url
        message = tool("web__slow", seconds=60) + "!say never"
        execution_id = await shared.create(message, "cancelled-mcp")
        await until(lambda: len(shared.status(execution_id).tool_calls) == 1)
        await asyncio.sleep(0.3)
        handle = shared.server.workflow(execution_id)
        await handle.cancel()
        status = await handle.result()
        assert status.phase == pb.EXECUTION_CANCELLED
        await until(lambda: server.cancelled)


async def test_a_program_ends_with_the_execution(shared: Stack) -> None:
    agent = add_agent(shared, "ended-mcp")
    program = agent.spec.mcp_servers.add(name="script")
    program.stdio.command = "bash"
    program.stdio.args.extend(["-c", "while :; do date +%N > clock; sleep 0.05; done"])
    execution_id = await shared.create("hello", "ended-mcp")
    clock = shared.sandbox("ended-mcp") / "clock"
    await until(clock.exists)
    handle = shared.server.workflow(execution_id)
    await handle.cancel()
    assert (await handle.result()).phase == pb.EXECUTION_CANCELLED
    before = clock.read_text()
    await asyncio.sleep(0.3)
    assert clock.read_text() == before


@pytest.mark.image
async def test_a_server_at_an_address_with_the_image(shared: Stack) -> None:
    agent = add_agent(shared, "image-mcp")
    async with sdk_server() as server:
        agent.spec.mcp_servers.add(name="web").http.url = server.url
        status = await shared.run(tool("web__add", a=1, b=2) + "!say {result}", "image-mcp")
    assert answer(status) == "3"


@pytest.mark.image
async def test_a_program_with_the_image(shared: Stack) -> None:
    agent = add_agent(shared, "program-mcp")
    script = (
        "import json, os, sys\n"
        "try:\n"
        "    said = os.listdir('/workspace/.private')\n"
        "except OSError:\n"
        "    said = 'stopped'\n"
        "said = f'{said}, {sorted(n for n in os.environ if \"API_KEY\" in n)}'\n"
        "for line in sys.stdin:\n"
        "    m = json.loads(line)\n"
        "    r = {'initialize': {'protocolVersion': '2025-11-25', 'capabilities': {'tools': {}}},\n"
        "         'tools/list': {'tools': [{'name': 't'}]},\n"
        "         'tools/call': {'content': [{'type': 'text', 'text': said}]}}\n"
        "    if 'id' in m:\n"
        "        print(json.dumps({'id': m['id'], 'result': r[m['method']]}), flush=True)\n"
    )
    program = agent.spec.mcp_servers.add(name="script")
    program.stdio.command = "python3"
    program.stdio.args.extend(["-c", script])
    status = await shared.run(tool("script__t") + "!say {result}", "program-mcp")
    # It runs behind the same walls as a command.
    assert answer(status) == "stopped, []"
    assert status.tool_calls[0].name == "script__t"

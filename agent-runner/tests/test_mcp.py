"""Tests how the servers of an agent's definition become those that the agent uses."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graphton.mcp import HttpServer, McpError, McpServer, Servers, StdioServer
from graphton.mcp.servers import AnyArguments
from graphton.memory import ThreadMemory
from graphton.tools import Tool
from stigmer_stubs.agent_pb2 import Agent, AgentSpec, SubAgent
from stigmer_stubs.agentexecution_pb2 import AgentExecution
from stigmer_stubs.session_pb2 import Session
from worker.execution import Execution
from worker.mcp import find_servers, select_tools
from worker.metrics import CountingObserver
from worker.redaction import Redactor
from worker.resolve import ResolvedExecution
from worker.sandbox import open_sandbox
from worker.settings import Settings

ENVIRONMENT = {"TOKEN": "hunter2", "REGION": "eu"}


def problem(spec: AgentSpec) -> str:
    """Why the servers of an agent cannot be used."""
    with pytest.raises(McpError) as caught:
        find_servers(spec, ENVIRONMENT)
    text = str(caught.value)
    assert text.endswith(". The execution ended before the model was asked")
    assert "hunter2" not in text
    return text.removesuffix(". The execution ended before the model was asked")


def test_an_agent_without_servers_has_none() -> None:
    spec = AgentSpec()
    spec.sub_agents.add(name="helper")
    assert find_servers(spec, ENVIRONMENT) == []


def test_each_kind_has_what_its_definition_says() -> None:
    spec = AgentSpec()
    files = spec.mcp_servers.add(name="files", enabled_tools=["read"])
    files.stdio.command = "npx"
    files.stdio.args.extend(["-y", "files", "${TOKEN}"])
    files.stdio.env_placeholders["API_KEY"] = "${TOKEN}"
    files.stdio.env_placeholders["MODE"] = "fast"
    files.stdio.working_dir = "data"
    web = spec.mcp_servers.add(name="web")
    web.http.url = "https://example.com/mcp"
    web.http.headers["Authorization"] = "Bearer ${TOKEN}\n"
    web.http.query_params["where"] = "${REGION}-${REGION}"
    web.http.timeout_seconds = 7
    default = spec.mcp_servers.add(name="default")
    default.http.url = "https://example.org/mcp"
    assert find_servers(spec, ENVIRONMENT) == [
        McpServer(
            name="files",
            endpoint=StdioServer(
                # Every process can read the arguments, so they do not get values.
                arguments=["npx", "-y", "files", "${TOKEN}"],
                environment={"API_KEY": "hunter2", "MODE": "fast"},
                working_folder="data",
            ),
            enabled_tools=("read",),
        ),
        McpServer(
            name="web",
            endpoint=HttpServer(
                url="https://example.com/mcp",
                headers={"Authorization": "Bearer hunter2"},
                query={"where": "eu-eu"},
                call_seconds=7,
            ),
        ),
        McpServer(name="default", endpoint=HttpServer(url="https://example.org/mcp")),
    ]
    assert "hunter2" not in repr(find_servers(spec, ENVIRONMENT))


def test_a_missing_variable_is_named_with_its_place() -> None:
    spec = AgentSpec()
    files = spec.mcp_servers.add(name="files")
    files.stdio.command = "npx"
    files.stdio.env_placeholders["KEY"] = "${TOKEN}${GONE}"
    web = spec.mcp_servers.add(name="web")
    web.http.url = "https://example.com/mcp"
    web.http.query_params["key"] = "${OTHER}"
    text = problem(spec)
    assert "`files` cannot be used: `env_placeholders` needs `GONE`, and the environment" in text
    assert "`web` cannot be used: `query_params` needs `OTHER`, and the environment" in text


@pytest.mark.parametrize(
    ("name", "value"), [("x y", "a"), ("", "a"), ("x", "a\r\nb: c"), ("x", "é"), ("x", "a\0")]
)
def test_a_header_that_is_not_one(name: str, value: str) -> None:
    spec = AgentSpec()
    web = spec.mcp_servers.add(name="web")
    web.http.url = "https://example.com/mcp"
    web.http.headers[name] = value + "${TOKEN}"
    assert f"the header `{name}` has characters that a header cannot have" in problem(spec)


def test_other_kinds_are_refused_with_the_reason() -> None:
    spec = AgentSpec()
    spec.mcp_servers.add(name="db").docker.image = "postgres-mcp"
    spec.mcp_servers.add(name="none")
    spec.mcp_servers.add(name="empty").stdio.SetInParent()
    text = problem(spec)
    assert "the MCP server `db` cannot be used: the runner has no container engine" in text
    assert "the MCP server `none` cannot be used: its definition has neither" in text
    assert "the MCP server `empty` cannot be used: `stdio.command` is empty" in text


@pytest.mark.parametrize("names", [["a", "a"], ["a", ""]])
def test_servers_need_different_names(names: list[str]) -> None:
    spec = AgentSpec()
    for name in names:
        spec.mcp_servers.add(name=name).http.url = "https://example.com/mcp"
    assert problem(spec).startswith("each MCP server needs a name of its own, but they are: `a`, ")


def test_a_sub_agent_can_only_name_servers_of_the_agent() -> None:
    spec = AgentSpec()
    spec.mcp_servers.add(name="web").http.url = "https://example.com/mcp"
    sub_agent = spec.sub_agents.add(name="helper")
    sub_agent.mcp_servers.extend(["web", "gone"])
    sub_agent.mcp_tool_selections["chosen"].enabled_tools.append("x")
    text = problem(spec)
    assert "the sub-agent `helper` names the MCP server `gone`, which is not in" in text
    assert "the sub-agent `helper` names the MCP server `chosen`, which is not in" in text
    assert "`web`" not in text


def _tool(name: str) -> Tool:
    async def run(_: AnyArguments) -> str:
        return name

    return Tool(name=name, description="", arguments=AnyArguments, run=run)


SERVERS = Servers(
    {
        "a": {name: _tool(f"a__{name}") for name in ("one", "two")},
        "b": {name: _tool(f"b__{name}") for name in ("one", "three")},
        "c": {"four": _tool("c__four")},
    }
)


def test_a_sub_agent_gets_what_it_names() -> None:
    sub_agent = SubAgent(name="helper", mcp_servers=["a"])
    sub_agent.mcp_tool_selections["b"].enabled_tools.append("three")
    assert [tool.name for tool in select_tools(sub_agent, SERVERS)] == [
        *("a__one", "a__two", "b__three"),
    ]
    sub_agent.mcp_tool_selections["a"].enabled_tools.append("two")
    assert [tool.name for tool in select_tools(sub_agent, SERVERS)] == ["a__two", "b__three"]
    assert select_tools(SubAgent(name="other"), SERVERS) == []


def test_a_sub_agent_cannot_select_a_tool_that_the_server_does_not_have() -> None:
    sub_agent = SubAgent(name="helper")
    sub_agent.mcp_tool_selections["a"].enabled_tools.append("three")
    with pytest.raises(McpError) as caught:
        select_tools(sub_agent, SERVERS)
    assert str(caught.value) == (
        "the sub-agent `helper`: the MCP server `a` does not have all tools that `enabled_tools` "
        "names: `three` (there are: `one`, `two`)"
    )


async def test_an_execution_has_the_tools_that_its_servers_have_now(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SANDBOX_ROOT_DIR", str(tmp_path))
    servers = Servers({"a": {"one": _tool("a__one")}})
    redactors: list[Callable[[str], str]] = []
    seen: list[tuple[set[str], set[str]]] = []

    @contextlib.asynccontextmanager
    async def connect_servers(*arguments: Any) -> AsyncIterator[Servers]:
        redactors.append(arguments[-1])
        yield servers

    class ScriptedAgent:
        def __init__(self, _: object, *, tools: list[Tool], **__: object) -> None:
            self.tools = tools

        async def run(self, _: object, __: object, observer: CountingObserver, ___: object) -> None:
            for name in ("a__one", "a__two"):
                servers.replace({"a": {"x": _tool(name)}})
                labels: Mapping[str, str] = observer._labels
                seen.append(({tool.name for tool in self.tools}, set(labels)))

    async def close() -> None:
        pass

    monkeypatch.setattr("worker.execution.connect_servers", connect_servers)
    monkeypatch.setattr("worker.execution.connect", lambda _: SimpleNamespace(close=close))
    monkeypatch.setattr("worker.execution.Agent", ScriptedAgent)
    monkeypatch.setattr(ThreadMemory, "load", lambda _: [])
    sent, redactor, settings = AgentExecution(), Redactor([("TOKEN", "hunter2")]), Settings.load()
    execution = Execution(settings, None, sent, "t")  # type: ignore[arg-type]
    resolved = ResolvedExecution(
        execution=sent,
        session=Session(),
        agent=Agent(),
        environment={},
        secrets=(),
        skills=(),
        sub_agents=(),
    )
    with open_sandbox(tmp_path, "box") as folder:
        await execution._run_in_sandbox(
            folder, resolved, redactor, settings.llm_for("llama3.2"), []
        )
    assert redactors == [redactor]
    for (tools, labels), name in zip(seen, ("a__one", "a__two"), strict=True):
        assert tools == labels
        assert {tool for tool in tools if tool.startswith("a__")} == {name}

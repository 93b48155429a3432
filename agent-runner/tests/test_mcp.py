"""Tests what is said about an agent that needs MCP servers."""

import pytest

from stigmer_stubs.agent_pb2 import AgentSpec
from worker.mcp import McpError, refuse_servers


def refused(spec: AgentSpec) -> tuple[list[str], str]:
    """The servers that the message names, and what it says to do."""
    with pytest.raises(McpError) as caught:
        refuse_servers(spec)
    servers, _, advice = str(caught.value).partition(". The model was not asked. ")
    return servers.partition("no MCP client: ")[2].split(", "), advice


def test_an_agent_without_servers_is_accepted() -> None:
    spec = AgentSpec()
    spec.sub_agents.add(name="helper")
    refuse_servers(spec)


def test_each_server_is_named_with_its_kind() -> None:
    spec = AgentSpec()
    spec.mcp_servers.add(name="files").stdio.command = "npx"
    web = spec.mcp_servers.add(name="web")
    web.http.url = "https://example.com/mcp"
    web.http.headers["Authorization"] = "Bearer hunter2"
    spec.mcp_servers.add(name="db").docker.image = "postgres-mcp"
    spec.mcp_servers.add(name="more").http.url = "https://example.org/mcp"
    spec.mcp_servers.add()
    servers, advice = refused(spec)
    assert servers == [
        "`files` (stdio)",
        "`web` (http)",
        "`db` (docker)",
        "`more` (http)",
        "one without a name (unknown kind)",
    ]
    assert advice.startswith("Remove them from `mcp_servers`")
    assert "docker: the runner has no container engine" in advice
    assert advice.count("http: ") == 1
    assert "hunter2" not in advice


@pytest.mark.parametrize("kind", ["stdio", "http", "docker"])
def test_only_what_concerns_the_kinds_is_said(kind: str) -> None:
    spec = AgentSpec()
    getattr(spec.mcp_servers.add(name="x"), kind).SetInParent()
    _, advice = refused(spec)
    assert [k for k in ("stdio", "http", "docker") if f" {k}: " in advice] == [kind]


def test_an_empty_definition_has_a_kind_too() -> None:
    spec = AgentSpec()
    spec.mcp_servers.add(name="files").stdio.SetInParent()
    assert refused(spec)[0] == ["`files` (stdio)"]


def test_a_sub_agent_may_name_a_server_that_the_agent_does_not_have() -> None:
    spec = AgentSpec()
    spec.mcp_servers.add(name="web").http.url = "https://example.com/mcp"
    sub_agent = spec.sub_agents.add(name="helper")
    sub_agent.mcp_servers.extend(["web", "gone"])
    sub_agent.mcp_tool_selections["chosen"].enabled_tools.append("x")
    assert refused(spec)[0] == [
        "`web` (http)",
        "`chosen` of the sub-agent `helper` (not defined)",
        "`gone` of the sub-agent `helper` (not defined)",
    ]
    del spec.mcp_servers[:]
    assert len(refused(spec)[0]) == 3

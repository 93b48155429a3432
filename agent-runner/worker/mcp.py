"""Turns the MCP servers of an agent's definition into those that the agent uses."""

import re
from collections.abc import Mapping
from typing import Final

from graphton.mcp import HttpServer, McpError, McpServer, Servers, StdioServer
from graphton.tools import Tool
from stigmer_stubs.agent_pb2 import AgentSpec, McpServerDefinition, SubAgent

_PLACEHOLDER: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A variable of the execution's environment, as `${NAME}`."""

_REFUSED: Final = {
    "docker": "the runner has no container engine, and starts no containers for agents. Use a "
    "server of the kind `stdio` or `http`",
    None: "its definition has neither `stdio` nor `http`",
}
"""Why the other kinds of servers cannot be used."""


def find_servers(spec: AgentSpec, environment: Mapping[str, str]) -> list[McpServer]:
    """The servers of an agent.

    Args:
        spec: The agent.
        environment: The environment of the execution.

    Raises:
        McpError: if the definition of a server is not valid, or a sub-agent names one that the
            agent does not have. The message has all problems.
    """
    problems, servers, names = [], [], [server.name for server in spec.mcp_servers]
    if not all(names) or len(set(names)) < len(names):
        listed = ", ".join(f"`{name}`" if name else "one without a name" for name in names)
        problems.append(f"each MCP server needs a name of its own, but they are: {listed}")
    for definition in spec.mcp_servers:
        try:
            servers.append(_find_server(definition, environment))
        except McpError as error:
            problems.append(f"the MCP server `{definition.name}` cannot be used: {error}")
    for sub_agent in spec.sub_agents:
        for name in _servers_of(sub_agent):
            if name not in names:
                problems.append(
                    f"the sub-agent `{sub_agent.name}` names the MCP server `{name}`, which is not "
                    "in `mcp_servers` of the agent"
                )
    if problems:
        raise McpError(f"{'; '.join(problems)}. The execution ended before the model was asked")
    return servers


def select_tools(sub_agent: SubAgent, servers: Servers) -> list[Tool]:
    """The tools of servers that a sub-agent gets.

    Raises:
        McpError: if it selects a tool that the server does not have.
    """
    selections = sub_agent.mcp_tool_selections
    try:
        return [
            tool
            for name in _servers_of(sub_agent)
            for tool in servers.select(
                name, selections[name].enabled_tools if name in selections else ()
            )
        ]
    except McpError as error:
        raise McpError(f"the sub-agent `{sub_agent.name}`: {error}") from None


def _servers_of(sub_agent: SubAgent) -> list[str]:
    return list(dict.fromkeys([*sub_agent.mcp_servers, *sorted(sub_agent.mcp_tool_selections)]))


def _find_server(definition: McpServerDefinition, environment: Mapping[str, str]) -> McpServer:
    kind = definition.WhichOneof("server_type")
    endpoint: StdioServer | HttpServer
    if kind == "stdio":
        stdio = definition.stdio
        if not stdio.command:
            raise McpError("`stdio.command` is empty")
        endpoint = StdioServer(
            arguments=[stdio.command, *stdio.args],
            environment=_fill(stdio.env_placeholders, "env_placeholders", environment),
            working_folder=stdio.working_dir,
        )
    elif kind == "http":
        http = definition.http
        # A value from a file often ends with a newline, which a header cannot have.
        headers = _fill(http.headers, "headers", environment)
        headers = {name: value.strip() for name, value in headers.items()}
        for name, value in headers.items():
            if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII) or not (
                value.isascii() and value.isprintable()
            ):
                raise McpError(f"the header `{name}` has characters that a header cannot have")
        endpoint = HttpServer(
            url=http.url,
            headers=headers,
            query=_fill(http.query_params, "query_params", environment),
            **({"call_seconds": http.timeout_seconds} if http.timeout_seconds > 0 else {}),
        )
    else:
        raise McpError(_REFUSED[kind])
    enabled = tuple(definition.enabled_tools)
    return McpServer(name=definition.name, endpoint=endpoint, enabled_tools=enabled)


def _fill(values: Mapping[str, str], field: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Replace placeholders by the values of variables.

    Raises:
        McpError: if the environment does not have a variable. The message has no values.
    """
    found = {name for value in values.values() for name in _PLACEHOLDER.findall(value)}
    if missing := sorted(found - environment.keys()):
        listed = ", ".join(f"`{name}`" for name in missing)
        raise McpError(
            f"`{field}` needs {listed}, and the environment of the execution does not have it: "
            "set it in the agent's environment or for the execution"
        )
    return {
        key: _PLACEHOLDER.sub(lambda match: environment[match[1]], value)
        for key, value in values.items()
    }

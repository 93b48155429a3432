"""Says why an agent that needs MCP servers cannot be run: this worker has no MCP client."""

from collections.abc import Mapping
from typing import Final

from stigmer_stubs.agent_pb2 import AgentSpec

_ADVICE: Final[Mapping[str, str]] = {
    "stdio": "the agent can run a program of its sandbox with the tool `run_command` instead",
    "http": "the agent can call an HTTP API with the tool `run_command` instead",
    "docker": "the runner has no container engine, and starts no containers for agents",
}
"""What to say about each kind of server."""

_UNKNOWN: Final = "unknown kind"
"""The kind of a server whose definition has none, or one of a newer contract."""


class McpError(Exception):
    """An agent needs MCP servers. The message names them, and says what to do."""


def refuse_servers(spec: AgentSpec) -> None:
    """Refuse an agent that needs MCP servers.

    Without their tools a model says that it has done the work, and has not.

    Raises:
        McpError: if the agent or a sub-agent of it needs a server.
    """
    kinds = [server.WhichOneof("server_type") or _UNKNOWN for server in spec.mcp_servers]
    servers = [
        f"{_shown(server.name)} ({kind})"
        for server, kind in zip(spec.mcp_servers, kinds, strict=True)
    ]
    defined = {server.name for server in spec.mcp_servers}
    for sub_agent in spec.sub_agents:
        needed = {*sub_agent.mcp_servers, *sub_agent.mcp_tool_selections}
        servers += [
            f"{_shown(name)} of the sub-agent {_shown(sub_agent.name)} (not defined)"
            for name in sorted(needed - defined)
        ]
    if not servers:
        return
    advice = [f" {kind}: {text}." for kind, text in _ADVICE.items() if kind in kinds]
    raise McpError(
        "this agent needs MCP servers, and this agent-runner has no MCP client: "
        f"{', '.join(servers)}. The model was not asked. Remove them from `mcp_servers` of the "
        "agent and of its sub-agents, and say in the instructions or in a skill how to work "
        f"without them.{''.join(advice)}"
    )


def _shown(name: str) -> str:
    return f"`{name}`" if name else "one without a name"

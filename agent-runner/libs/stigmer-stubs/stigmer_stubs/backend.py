"""stigmer-server's gRPC methods that the runner calls."""

from enum import StrEnum
from typing import Final

DEFAULT_ENDPOINT: Final = "localhost:7234"

_AGENTIC: Final = "/ai.stigmer.agentic"


class Method(StrEnum):
    """A unary gRPC method, as the path in the HTTP/2 request."""

    UPDATE_EXECUTION_STATUS = (
        f"{_AGENTIC}.agentexecution.v1.AgentExecutionCommandController/updateStatus"
    )
    GET_EXECUTION = f"{_AGENTIC}.agentexecution.v1.AgentExecutionQueryController/get"
    GET_SESSION = f"{_AGENTIC}.session.v1.SessionQueryController/get"
    GET_AGENT_INSTANCE = f"{_AGENTIC}.agentinstance.v1.AgentInstanceQueryController/get"
    GET_AGENT = f"{_AGENTIC}.agent.v1.AgentQueryController/get"
    GET_SKILL = f"{_AGENTIC}.skill.v1.SkillQueryController/getByReference"
    GET_SKILL_ARTIFACT = f"{_AGENTIC}.skill.v1.SkillQueryController/getArtifact"
    GET_ENVIRONMENT = f"{_AGENTIC}.environment.v1.EnvironmentQueryController/getByReference"

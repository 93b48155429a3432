"""stigmer-server's gRPC methods."""

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from stigmer_stubs import (
    agent_pb2,
    agentexecution_pb2,
    agentinstance_pb2,
    apiresource_pb2,
    environment_pb2,
    session_pb2,
    skill_pb2,
)

DEFAULT_ENDPOINT: Final = "localhost:7234"

RequestT = TypeVar("RequestT", bound=Message)
ReplyT = TypeVar("ReplyT", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ReplyT]):
    """A gRPC method.

    Attributes:
        path: The path of the HTTP/2 request.
        request: The type of the request.
        reply: The type of the reply, or of each message of a stream.
        streams: Whether the reply is a stream.
    """

    path: str
    request: type[RequestT]
    reply: type[ReplyT]
    streams: bool = False


_AGENTIC: Final = "/ai.stigmer.agentic"

CREATE_EXECUTION: Final = Method(
    f"{_AGENTIC}.agentexecution.v1.AgentExecutionCommandController/create",
    agentexecution_pb2.AgentExecution,
    agentexecution_pb2.AgentExecution,
)
UPDATE_EXECUTION_STATUS: Final = Method(
    f"{_AGENTIC}.agentexecution.v1.AgentExecutionCommandController/updateStatus",
    agentexecution_pb2.AgentExecutionUpdateStatusInput,
    agentexecution_pb2.AgentExecution,
)
GET_EXECUTION: Final = Method(
    f"{_AGENTIC}.agentexecution.v1.AgentExecutionQueryController/get",
    agentexecution_pb2.AgentExecutionId,
    agentexecution_pb2.AgentExecution,
)
SUBSCRIBE_EXECUTION: Final = Method(
    f"{_AGENTIC}.agentexecution.v1.AgentExecutionQueryController/subscribe",
    agentexecution_pb2.AgentExecutionId,
    agentexecution_pb2.AgentExecution,
    streams=True,
)
GET_SESSION: Final = Method(
    f"{_AGENTIC}.session.v1.SessionQueryController/get",
    session_pb2.SessionId,
    session_pb2.Session,
)
GET_AGENT_INSTANCE: Final = Method(
    f"{_AGENTIC}.agentinstance.v1.AgentInstanceQueryController/get",
    agentinstance_pb2.AgentInstanceId,
    agentinstance_pb2.AgentInstance,
)
GET_AGENT: Final = Method(
    f"{_AGENTIC}.agent.v1.AgentQueryController/get",
    agent_pb2.AgentId,
    agent_pb2.Agent,
)
GET_SKILL: Final = Method(
    f"{_AGENTIC}.skill.v1.SkillQueryController/getByReference",
    apiresource_pb2.ApiResourceReference,
    skill_pb2.Skill,
)
GET_SKILL_ARTIFACT: Final = Method(
    f"{_AGENTIC}.skill.v1.SkillQueryController/getArtifact",
    skill_pb2.GetArtifactRequest,
    skill_pb2.GetArtifactResponse,
)
GET_ENVIRONMENT: Final = Method(
    f"{_AGENTIC}.environment.v1.EnvironmentQueryController/getByReference",
    apiresource_pb2.ApiResourceReference,
    environment_pb2.Environment,
)

FINAL_PHASES: Final = frozenset(
    {
        agentexecution_pb2.EXECUTION_COMPLETED,
        agentexecution_pb2.EXECUTION_FAILED,
        agentexecution_pb2.EXECUTION_CANCELLED,
    }
)
"""The phases after which an execution does not change any more."""

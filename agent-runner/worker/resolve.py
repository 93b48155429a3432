"""What an execution needs to know, asked of stigmer-server: who runs, and with what.

execution → session → agent instance → agent; without a session, the agent and its default
instance.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from stigmer_stubs import backend as contract
from stigmer_stubs.agent_pb2 import Agent, AgentId
from stigmer_stubs.agentexecution_pb2 import AgentExecution, AgentExecutionId
from stigmer_stubs.agentinstance_pb2 import AgentInstance, AgentInstanceId
from stigmer_stubs.session_pb2 import Session, SessionId
from stigmer_stubs.skill_pb2 import GetArtifactRequest
from stigmer_stubs.skill_pb2 import Skill as SkillResource
from worker.backend import Backend

_log = logging.getLogger(__name__)

ARTIFACT_SECONDS: Final = 60.0
"""How long it may take to get one: an artifact is larger than the rest."""


class ResolveError(Exception):
    """An execution that names nobody to run. The message says what is missing."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """An execution, with all it refers to.

    Attributes:
        execution: The execution.
        session: Its session, or an empty one.
        agent: Who runs.
        environment: The variables of the agent's commands.
        secrets: The name and value of each that is marked as secret, also if another replaced it.
        skills: The agent's skills, as the server keeps them.
    """

    execution: AgentExecution
    session: Session
    agent: Agent
    environment: Mapping[str, str] = field(repr=False)
    secrets: Sequence[tuple[str, str]] = field(repr=False)
    skills: tuple[SkillResource, ...]


async def resolve(server: Backend, execution: AgentExecution) -> Resolved:
    """Ask the server for all of it.

    Raises:
        ResolveError: if the execution names neither a session nor an agent.
        BackendError: if the server does not know something, or is away.
    """
    if not execution.HasField("spec") and execution.metadata.id:
        execution = await server.call(
            contract.GET_EXECUTION, AgentExecutionId(value=execution.metadata.id)
        )
    spec = execution.spec
    session = Session()
    if spec.session_id:
        session = await server.call(contract.GET_SESSION, SessionId(value=spec.session_id))
    agent, instance = await _agent(server, session.spec.agent_instance_id, spec.agent_id)
    environments = await asyncio.gather(
        *(
            server.call(contract.GET_ENVIRONMENT, reference)
            for reference in instance.spec.environment_refs
        )
    )
    skills = await asyncio.gather(
        *(server.call(contract.GET_SKILL, reference) for reference in agent.spec.skill_refs)
    )
    merge = _Merge()
    for specification in (agent.spec.env_spec, *(found.spec for found in environments)):
        for name, said in specification.data.items():
            merge.add(name, said.value, said.is_secret)
    for name, given in spec.runtime_env.items():
        merge.add(name, given.value, given.is_secret)
    return Resolved(execution, session, agent, merge.variables, merge.secrets, tuple(skills))


async def _agent(server: Backend, instance_id: str, agent_id: str) -> tuple[Agent, AgentInstance]:
    if instance_id:
        instance = await server.call(
            contract.GET_AGENT_INSTANCE, AgentInstanceId(value=instance_id)
        )
        agent_id = instance.spec.agent_id or agent_id
    else:
        instance = AgentInstance()
    if not agent_id:
        raise ResolveError("the execution names no agent: neither by its session nor itself")
    agent = await server.call(contract.GET_AGENT, AgentId(value=agent_id))
    default = agent.status.default_instance_id
    if not instance_id and default:
        instance = await server.call(contract.GET_AGENT_INSTANCE, AgentInstanceId(value=default))
    return agent, instance


class _Merge:
    """Variables, of which later ones replace earlier ones."""

    def __init__(self) -> None:
        self.variables: dict[str, str] = {}
        self.secrets: list[tuple[str, str]] = []

    def add(self, name: str, value: str, is_secret: bool) -> None:
        if is_secret:
            self.secrets.append((name, value))
        if not name or "=" in name or "\0" in name + value:
            _log.warning("a variable is left out: its name or value is none of an environment")
            return
        self.variables[name] = value


async def artifact(server: Backend, skill: SkillResource) -> bytes:
    """The archive of a skill; empty if it has none.

    Raises:
        BackendError: if the server does not have it, or is away.
    """
    key = skill.status.artifact_storage_key
    if not key:
        return b""
    reply = await server.call(
        contract.GET_SKILL_ARTIFACT,
        GetArtifactRequest(artifact_storage_key=key),
        patience=ARTIFACT_SECONDS,
        seconds=ARTIFACT_SECONDS,
    )
    return reply.artifact

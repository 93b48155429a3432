"""Gets everything that an execution refers to from stigmer-server.

execution → session → agent instance → agent. Without a session: execution → agent → its default
instance.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from stigmer_stubs import backend as contract
from stigmer_stubs.agent_pb2 import Agent, AgentId, SubAgent
from stigmer_stubs.agentexecution_pb2 import AgentExecution, AgentExecutionId
from stigmer_stubs.agentinstance_pb2 import AgentInstance, AgentInstanceId
from stigmer_stubs.apiresource_pb2 import ApiResourceReference
from stigmer_stubs.session_pb2 import Session, SessionId
from stigmer_stubs.skill_pb2 import GetArtifactRequest
from stigmer_stubs.skill_pb2 import Skill as SkillResource
from worker.backend import Backend

_log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT_SECONDS: Final = 60.0
"""The time limit for downloading the archive of a skill, which may be large."""


class ResolveError(Exception):
    """An execution refers to no agent, or to one that cannot be run. The message says why."""


@dataclass(frozen=True, slots=True)
class ResolvedSubAgent:
    """A sub-agent and its skills, as stored by the server."""

    definition: SubAgent
    skills: tuple[SkillResource, ...]


@dataclass(frozen=True, slots=True)
class ResolvedExecution:
    """An execution and everything it refers to.

    Attributes:
        execution: The execution.
        session: Its session, or an empty one.
        agent: The agent to run.
        environment: The environment variables for the agent's commands.
        secrets: The names and values of all secret variables, including those whose value another
            variable of the same name replaces.
        skills: The agent's skills, as stored by the server.
        sub_agents: The agent's sub-agents.
    """

    execution: AgentExecution
    session: Session
    agent: Agent
    environment: Mapping[str, str] = field(repr=False)
    secrets: Sequence[tuple[str, str]] = field(repr=False)
    skills: tuple[SkillResource, ...]
    sub_agents: tuple[ResolvedSubAgent, ...]


async def resolve(server: Backend, execution: AgentExecution) -> ResolvedExecution:
    """Get everything that an execution refers to.

    Raises:
        ResolveError: if the execution refers to no agent, directly or by its session, or the
            agent's sub-agents do not each have a name of their own.
        BackendError: if the server does not have a resource, or is unavailable.
    """
    if not execution.HasField("spec") and execution.metadata.id:
        execution = await server.call(
            contract.GET_EXECUTION, AgentExecutionId(value=execution.metadata.id)
        )
    spec = execution.spec
    session = Session()
    if spec.session_id:
        session = await server.call(contract.GET_SESSION, SessionId(value=spec.session_id))
    agent, instance = await _find_agent(server, session.spec.agent_instance_id, spec.agent_id)
    environments = await asyncio.gather(
        *(
            server.call(contract.GET_ENVIRONMENT, _without_kind(reference))
            for reference in instance.spec.environment_refs
        )
    )
    _check_names(agent)
    skills = await _find_skills(server, agent.spec.skill_refs)
    sub_agents = [
        ResolvedSubAgent(sub_agent, await _find_skills(server, sub_agent.skill_refs))
        for sub_agent in agent.spec.sub_agents
    ]
    variables = _Variables()
    for specification in (agent.spec.env_spec, *(found.spec for found in environments)):
        for name, variable in specification.data.items():
            variables.add(name, variable.value, variable.is_secret)
    for name, given in spec.runtime_env.items():
        variables.add(name, given.value, given.is_secret)
    return ResolvedExecution(
        execution,
        session,
        agent,
        variables.values,
        variables.secrets,
        skills,
        tuple(sub_agents),
    )


def _check_names(agent: Agent) -> None:
    """Check that the model can name each sub-agent."""
    names = [sub_agent.name for sub_agent in agent.spec.sub_agents]
    if not all(names) or len(set(names)) < len(names):
        listed = ", ".join(f"`{name}`" if name else "one without a name" for name in names)
        raise ResolveError(
            f"each sub-agent of an agent needs a name of its own, but they are: {listed}. "
            "Change `sub_agents` in the agent's definition"
        )


async def _find_skills(
    server: Backend, references: Iterable[ApiResourceReference]
) -> tuple[SkillResource, ...]:
    calls = (server.call(contract.GET_SKILL, reference) for reference in references)
    return tuple(await asyncio.gather(*calls))


def _without_kind(reference: ApiResourceReference) -> ApiResourceReference:
    """Remove the kind from a reference. The server's lookup of environments refuses it."""
    copy = ApiResourceReference()
    copy.CopyFrom(reference)
    copy.ClearField("kind")
    return copy


async def _find_agent(
    server: Backend, instance_id: str, agent_id: str
) -> tuple[Agent, AgentInstance]:
    if instance_id:
        instance = await server.call(
            contract.GET_AGENT_INSTANCE, AgentInstanceId(value=instance_id)
        )
        agent_id = instance.spec.agent_id or agent_id
    else:
        instance = AgentInstance()
    if not agent_id:
        raise ResolveError("neither the execution nor its session names an agent")
    agent = await server.call(contract.GET_AGENT, AgentId(value=agent_id))
    default = agent.status.default_instance_id
    if not instance_id and default:
        instance = await server.call(contract.GET_AGENT_INSTANCE, AgentInstanceId(value=default))
    return agent, instance


class _Variables:
    """Environment variables. A later value replaces an earlier one of the same name."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.secrets: list[tuple[str, str]] = []

    def add(self, name: str, value: str, is_secret: bool) -> None:
        if is_secret:
            self.secrets.append((name, value))
        if not name or "=" in name or "\0" in name + value:
            _log.warning("ignored an environment variable with an invalid name or value")
            return
        self.values[name] = value


async def download_artifact(server: Backend, skill: SkillResource) -> bytes:
    """Download the archive of a skill; empty if it has none.

    Raises:
        BackendError: if the server does not have the archive, or is unavailable.
    """
    key = skill.status.artifact_storage_key
    if not key:
        return b""
    reply = await server.call(
        contract.GET_SKILL_ARTIFACT,
        GetArtifactRequest(artifact_storage_key=key),
        retry_for=DOWNLOAD_TIMEOUT_SECONDS,
        attempt_timeout=DOWNLOAD_TIMEOUT_SECONDS,
    )
    return reply.artifact

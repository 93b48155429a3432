"""What the devserver knows, in memory."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from stigmer_stubs.agent_pb2 import Agent
from stigmer_stubs.agentexecution_pb2 import AgentExecution, AgentExecutionStatus
from stigmer_stubs.agentinstance_pb2 import AgentInstance
from stigmer_stubs.backend import FINAL_PHASES
from stigmer_stubs.environment_pb2 import Environment
from stigmer_stubs.session_pb2 import Session
from stigmer_stubs.skill_pb2 import Skill

KINDS: Final[dict[str, type[Message]]] = {
    kind.DESCRIPTOR.name: kind for kind in (Agent, AgentInstance, Environment, Session, Skill)
}

MessageT = TypeVar("MessageT", bound=Message)


class Store:
    """Resources by kind and id or slug, artifacts by key, executions by id."""

    def __init__(self) -> None:
        self.resources: dict[tuple[str, str], Any] = {}
        self.artifacts: dict[str, bytes] = {}
        self.executions: dict[str, AgentExecution] = {}
        self.updates: list[tuple[str, AgentExecutionStatus]] = []
        self._changed = asyncio.Condition()
        self._add_default_agent()

    def _add_default_agent(self) -> None:
        """An agent to begin with."""
        agent = Agent(kind="Agent")
        agent.metadata.id = agent.metadata.slug = agent.metadata.name = "dev-agent"
        agent.spec.instructions = "You are a helpful agent for development."
        agent.status.default_instance_id = "dev-instance"
        instance = AgentInstance(kind="AgentInstance")
        instance.metadata.id = instance.metadata.slug = "dev-instance"
        instance.spec.agent_id = "dev-agent"
        self.add(agent)
        self.add(instance)

    def add(self, resource: Any) -> None:
        """Keep a resource, under its id and its slug."""
        kind = resource.DESCRIPTOR.name
        for name in (resource.metadata.id, resource.metadata.slug):
            if name:
                self.resources[kind, name] = resource

    def load(self, file: Path) -> None:
        """Keep the resources of a JSON file: a list, each with its `kind`.

        A skill may have `artifact_file`: an archive beside the JSON file.

        Raises:
            ValueError, KeyError, OSError: for what cannot be read.
        """
        for item in json.loads(file.read_text(encoding="utf-8")):
            artifact = item.pop("artifact_file", None)
            resource: Any = ParseDict(item, KINDS[item["kind"]]())
            if artifact:
                key = resource.status.artifact_storage_key or f"artifact-{uuid.uuid4().hex}"
                resource.status.artifact_storage_key = key
                self.artifacts[key] = (file.parent / artifact).read_bytes()
            self.add(resource)

    def get(self, kind: type[MessageT], name: str) -> MessageT | None:
        """A resource by its id or slug."""
        found: MessageT | None = self.resources.get((kind.DESCRIPTOR.name, name))
        return found

    def create(self, execution: AgentExecution) -> AgentExecution:
        """Keep a new execution, under an id of its own. Its session is made if there is none."""
        execution.metadata.id = execution.metadata.id or f"aex-{uuid.uuid4().hex}"
        execution.kind = "AgentExecution"
        spec = execution.spec
        if spec.session_id and self.get(Session, spec.session_id) is None:
            agent = self.get(Agent, spec.agent_id or "dev-agent")
            session = Session(kind="Session")
            session.metadata.id = spec.session_id
            session.spec.agent_instance_id = agent.status.default_instance_id if agent else ""
            self.add(session)
        self.executions[execution.metadata.id] = execution
        return execution

    async def update(self, execution_id: str, status: AgentExecutionStatus) -> AgentExecution:
        """Put a status in place of the one before.

        Raises:
            KeyError: for an execution that is not there.
        """
        execution = self.executions[execution_id]
        kept = AgentExecutionStatus()
        kept.CopyFrom(status)
        self.updates.append((execution_id, kept))
        execution.status.CopyFrom(status)
        async with self._changed:
            self._changed.notify_all()
        return execution

    async def follow(self, execution_id: str) -> AsyncIterator[AgentExecution]:
        """The execution as it is, and again each time it has changed, until its end.

        Raises:
            KeyError: for an execution that is not there.
        """
        seen = None
        while True:
            execution = self.executions[execution_id]
            state = execution.SerializeToString(deterministic=True)
            if state != seen:
                seen = state
                yield AgentExecution.FromString(state)
                if execution.status.phase in FINAL_PHASES:
                    return
                continue
            async with self._changed:
                if execution.SerializeToString(deterministic=True) == seen:
                    await self._changed.wait()

"""The devserver's resources and executions, in memory."""

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
    """Stores resources, archives of skills, and executions.

    Attributes:
        resources: The resources, by kind and by id or slug.
        artifacts: The archives, by their storage keys.
        executions: The executions, by id.
        updates: The id and the status of every update of an execution.
    """

    def __init__(self) -> None:
        self.resources: dict[tuple[str, str], Any] = {}
        self.artifacts: dict[str, bytes] = {}
        self.executions: dict[str, AgentExecution] = {}
        self.updates: list[tuple[str, AgentExecutionStatus]] = []
        self._changed = asyncio.Condition()
        self._add_default_agent()

    def _add_default_agent(self) -> None:
        """Add an agent, so that the devserver can be used without further resources."""
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
        """Store a resource under its id and its slug."""
        kind = resource.DESCRIPTOR.name
        for name in (resource.metadata.id, resource.metadata.slug):
            if name:
                self.resources[kind, name] = resource

    def load(self, file: Path) -> None:
        """Load resources from a JSON file. It contains a list of objects with a `kind`.

        A skill may have an `artifact_file`: an archive in the same folder as the JSON file.

        Raises:
            ValueError, KeyError, OSError: if the file or an archive is invalid or missing.
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
        """Return a resource by its id or slug; None if there is none."""
        found: MessageT | None = self.resources.get((kind.DESCRIPTOR.name, name))
        return found

    def create(self, execution: AgentExecution) -> AgentExecution:
        """Store a new execution under a new id. Its session is created if it does not exist."""
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
        """Merge a status into that of an execution, as the real server does.

        A field that is not set keeps its value, and a list or a map that is not empty replaces the
        one before. So a phase that is sent again replaces a phase that somebody else has set.

        Raises:
            KeyError: if there is no such execution.
        """
        execution = self.executions[execution_id]
        copy = AgentExecutionStatus()
        copy.CopyFrom(status)
        self.updates.append((execution_id, copy))
        for descriptor, _ in status.ListFields():
            execution.status.ClearField(descriptor.name)
        execution.status.MergeFrom(status)
        async with self._changed:
            self._changed.notify_all()
        return execution

    async def follow(self, execution_id: str) -> AsyncIterator[AgentExecution]:
        """Yield the current state of an execution, and each later state, until its end.

        Raises:
            KeyError: if there is no such execution.
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

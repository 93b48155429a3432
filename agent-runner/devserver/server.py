"""Serves the contract's gRPC services with grpcio, and runs the workflows."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import grpc
import grpc.aio
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from devserver.methods import CREATE_SESSION
from devserver.store import Store
from devserver.workflow import AgentExecutionWorkflow, RunnerOptions, ServerActivities
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs import backend as contract
from stigmer_stubs.agent_pb2 import Agent
from stigmer_stubs.agentinstance_pb2 import AgentInstance
from stigmer_stubs.environment_pb2 import Environment
from stigmer_stubs.session_pb2 import Session
from stigmer_stubs.skill_pb2 import GetArtifactResponse, Skill
from stigmer_stubs.temporal import DEFAULT_ADDRESS, DEFAULT_NAMESPACE, WORKFLOW_TASK_QUEUE

_log = logging.getLogger(__name__)

Context = Any
Handler = Callable[[Any, Context], Awaitable[Any]]

MAX_MESSAGE_BYTES: Final = 100_000_000
"""An archive of a skill is sent in one message."""


@dataclass
class Options:
    """The options of the server.

    Attributes:
        host: The address to listen on.
        port: The port for gRPC; 0 for any free port.
        api_key: The key to require from callers; None for no key.
        temporal: The address of Temporal.
        namespace: The Temporal namespace.
        task_queue: The task queue of the workflows.
        runner: The task queue and the timeouts of the runner's activities.
    """

    host: str = "127.0.0.1"
    port: int = 7234
    api_key: str | None = None
    temporal: str = DEFAULT_ADDRESS
    namespace: str = DEFAULT_NAMESPACE
    task_queue: str = WORKFLOW_TASK_QUEUE
    runner: RunnerOptions = field(default_factory=RunnerOptions)


async def _require_name(resource: pb.AgentExecution | Session, context: Context) -> None:
    """Refuse a resource without a name or an organization, as the real server does."""
    for key in ("name", "org"):
        if not getattr(resource.metadata, key):
            reason = f"metadata.{key}: value is required"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)


class DevServer:
    """The server.

    Attributes:
        store: The resources and executions.
        port: The port for gRPC.
        calls: The number of calls of each method, by its path.
        failing: The methods that are to fail, by path, and the status of the failure.
        ready: Whether executions can be created.
    """

    def __init__(self, options: Options, store: Store | None = None) -> None:
        self.options = options
        self.store = store or Store()
        self.calls: Counter[str] = Counter()
        self.failing: dict[str, grpc.StatusCode] = {}
        self.ready = False
        self.port = options.port
        self._client: Client | None = None
        self._grpc: grpc.aio.Server | None = None
        self._workflows: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve gRPC, and run workflows as soon as Temporal is available."""
        await self.start_grpc()
        self._workflows = asyncio.create_task(self._run_workflows())

    async def start_grpc(self) -> None:
        """Start serving gRPC only."""
        options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0)]  # fmt: skip
        self._grpc = grpc.aio.server(options=options)
        self._grpc.add_generic_rpc_handlers(tuple(self._handlers()))
        self.port = self._grpc.add_insecure_port(f"{self.options.host}:{self.port}")
        await self._grpc.start()

    async def stop_grpc(self) -> None:
        """Stop serving gRPC. The resources and executions are kept."""
        if self._grpc is not None:
            await self._grpc.stop(None)

    async def stop(self) -> None:
        """Stop everything."""
        if self._workflows is not None:
            self._workflows.cancel()
            await asyncio.gather(self._workflows, return_exceptions=True)
        await self.stop_grpc()

    async def _run_workflows(self) -> None:
        while self._client is None:
            try:
                self._client = await Client.connect(
                    self.options.temporal, namespace=self.options.namespace
                )
            except RuntimeError as error:
                _log.info("waiting for Temporal at %s: %s", self.options.temporal, error)
                await asyncio.sleep(1)
        async with Worker(
            self._client,
            task_queue=self.options.task_queue,
            workflows=[AgentExecutionWorkflow],
            activities=[ServerActivities(self.store).fail],
        ):
            self.ready = True
            _log.info(
                "ready: gRPC on port %d, workflows on task queue `%s`",
                self.port,
                self.options.task_queue,
            )
            await asyncio.Event().wait()

    def workflow(self, execution_id: str) -> WorkflowHandle[Any, pb.AgentExecutionStatus]:
        """Return a handle of the workflow of an execution."""
        assert self._client, "not connected to Temporal"
        return self._client.get_workflow_handle(execution_id, result_type=pb.AgentExecutionStatus)

    async def create(self, execution: pb.AgentExecution) -> pb.AgentExecution:
        """Store an execution, and start its workflow. Returns the execution with its id."""
        assert self._client, "not connected to Temporal"
        created = self.store.create(execution)
        created.status.phase = pb.EXECUTION_PENDING
        await self._client.start_workflow(
            AgentExecutionWorkflow.run,
            args=[created, self.options.runner],
            id=created.metadata.id,
            task_queue=self.options.task_queue,
            run_timeout=timedelta(seconds=self.options.runner.workflow_run),
        )
        return created

    def _handlers(self) -> list[grpc.GenericRpcHandler]:
        methods: dict[contract.Method[Any, Any], Handler] = {
            contract.CREATE_EXECUTION: self._create,
            contract.UPDATE_EXECUTION_STATUS: self._update,
            contract.GET_EXECUTION: self._get_execution,
            CREATE_SESSION: self._create_session,
            contract.GET_SESSION: self._getter(Session, "value"),
            contract.GET_AGENT: self._getter(Agent, "value"),
            contract.GET_AGENT_INSTANCE: self._getter(AgentInstance, "value"),
            contract.GET_SKILL: self._getter(Skill, "slug"),
            contract.GET_ENVIRONMENT: self._get_environment,
            contract.GET_SKILL_ARTIFACT: self._artifact,
        }
        services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method, handler in methods.items():
            service, name = method.path.removeprefix("/").split("/")
            services.setdefault(service, {})[name] = grpc.unary_unary_rpc_method_handler(
                self._checked(method.path, handler),
                request_deserializer=method.request.FromString,
                response_serializer=method.reply.SerializeToString,
            )
        method = contract.SUBSCRIBE_EXECUTION
        service, name = method.path.removeprefix("/").split("/")
        services[service][name] = grpc.unary_stream_rpc_method_handler(
            self._subscribe,
            request_deserializer=method.request.FromString,
            response_serializer=method.reply.SerializeToString,
        )
        return [grpc.method_handlers_generic_handler(*item) for item in services.items()]

    async def _check(self, path: str, context: Context) -> None:
        self.calls[path] += 1
        if path in self.failing:
            await context.abort(self.failing[path], "scripted failure")
        key = self.options.api_key
        sent = dict(context.invocation_metadata() or ()).get("authorization")
        if key is not None and sent != f"Bearer {key}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong or missing API key")

    def _checked(self, path: str, handler: Handler) -> Handler:
        async def checked(request: Any, context: Context) -> Any:
            await self._check(path, context)
            try:
                return await handler(request, context)
            except KeyError as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {error}")

        return checked

    async def _create(self, execution: pb.AgentExecution, context: Context) -> pb.AgentExecution:
        if self._client is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not connected to Temporal")
        await _require_name(execution, context)
        session = execution.spec.session_id
        if session and self.store.get(Session, session) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no session `{session}`")
        return await self.create(execution)

    async def _create_session(self, session: Session, context: Context) -> Session:
        """Create a session whose id is its name, so that people recognise it.

        The real server generates an id.
        """
        await _require_name(session, context)
        session.metadata.id = session.metadata.name
        self.store.add(session)
        return session

    async def _update(
        self, request: pb.AgentExecutionUpdateStatusInput, context: Context
    ) -> pb.AgentExecution:
        return await self.store.update(request.execution_id, request.status)

    async def _get_execution(
        self, request: pb.AgentExecutionId, context: Context
    ) -> pb.AgentExecution:
        return self.store.executions[request.value]

    async def _subscribe(
        self, request: pb.AgentExecutionId, context: Context
    ) -> AsyncIterator[pb.AgentExecution]:
        await self._check(contract.SUBSCRIBE_EXECUTION.path, context)
        try:
            async with contextlib.aclosing(self.store.follow(request.value)) as changes:  # type: ignore[type-var]
                async for execution in changes:
                    yield execution
        except KeyError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {error}")

    def _getter(self, kind: type[Any], field_name: str) -> Handler:
        """A handler that returns the resource whose id or slug is in a field of the request."""

        async def get(request: Any, context: Context) -> Any:
            name = getattr(request, field_name)
            found = self.store.get(kind, name)
            if found is None:
                raise KeyError(f"{kind.DESCRIPTOR.name} {name}")
            return found

        return get

    async def _get_environment(self, request: Any, context: Context) -> Any:
        if request.kind:  # as the real server does
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "kind mismatch")
        return await self._getter(Environment, "slug")(request, context)

    async def _artifact(self, request: Any, context: Context) -> GetArtifactResponse:
        return GetArtifactResponse(artifact=self.store.artifacts[request.artifact_storage_key])

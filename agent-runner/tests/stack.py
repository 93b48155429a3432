"""Everything that an execution needs: Temporal, the devserver, its model, and a worker.

AGENT_RUNNER_TEST_TEMPORAL is the address of Temporal. The worker is a process or a container: see
tests/runners.py. Each stack has its own task queues, so that several can share one Temporal.
"""

import asyncio
import contextlib
import os
import ssl
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from devserver.model import ModelServer
from devserver.server import DevServer, Options
from devserver.workflow import RunnerOptions
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs.backend import FINAL_PHASES
from tests.runners import CONTAINER_WORKSPACE, ENGINE, ContainerRunner, Runner, until

TEMPORAL = os.environ.get("AGENT_RUNNER_TEST_TEMPORAL", "")
if ENGINE and not TEMPORAL:  # do not skip the tests that an image is to be tested with
    raise pytest.UsageError("AGENT_RUNNER_TEST_ENGINE needs AGENT_RUNNER_TEST_TEMPORAL=host:port")

needs_temporal = pytest.mark.skipif(
    not TEMPORAL, reason="AGENT_RUNNER_TEST_TEMPORAL=host:port is not set"
)

WORKER_KEY = "the-workers-own-key"
MODEL_KEY = "the-models-own-key"


@dataclass
class Stack:
    """A devserver with its model, and a folder for the workers' sandboxes."""

    root: Path
    server: DevServer
    model: ModelServer
    queue: str
    environment: dict[str, str] = field(default_factory=dict)
    runners: list[Runner] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a worker."""
        return {
            "LOG_LEVEL": "debug",
            "OPENAI_API_KEY": MODEL_KEY,
            "STIGMER_API_KEY": WORKER_KEY,
            "STIGMER_BACKEND_ENDPOINT": f"127.0.0.1:{self.server.port}",
            "STIGMER_LLM_BASE_URL": f"{self.model.url}/v1",
            "STIGMER_LLM_PROVIDER": "openai",
            "TEMPORAL_AGENT_EXECUTION_RUNNER_TASK_QUEUE": self.queue,
            "TEMPORAL_SERVICE_ADDRESS": TEMPORAL,
            **self.environment,
        }

    async def runner(self, **environment: str) -> Runner:
        """Start a worker, and wait until it polls."""
        kind = ContainerRunner if ENGINE else Runner
        runner = kind(self.root, self.variables | environment)
        self.runners.append(runner)
        await runner.start()
        return runner

    async def create(self, message: str, session: str = "", **fields: str) -> str:
        """Create an execution. Returns its id."""
        execution = pb.AgentExecution()
        execution.spec.message = message
        execution.spec.session_id = session
        execution.spec.agent_id = fields.pop("agent", "dev-agent")
        for name, value in fields.items():
            execution.spec.runtime_env[name].value = value
            execution.spec.runtime_env[name].is_secret = "SECRET" in name
        created = await self.server.create(execution)
        return created.metadata.id

    def status(self, execution_id: str) -> pb.AgentExecutionStatus:
        """Return the status of an execution, as the server has it."""
        return self.server.store.executions[execution_id].status

    async def ended(self, execution_id: str, seconds: float = 90) -> pb.AgentExecutionStatus:
        """Wait until an execution has ended, and return its status."""
        await until(lambda: self.status(execution_id).phase in FINAL_PHASES, seconds, execution_id)
        return self.status(execution_id)

    async def run(self, message: str, session: str = "", **fields: str) -> pb.AgentExecutionStatus:
        """Create an execution, wait until it has ended, and return its status."""
        return await self.ended(await self.create(message, session, **fields))

    def sandbox(self, session: str) -> Path:
        """The folder with the files of a session."""
        return self.root / f"thread-{session}"

    def sandbox_in_worker(self, session: str) -> Path:
        """The path of the same folder inside of the worker's container, if it has one."""
        return (CONTAINER_WORKSPACE if ENGINE else self.root) / f"thread-{session}"


def answer(status: pb.AgentExecutionStatus) -> str:
    """The agent's final answer."""
    assert status.phase == pb.EXECUTION_COMPLETED, status
    assert status.messages[-1].type == pb.MESSAGE_AI
    return status.messages[-1].content


@contextlib.asynccontextmanager
async def start_stack(
    root: Path, runner_options: RunnerOptions | None = None
) -> AsyncIterator[Stack]:
    """Start a stack without a worker, and stop it at the end."""
    queue = f"test-{uuid.uuid4().hex}"
    runner_options = runner_options or RunnerOptions()
    runner_options.task_queue = queue
    options = Options(
        port=0,
        temporal=TEMPORAL,
        task_queue=f"{queue}-workflows",
        runner=runner_options,
        api_key=WORKER_KEY,
    )
    server, model = DevServer(options), ModelServer()
    model.start()
    await server.start()
    try:
        await until(lambda: server.ready, what="the devserver")
        root.mkdir(exist_ok=True)
        stack = Stack(root, server, model, queue)
        try:
            yield stack
        finally:
            async with contextlib.AsyncExitStack() as exits:
                for runner in stack.runners:
                    exits.push_async_callback(runner.remove)
    finally:
        await server.stop()
        model.stop()


class Proxy:
    """A TCP proxy whose connections can be interrupted. It can also serve TLS."""

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._host, _, port = target.rpartition(":")
        self._target_port = int(port)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        """Accept connections. After `stop`, this uses the same port again."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Abort all connections, and accept no new ones."""
        assert self._server
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection(self._host, self._target_port)
        self._open |= {writer, target_writer}

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            target.close()

        await asyncio.gather(copy(reader, target_writer), copy(target_reader, writer))
        self._open -= {writer, target_writer}

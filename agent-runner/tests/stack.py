"""All that an execution takes, on this machine: a Temporal, the devserver, its model, the worker.

Temporal is the one of AGENT_RUNNER_TEST_TEMPORAL; the worker is a process or a container, as
tests/runners.py says. Queues have names of their own, so that any number of stacks can share one
Temporal.
"""

import asyncio
import contextlib
import os
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
from tests.runners import ENGINE, MOUNTED, ContainerRunner, Runner, until

TEMPORAL = os.environ.get("AGENT_RUNNER_TEST_TEMPORAL", "")
if ENGINE and not TEMPORAL:  # an image was to be proven: nothing may be skipped
    raise pytest.UsageError("AGENT_RUNNER_TEST_ENGINE needs AGENT_RUNNER_TEST_TEMPORAL=host:port")

WORKER_KEY = "the-workers-own-key"
MODEL_KEY = "the-models-own-key"


@dataclass
class Stack:
    """A devserver with its model, and where workers may work."""

    root: Path
    server: DevServer
    model: ModelServer
    queue: str
    environment: dict[str, str] = field(default_factory=dict)
    runners: list[Runner] = field(default_factory=list)

    async def runner(self, **environment: str) -> Runner:
        """Start a worker, and wait until it polls."""
        base = {
            "LOG_LEVEL": "debug",
            "OPENAI_API_KEY": MODEL_KEY,
            "STIGMER_API_KEY": WORKER_KEY,
            "STIGMER_BACKEND_ENDPOINT": f"127.0.0.1:{self.server.port}",
            "STIGMER_LLM_BASE_URL": f"{self.model.url}/v1",
            "STIGMER_LLM_PROVIDER": "openai",
            "TEMPORAL_AGENT_EXECUTION_RUNNER_TASK_QUEUE": self.queue,
            "TEMPORAL_SERVICE_ADDRESS": TEMPORAL,
        }
        kind = ContainerRunner if ENGINE else Runner
        runner = kind(self.root, base | self.environment | environment)
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
        """What the server knows of an execution."""
        return self.server.store.executions[execution_id].status

    async def ended(self, execution_id: str, seconds: float = 30) -> pb.AgentExecutionStatus:
        """Wait until the server knows how an execution ended."""
        await until(lambda: self.status(execution_id).phase in FINAL_PHASES, seconds, execution_id)
        return self.status(execution_id)

    async def run(self, message: str, session: str = "", **fields: str) -> pb.AgentExecutionStatus:
        """Create an execution, and wait for its end."""
        return await self.ended(await self.create(message, session, **fields))

    def files(self, session: str) -> Path:
        """Where the files of a session are."""
        return self.root / f"thread-{session}"

    def seen(self, session: str) -> Path:
        """Where they are for the worker."""
        return (MOUNTED if ENGINE else self.root) / f"thread-{session}"


def answer(status: pb.AgentExecutionStatus) -> str:
    """The agent's last word."""
    assert status.phase == pb.EXECUTION_COMPLETED, status
    assert status.messages[-1].type == pb.MESSAGE_AI
    return status.messages[-1].content


@contextlib.asynccontextmanager
async def stack(root: Path, runner_options: RunnerOptions | None = None) -> AsyncIterator[Stack]:
    """A stack without a worker."""
    queue = f"test-{uuid.uuid4().hex}"
    runner_options = runner_options or RunnerOptions()
    runner_options.queue = queue
    options = Options(
        port=0,
        temporal=TEMPORAL,
        queue=f"{queue}-workflows",
        runner=runner_options,
        api_key=WORKER_KEY,
    )
    server, model = DevServer(options), ModelServer()
    model.start()
    await server.start()
    try:
        await until(lambda: server.ready, what="the devserver")
        root.mkdir(exist_ok=True)
        made = Stack(root, server, model, queue)
        try:
            yield made
        finally:
            async with contextlib.AsyncExitStack() as exits:
                for runner in made.runners:
                    exits.push_async_callback(runner.remove)
    finally:
        await server.stop()
        model.stop()


class Proxy:
    """A TCP connection to somewhere that can be cut and mended."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._target_port = int(port)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def mend(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections, and take no new ones."""
        assert self._server
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._target_port)
        self._open |= {writer, back}

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            target.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))
        self._open -= {writer, back}

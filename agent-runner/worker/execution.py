"""Runs one execution and reports its status to the server."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final

from graphton import ModelConfig
from graphton.agent import Agent, Consumption, LimitError, Outcome, RunLimits
from graphton.blocking import run_blocking
from graphton.chat import ModelError
from graphton.files import FilesError, Folder
from graphton.mcp import McpError, McpServer, Servers
from graphton.mcp import connect as connect_servers
from graphton.memory import ThreadMemory
from graphton.providers import connect
from graphton.subagents import SUB_AGENT_TOOL, SubAgent, SubAgentObserver, SubAgentTool
from graphton.todos import TodoList
from graphton.tools import SandboxTools, Tool
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs.skill_pb2 import Skill as SkillResource
from worker import sandbox, skills
from worker.backend import Backend, BackendError
from worker.mcp import find_servers, select_tools
from worker.metrics import CountingObserver, CountingSubAgentObserver, Metrics
from worker.progress import CANCELLED_TEXT, Progress
from worker.prompt import system_prompt
from worker.redaction import CURRENT_REDACTOR, Redactor
from worker.reporter import Reporter
from worker.resolve import ResolvedExecution, ResolveError, download_artifact, resolve
from worker.settings import Settings
from worker.status import json_size
from worker.workspace import find_problem

_log = logging.getLogger(__name__)

FINAL_STATUS_RETRY_SECONDS: Final = 60.0
"""How long sending the final status is retried if the server is unavailable."""

CANCELLED_RETRY_SECONDS: Final = 5.0
SHUTDOWN_RETRY_SECONDS: Final = 1.0
"""The same after a cancellation, and when the worker shuts down and will soon be killed."""

LAST_ATTEMPT_SECONDS: Final = 0.5
"""How long the last attempt may take after the time for retries is over."""


class StopError(Exception):
    """An execution is stopped from outside. The message says why.

    Attributes:
        phase: The final phase of the execution.
        retry_for: How long sending the final status is retried, in seconds.
    """

    def __init__(self, phase: pb.ExecutionPhase, message: str, retry_for: float) -> None:
        super().__init__(message)
        self.phase = phase
        self.retry_for = retry_for


class WorkspaceError(Exception):
    """The worker cannot write to the workspace. The message says what helps."""


_EXPECTED_ERRORS: Final = (
    *(BackendError, LimitError, McpError, ModelError, ResolveError),
    *(WorkspaceError, skills.SkillError),
)
"""The errors whose messages are for the user."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What is known of the workflow that asks for an execution.

    Attributes:
        seconds: The time after which it stops waiting; None if there is no limit.
        created: When it began, in microseconds since 1970. The executions of a session run in this
            order.
    """

    seconds: float | None = None
    created: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """How an execution ended.

    Attributes:
        phase: The final phase.
        error: Why it did not complete; empty if it did.
        retry_for: How long sending the final status is retried, in seconds.
    """

    phase: pb.ExecutionPhase
    error: str = ""
    retry_for: float = FINAL_STATUS_RETRY_SECONDS


class Execution:
    """Runs an agent once.

    Args:
        settings: The worker's configuration.
        server: The client for stigmer-server.
        execution: The execution to run.
        thread_id: The id of the thread (the conversation) that it continues.
        metrics: The worker's counters.
        while_waiting: Makes a context that is open while another execution of the session runs.
        secrets: The worker's own secrets, as pairs of a name and a value.
    """

    def __init__(  # noqa: PLR0913 (the last three have defaults)
        self,
        settings: Settings,
        server: Backend,
        execution: pb.AgentExecution,
        thread_id: str,
        *,
        metrics: Metrics | None = None,
        while_waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        secrets: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._while_waiting = while_waiting
        self._server = server
        self._execution = execution
        self._id = execution.metadata.id
        # A caller that gives no thread id gets a thread of its own.
        self._thread_id = thread_id or f"execution-{self._id or uuid.uuid4().hex}"
        given = execution.spec.runtime_env.items()
        own = [(name, value.value) for name, value in given if value.is_secret]
        self._secrets = secrets
        redactor = Redactor([*own, *secrets])
        self._progress = progress = Progress(execution.spec.message, redactor)
        CURRENT_REDACTOR.set(lambda text: progress.redactor(text))
        self._sandbox = ""
        self._caller = Caller()
        self._waited_for_session = 0.0

    async def run(
        self,
        find_caller: Callable[[], Awaitable[Caller]],
        cancellation_reason: Callable[[], StopError],
    ) -> pb.AgentExecutionStatus:
        """Run the execution, and report its progress and its final status to the server.

        Args:
            find_caller: Returns what is known of the caller.
            cancellation_reason: Called if this task is cancelled. Returns the reason.

        Returns:
            The final status. It also reports failures; this method does not raise them.
        """
        started = time.monotonic()
        reporter = Reporter(self._server, self._id, self._progress)
        end = await self._run_to_end(reporter, find_caller, cancellation_reason)
        self._progress.end(end.phase, end.error)
        retry_for = end.retry_for
        if self._caller.seconds is not None:
            left = self._caller.seconds - (time.monotonic() - started)
            retry_for = max(0.5, min(retry_for, left - 0.5))
        await self._finish(reporter, retry_for)
        return self._record(time.monotonic() - started)

    async def _run_to_end(  # noqa: PLR0911 (one for each kind of end)
        self,
        reporter: Reporter,
        find_caller: Callable[[], Awaitable[Caller]],
        cancellation_reason: Callable[[], StopError],
    ) -> End:
        """Run the agent, and say how that ended. Does not raise."""
        began = asyncio.get_running_loop().time()
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._caller = await find_caller()
                if (seconds := self._caller.seconds) is not None:
                    margin = min(15.0, max(1.0, seconds * 0.1), seconds / 2)
                    limit.reschedule(began + seconds - margin)  # `find_caller` took time too
                await self._run_unless_ended(reporter)
            return End(pb.EXECUTION_COMPLETED)
        except _EXPECTED_ERRORS as error:
            return End(pb.EXECUTION_FAILED, str(error))
        except TimeoutError:
            if not limit.expired():
                return End(pb.EXECUTION_FAILED, "an operation timed out")
            passed = asyncio.get_running_loop().time() - began
            return End(pb.EXECUTION_FAILED, self._describe_time_limit(passed))
        except (FilesError, OSError) as error:
            return End(pb.EXECUTION_FAILED, await self._describe_files_error(error))
        except (StopError, asyncio.CancelledError) as error:
            why = error if isinstance(error, StopError) else cancellation_reason()
            return End(why.phase, str(why), why.retry_for)
        except Exception as error:  # report every failure in the status
            _log.exception("execution %s: unexpected error", self._id)
            text = f"the agent-runner failed: {type(error).__name__}"
            return End(pb.EXECUTION_FAILED, text)

    def _describe_time_limit(self, seconds: float) -> str:
        text = f"no more time: stopped after {seconds:.0f} s"
        if self._waited_for_session >= 1:
            text += f", of which {self._waited_for_session:.0f} s in the session's queue"
        return f"{text}, because Temporal's time limit is reached"

    async def _describe_files_error(self, error: Exception) -> str:
        problem = ""
        with contextlib.suppress(asyncio.CancelledError):  # the execution has failed already
            root = self._settings.sandbox_root_dir
            problem = await run_blocking(find_problem, root, self._sandbox)
        return problem or f"the sandbox cannot be used: {error}"

    def _record(self, seconds: float) -> pb.AgentExecutionStatus:
        """Return the final status, and write it into the metrics and the log."""
        status = self._progress.snapshot(json_size)
        self._metrics.execution_ended(status.phase, seconds, self._waited_for_session)
        _log.info(
            "execution %s ended: %s after %.1f s, %d tool calls%s",
            self._id or "without an id",
            pb.ExecutionPhase.Name(status.phase),
            seconds,
            len(status.tool_calls),
            f": {status.error}" if status.error else "",
        )
        return status

    async def _finish(self, reporter: Reporter, retry_for: float) -> None:
        """Send the final status, also if this task is cancelled meanwhile.

        It is cancelled when the worker stops. The container is then killed soon, so there is only
        time for one more attempt.
        """
        while True:
            finishing = asyncio.ensure_future(reporter.finish(retry_for))
            try:
                # `finish` does not last longer than this, even if the server does not answer.
                await asyncio.wait({finishing}, timeout=retry_for + LAST_ATTEMPT_SECONDS)
                return
            except asyncio.CancelledError:
                retry_for = min(retry_for, SHUTDOWN_RETRY_SECONDS)
            finally:
                finishing.cancel()

    async def _run_unless_ended(self, reporter: Reporter) -> None:
        """Run the agent. Stop it if the server reports that the execution has ended."""
        work = asyncio.ensure_future(self._run_agent())
        ended = asyncio.ensure_future(reporter.ended.wait())
        try:
            await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _describe_end(reporter.phase)
            work.result()
        finally:
            ended.cancel()
            work.cancel()
            # Wait until commands have ended and locks are released before reporting the end.
            await asyncio.gather(work, ended, return_exceptions=True)

    async def _run_agent(self) -> None:
        root = self._settings.sandbox_root_dir
        if problem := await run_blocking(find_problem, root):
            raise WorkspaceError(problem)
        resolved = await resolve(self._server, self._execution)
        redactor = Redactor([*resolved.secrets, *self._secrets])
        spec = resolved.execution.spec
        self._progress.set_redactor(redactor, spec.message)
        name = sandbox.sandbox_id(resolved.session.spec.sandbox_id, self._thread_id)
        model = self._settings.llm_for(spec.execution_config.model_name)
        _log.info(
            "execution %s: agent %s, thread %s, sandbox %s, provider %s, model %s",
            self._id or "without an id",
            resolved.agent.metadata.id or resolved.agent.metadata.name,
            self._thread_id,
            name,
            model.provider,
            model.model,
        )
        servers = find_servers(resolved.agent.spec, resolved.environment)
        self._sandbox = name
        async with sandbox.locked(root, name, self._caller.created, self._wait_for_session):
            with await run_blocking(sandbox.open_sandbox, root, name) as folder:
                outcome = await self._run_in_sandbox(folder, resolved, redactor, model, servers)
        _log.info(
            "execution %s: %d rounds, %d input tokens (%d of them cached), %d output tokens",
            self._id or "without an id",
            outcome.rounds,
            outcome.usage.input_tokens,
            outcome.usage.cached_tokens,
            outcome.usage.output_tokens,
        )

    async def _run_in_sandbox(
        self,
        folder: Folder,
        resolved: ResolvedExecution,
        redactor: Redactor,
        model: ModelConfig,
        servers: Sequence[McpServer],
    ) -> Outcome:
        prompt = await self._prompt(
            folder, resolved, resolved.agent.spec.instructions, resolved.skills
        )
        in_sandbox = SandboxTools(folder, resolved.environment, redactor, redactor.placeholders)
        sandbox_tools, account = in_sandbox.all, in_sandbox.account
        own_tools = [*sandbox_tools, TodoList(self._progress.todos_changed).tool]
        reserved = {*(tool.name for tool in own_tools), SUB_AGENT_TOOL}
        async with connect_servers(servers, folder.root, reserved, account, redactor) as started:
            sub_agents = await self._sub_agents(folder, resolved, redactor, started)
            limits = RunLimits(
                rounds=self._settings.agent_max_rounds, tokens=self._settings.agent_max_tokens
            )
            consumed = Consumption()
            memory = ThreadMemory(folder, self._thread_id)
            chat = connect(model)
            if sub_agents:
                own_tools.append(
                    SubAgentTool(
                        model=chat,
                        agents=sub_agents,
                        tools=sandbox_tools,
                        limits=limits,
                        consumed=consumed,
                        observe=partial(
                            self._observe_sub_agent, _labels([*sandbox_tools, *started.all])
                        ),
                        redact=redactor,
                    ).tool
                )
            tools: list[Tool] = []
            labels: dict[str, str] = {}

            def offer_tools() -> None:
                tools[:] = [*own_tools, *started.all]
                labels.clear()
                labels.update(_labels(tools))

            offer_tools()
            started.on_change = offer_tools
            try:
                agent = Agent(
                    chat,
                    system=redactor(prompt),
                    tools=tools,
                    limits=limits,
                    redact=redactor,
                    consumed=consumed,
                )
                return await agent.run(
                    await run_blocking(memory.load),
                    redactor(resolved.execution.spec.message),
                    CountingObserver(self._progress, self._metrics, labels),
                    memory.save,
                )
            finally:
                await chat.close()

    async def _sub_agents(
        self, folder: Folder, resolved: ResolvedExecution, redactor: Redactor, servers: Servers
    ) -> list[SubAgent]:
        """Install the skills of the sub-agents, and return the sub-agents."""
        found = []
        for sub_agent in resolved.sub_agents:
            definition = sub_agent.definition
            prompt = await self._prompt(folder, resolved, definition.instructions, sub_agent.skills)
            found.append(
                SubAgent(
                    name=definition.name,
                    description=redactor(definition.description),
                    system=redactor(prompt),
                    tools=select_tools(definition, servers),
                )
            )
        return found

    async def _prompt(
        self,
        folder: Folder,
        resolved: ResolvedExecution,
        instructions: str,
        found: Sequence[SkillResource],
    ) -> str:
        """Install the skills of an agent or a sub-agent, and return its system prompt."""
        installed = [await self._install(folder, skill) for skill in found]
        return system_prompt(instructions, installed, resolved.environment)

    def _observe_sub_agent(
        self, labels: Mapping[str, str], name: str, task: str
    ) -> SubAgentObserver:
        progress = self._progress.sub_agent_started(name, task)
        return CountingSubAgentObserver(progress, self._metrics, labels)

    @contextmanager
    def _wait_for_session(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            with self._while_waiting():
                yield
        finally:
            self._waited_for_session = time.monotonic() - started

    async def _install(self, folder: Folder, skill: SkillResource) -> skills.Skill:
        name = skill.metadata.name or skill.metadata.slug
        page = skill.spec.skill_md
        try:
            content = page + skill.status.artifact_storage_key
            path = skills.skill_folder(skill.status.version_hash, content)
            installed = await run_blocking(folder.is_folder, path)
            archive = b"" if installed else await download_artifact(self._server, skill)
            return await run_blocking(skills.install, folder, name, path, page, archive)
        except (skills.SkillError, FilesError) as error:
            raise skills.SkillError(f"skill `{name}`: {error}") from None


def _labels(tools: Iterable[Tool]) -> dict[str, str]:
    """What the metrics call each tool. Servers have too many tools for a name each."""
    return {tool.name: tool.name if tool.given_schema is None else "mcp" for tool in tools}


def _describe_end(phase: pb.ExecutionPhase) -> StopError:
    """The reason to stop an execution that already has this final phase at the server."""
    if phase == pb.EXECUTION_CANCELLED:
        return StopError(phase, CANCELLED_TEXT, CANCELLED_RETRY_SECONDS)
    name = pb.ExecutionPhase.Name(phase)
    text = f"stigmer-server has ended this execution: its phase is {name} there"
    return StopError(pb.EXECUTION_FAILED, text, CANCELLED_RETRY_SECONDS)

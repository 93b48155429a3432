"""One execution, from what the server knows of it to its final status."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from typing import Final

from graphton.agent import Agent, LimitError, Limits
from graphton.chat import ModelError
from graphton.files import FilesError, Folder
from graphton.memory import Thread
from graphton.providers import connect
from graphton.threads import in_thread
from graphton.tools import SandboxTools
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs.skill_pb2 import Skill as SkillResource
from worker import sandbox, skills
from worker.backend import Backend, BackendError
from worker.progress import Progress, Reporter, json_size
from worker.prompt import system_prompt
from worker.redaction import Redactor
from worker.resolve import Resolved, ResolveError, artifact, resolve
from worker.settings import Settings

_log = logging.getLogger(__name__)

END_PATIENCE: Final = 60.0
"""Seconds that a server may be away at the end of an execution and still get its last status."""

CANCELLED_PATIENCE: Final = 5.0
STOPPED_PATIENCE: Final = 1.5
"""The same if it was cancelled, and if the worker is being stopped: an engine soon kills it."""


class StopError(Exception):
    """Why an execution that is cancelled ends.

    Attributes:
        phase: How it counts.
        patience: Seconds that the server may be away and still get the last status.
    """

    def __init__(self, phase: pb.ExecutionPhase, message: str, patience: float) -> None:
        super().__init__(message)
        self.phase = phase
        self.patience = patience


class Execution:
    """Runs an agent once.

    Args:
        settings: The worker's configuration.
        server: stigmer-server.
        execution: What is asked.
        thread_id: The conversation it belongs to.
    """

    def __init__(
        self, settings: Settings, server: Backend, execution: pb.AgentExecution, thread_id: str
    ) -> None:
        self._settings = settings
        self._server = server
        self._execution = execution
        self._id = execution.metadata.id
        # Nobody shares the thread of a caller that names none.
        self._thread_id = thread_id or f"execution-{self._id or uuid.uuid4().hex}"
        given = execution.spec.runtime_env.items()
        secrets = [(name, value.value) for name, value in given if value.is_secret]
        self._progress = Progress(
            execution.spec.message, Redactor([*secrets, *settings.secrets.items()])
        )

    async def run(
        self, seconds: float | None, why_cancelled: Callable[[], StopError]
    ) -> pb.AgentExecutionStatus:
        """Run it, tell the server how far it is, and how it ended.

        Args:
            seconds: How long the caller waits for it; None for as long as it takes.
            why_cancelled: Asked if this task is cancelled.

        Returns:
            The final status. Whatever goes wrong is in it.
        """
        begun = time.monotonic()
        margin = 0.0 if seconds is None else min(15.0, max(1.0, seconds * 0.1), seconds / 2)
        limit = asyncio.timeout(None if seconds is None else seconds - margin)
        reporter = Reporter(self._server, self._id, self._progress)
        patience = END_PATIENCE
        try:
            async with limit:
                await self._until_cancelled(reporter)
            self._progress.end(pb.EXECUTION_COMPLETED)
        except (BackendError, ModelError, LimitError, ResolveError, skills.SkillError) as error:
            self._progress.end(pb.EXECUTION_FAILED, str(error))
        except TimeoutError:
            if limit.expired():
                text = f"stopped after {time.monotonic() - begun:.0f} s: no more time was given"
            else:
                text = "an operation timed out"
            self._progress.end(pb.EXECUTION_FAILED, text)
        except (FilesError, OSError) as error:
            self._progress.end(pb.EXECUTION_FAILED, f"the sandbox cannot be used: {error}")
        except (StopError, asyncio.CancelledError) as error:
            why = error if isinstance(error, StopError) else why_cancelled()
            self._progress.end(why.phase, str(why))
            patience = why.patience
        except Exception as error:  # the caller gets a status, whatever it was
            _log.exception("execution %s: unforeseen", self._id)
            self._progress.end(
                pb.EXECUTION_FAILED, f"the agent-runner failed: {type(error).__name__}"
            )
        if seconds is not None:
            left = seconds - (time.monotonic() - begun)
            patience = max(0.5, min(patience, left - 0.5))
        try:
            await reporter.finish(patience)
        finally:
            reporter.abandon()
        status = self._progress.snapshot(json_size)
        _log.info(
            "execution %s ended: %s after %.1f s, %d tool calls%s",
            self._id or "without an id",
            pb.ExecutionPhase.Name(status.phase),
            time.monotonic() - begun,
            len(status.tool_calls),
            f": {status.error}" if status.error else "",
        )
        return status

    async def _until_cancelled(self, reporter: Reporter) -> None:
        """Work, unless the server says that it is cancelled."""
        work = asyncio.ensure_future(self._work())
        told = asyncio.ensure_future(reporter.cancelled.wait())
        try:
            await asyncio.wait({work, told}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise StopError(pb.EXECUTION_CANCELLED, "cancelled", CANCELLED_PATIENCE)
            work.result()
        finally:
            told.cancel()
            work.cancel()
            # Commands are ended and locks released before anybody is told that it is over.
            await asyncio.gather(work, told, return_exceptions=True)

    async def _work(self) -> None:
        resolved = await resolve(self._server, self._execution)
        redactor = Redactor([*resolved.secrets, *self._settings.secrets.items()])
        self._progress.learn(redactor)
        spec = resolved.execution.spec
        name = sandbox.sandbox_id(resolved.session.spec.sandbox_id, self._thread_id)
        model = self._settings.llm_for(spec.execution_config.model_name)
        _log.info(
            "execution %s: agent %s, thread %s, sandbox %s, model %s of %s",
            self._id or "without an id",
            resolved.agent.metadata.id or resolved.agent.metadata.name,
            self._thread_id,
            name,
            model.model,
            model.provider,
        )
        self._tell_what_is_not_done(resolved)
        root = self._settings.sandbox_root_dir
        async with sandbox.locked(root, name):
            with sandbox.open_sandbox(root, name) as folder:
                installed = [await self._install(folder, skill) for skill in resolved.skills]
                chat = connect(model)
                try:
                    thread = Thread(folder, self._thread_id)
                    agent = Agent(
                        chat,
                        system=redactor(
                            system_prompt(
                                resolved.agent.spec.instructions, installed, resolved.environment
                            )
                        ),
                        tools=SandboxTools(folder, resolved.environment, redactor).all,
                        limits=Limits(
                            rounds=self._settings.agent_max_rounds,
                            tokens=self._settings.agent_max_tokens,
                        ),
                        redact=redactor,
                    )
                    history = await in_thread(thread.load)
                    outcome = await agent.run(
                        history, redactor(spec.message), self._progress, thread.save
                    )
                finally:
                    await chat.close()
        _log.info(
            "execution %s: %d rounds, %d + %d tokens",
            self._id or "without an id",
            outcome.rounds,
            outcome.usage.input_tokens,
            outcome.usage.output_tokens,
        )

    async def _install(self, folder: Folder, skill: SkillResource) -> skills.Skill:
        name = skill.metadata.name or skill.metadata.slug
        page = skill.spec.skill_md
        try:
            content = page + skill.status.artifact_storage_key
            where = skills.place(skill.status.version_hash, content)
            there = await in_thread(folder.is_folder, where)
            archive = b"" if there else await artifact(self._server, skill)
            return await in_thread(skills.install, folder, name, where, page, archive)
        except (skills.SkillError, FilesError) as error:
            raise skills.SkillError(f"skill `{name}`: {error}") from None

    def _tell_what_is_not_done(self, resolved: Resolved) -> None:
        """Nobody should wonder why a tool is missing."""
        spec = resolved.agent.spec
        missing = {
            "MCP servers": [server.name or "one without a name" for server in spec.mcp_servers],
            "sub-agents": [agent.name or "one without a name" for agent in spec.sub_agents],
        }
        for what, names in missing.items():
            if names:
                listed = ", ".join(names)
                _log.warning("execution %s: %s are not started: %s", self._id, what, listed)
                self._progress.note(f"This agent-runner starts no {what}: left out: {listed}")

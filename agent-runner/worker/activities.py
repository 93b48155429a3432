"""The activities that stigmer's workflows call. Their names and arguments are the contract's."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

from temporalio import activity
from temporalio.exceptions import ApplicationError

from stigmer_stubs import temporal
from stigmer_stubs.agentexecution_pb2 import AgentExecution, AgentExecutionStatus
from worker.sandbox import remove_sandbox
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.backend import Backend
    from worker.execution import StopError

_log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 2.0
"""How often Temporal is told that an execution goes on; a cancellation comes back with it."""


class Activities:
    """The runner's activities.

    Args:
        settings: The worker's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: Backend | None = None

    @property
    def all(self) -> list[Callable[..., Any]]:
        """What a worker has to register."""
        return [self.ensure_thread, self.execute_graphton, self.cleanup_sandbox]

    def close(self) -> None:
        """End the connection to the server. Nothing may be running."""
        if self._server is not None:
            self._server.close()

    @activity.defn(name=temporal.ENSURE_THREAD)
    async def ensure_thread(self, session_id: str, agent_id: str) -> str:
        """The id under which a conversation is kept: the session's, or one for a single use."""
        if session_id:
            return f"thread-{session_id}"
        return f"ephemeral-{agent_id}-{uuid.uuid4().hex}"

    @activity.defn(name=temporal.EXECUTE_GRAPHTON)
    async def execute_graphton(
        self, execution: AgentExecution, thread_id: str
    ) -> AgentExecutionStatus:
        """Run an agent. What goes wrong is in the status, also a cancellation."""
        # Late: a worker that waits for work needs none of it.
        from worker.execution import Execution

        run = Execution(self._settings, self._backend(), execution, thread_id)
        async with _heartbeats():
            return await run.run(_seconds_given(), _why_cancelled)

    def _backend(self) -> "Backend":
        from worker.backend import Backend
        from worker.endpoint import Endpoint

        if self._server is None:
            key = self._settings.stigmer_api_key
            self._server = Backend(
                Endpoint.parse(self._settings.stigmer_backend_endpoint),
                # A local server takes any key, but may want one.
                key.get_secret_value() if key else "local",
            )
        return self._server

    @activity.defn(name=temporal.CLEANUP_SANDBOX)
    async def cleanup_sandbox(self, sandbox_id: str) -> None:
        """Remove a sandbox's folder. One that is not there is clean.

        Raises:
            ApplicationError: for an id that names no sandbox; not worth a retry.
            OSError: if the folder cannot be removed.
        """
        try:
            async with _heartbeats():
                removed = await remove_sandbox(self._settings.sandbox_root_dir, sandbox_id)
        except ValueError as error:
            raise ApplicationError(
                str(error), type="InvalidSandboxId", non_retryable=True
            ) from None
        _log.info("sandbox `%s` %s", sandbox_id, "removed" if removed else "was not there")


@contextlib.asynccontextmanager
async def _heartbeats() -> AsyncIterator[None]:
    """Tell Temporal, while the block runs, that it does."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()


def _seconds_given() -> float | None:
    """How long the caller waits for this attempt to end; None if it waits for ever."""
    info = activity.info()
    given = []
    if info.start_to_close_timeout:
        given.append(info.start_to_close_timeout.total_seconds())
    if info.schedule_to_close_timeout:
        waited = info.started_time - info.scheduled_time  # both are the server's
        given.append((info.schedule_to_close_timeout - waited).total_seconds())
    positive = [seconds for seconds in given if seconds > 0]
    return min(positive, default=None)


def _why_cancelled() -> "StopError":
    from stigmer_stubs import agentexecution_pb2 as pb
    from worker.execution import CANCELLED_PATIENCE, STOPPED_PATIENCE, StopError

    details = activity.cancellation_details()
    if details is None or details.worker_shutdown:
        text = "the agent-runner was stopped before the agent was done"
        return StopError(pb.EXECUTION_FAILED, text, STOPPED_PATIENCE)
    if details.timed_out:
        return StopError(pb.EXECUTION_FAILED, "Temporal's time for it is up", CANCELLED_PATIENCE)
    return StopError(pb.EXECUTION_CANCELLED, "cancelled", CANCELLED_PATIENCE)

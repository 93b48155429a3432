"""The activities that stigmer's workflows call. Their names and arguments must not change."""

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

ACTIVITY_HEARTBEAT_SECONDS: Final = 2.0
"""Seconds between two heartbeats to Temporal. A cancellation arrives with the reply to one."""


class Activities:
    """The runner's activities.

    Args:
        settings: The worker's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: Backend | None = None

    @property
    def all(self) -> list[Callable[..., Any]]:
        """The activities to register with a Temporal worker."""
        return [self.ensure_thread, self.execute_graphton, self.cleanup_sandbox]

    def close(self) -> None:
        """Close the connection to the server. No activity may be running."""
        if self._connection is not None:
            self._connection.close()

    @activity.defn(name=temporal.ENSURE_THREAD)
    async def ensure_thread(self, session_id: str, agent_id: str) -> str:
        """Return the id of the session's thread, or a new id if there is no session."""
        if session_id:
            return f"thread-{session_id}"
        return f"ephemeral-{agent_id}-{uuid.uuid4().hex}"

    @activity.defn(name=temporal.EXECUTE_GRAPHTON)
    async def execute_graphton(
        self, execution: AgentExecution, thread_id: str
    ) -> AgentExecutionStatus:
        """Run an agent. The status reports failures and cancellation too; this does not raise."""
        # Imported here because a worker that waits for work does not need it.
        from worker.execution import Execution

        run = Execution(self._settings, self._backend(), execution, thread_id)
        async with _heartbeats():
            return await run.run(_time_limit(), _cancellation_reason)

    def _backend(self) -> "Backend":
        from worker.backend import Backend
        from worker.endpoint import Endpoint

        if self._connection is None:
            key = self._settings.stigmer_api_key
            self._connection = Backend(
                Endpoint.parse(self._settings.stigmer_backend_endpoint),
                # A local server accepts any key, but may require one.
                key.get_secret_value() if key else "local",
            )
        return self._connection

    @activity.defn(name=temporal.CLEANUP_SANDBOX)
    async def cleanup_sandbox(self, sandbox_id: str) -> None:
        """Remove the folder of a sandbox. It need not exist.

        Raises:
            ApplicationError: if the id is not a valid sandbox id. Temporal does not retry it.
            OSError: if the folder cannot be removed.
        """
        try:
            async with _heartbeats():
                removed = await remove_sandbox(self._settings.sandbox_root_dir, sandbox_id)
        except ValueError as error:
            raise ApplicationError(
                str(error), type="InvalidSandboxId", non_retryable=True
            ) from None
        _log.info("sandbox `%s` %s", sandbox_id, "removed" if removed else "does not exist")


@contextlib.asynccontextmanager
async def _heartbeats() -> AsyncIterator[None]:
    """Send heartbeats to Temporal while the `with` block runs."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(ACTIVITY_HEARTBEAT_SECONDS)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()


def _time_limit() -> float | None:
    """Seconds until Temporal's timeouts end this attempt; None if there is no timeout."""
    info = activity.info()
    limits = []
    if info.start_to_close_timeout:
        limits.append(info.start_to_close_timeout.total_seconds())
    if info.schedule_to_close_timeout:
        waited = info.started_time - info.scheduled_time  # both times come from the server
        limits.append((info.schedule_to_close_timeout - waited).total_seconds())
    positive = [seconds for seconds in limits if seconds > 0]
    return min(positive, default=None)


def _cancellation_reason() -> "StopError":
    from stigmer_stubs import agentexecution_pb2 as pb
    from worker.execution import CANCELLED_RETRY_SECONDS, SHUTDOWN_RETRY_SECONDS, StopError

    details = activity.cancellation_details()
    if details is None or details.worker_shutdown:
        text = "the agent-runner was stopped before the agent had finished"
        return StopError(pb.EXECUTION_FAILED, text, SHUTDOWN_RETRY_SECONDS)
    if details.timed_out:
        return StopError(
            pb.EXECUTION_FAILED, "Temporal's timeout has passed", CANCELLED_RETRY_SECONDS
        )
    return StopError(pb.EXECUTION_CANCELLED, "cancelled", CANCELLED_RETRY_SECONDS)

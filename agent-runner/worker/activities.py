"""The activities that stigmer's workflows call. Their names and arguments must not change."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from temporalio import activity
from temporalio.exceptions import ApplicationError

from stigmer_stubs import temporal
from stigmer_stubs.agentexecution_pb2 import (
    EXECUTION_FAILED,
    AgentExecution,
    AgentExecutionStatus,
)
from worker.sandbox import remove_sandbox
from worker.settings import Settings

if TYPE_CHECKING:
    from temporalio.client import WorkflowExecutionDescription

    from worker.backend import Backend
    from worker.execution import Caller, StopError
    from worker.metrics import Metrics

_log = logging.getLogger(__name__)

ACTIVITY_HEARTBEAT_SECONDS: Final = 2.0
"""Seconds between two heartbeats to Temporal. A cancellation arrives with the reply to one."""

DESCRIBE_TIMEOUT_SECONDS: Final = 5.0
"""The time limit for asking Temporal about the workflow that called an activity."""


class Activities:
    """The runner's activities.

    Args:
        settings: The worker's configuration.
        metrics: The worker's counters.
        while_waiting: Makes a context that is open while an execution waits for its session.
        secrets: Pairs of a name and a value that must not be shown, besides those of the settings.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: "Metrics | None" = None,
        while_waiting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        secrets: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._settings = settings
        self._secrets = (*settings.secrets.items(), *secrets)
        self._metrics = metrics
        self._while_waiting = while_waiting
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

        run = Execution(
            self._settings,
            self._backend(),
            execution,
            thread_id,
            metrics=self._metrics,
            while_waiting=self._while_waiting,
            secrets=self._secrets,
        )
        async with _heartbeats():
            try:
                return await run.run(_find_caller, _cancellation_reason)
            except Exception as error:  # a bug; the workflow gets a status nevertheless
                _log.exception("execution %s: unexpected error at its end", execution.metadata.id)
                text = f"the agent-runner failed: {type(error).__name__}"
                return AgentExecutionStatus(phase=EXECUTION_FAILED, error=text)

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


async def _find_caller() -> "Caller":
    """Find out when Temporal's timeouts end this attempt, and when its workflow began."""
    from worker.execution import Caller

    info = activity.info()
    now, ends = info.started_time, []  # all times come from Temporal's clock
    if info.start_to_close_timeout:
        ends.append(now + info.start_to_close_timeout)
    if info.schedule_to_close_timeout:
        ends.append(info.scheduled_time + info.schedule_to_close_timeout)
    created = info.scheduled_time
    try:
        async with asyncio.timeout(DESCRIBE_TIMEOUT_SECONDS):
            workflow = await _describe_workflow(info)
    except Exception as error:  # an estimate is enough, if Temporal does not answer
        _log.debug("the workflow cannot be described: %s", error)
    else:
        created = workflow.start_time
        # The activity may have waited for a slot, and the workflow's time has passed meanwhile.
        times = workflow.raw_description.workflow_extended_info
        for time in (times.run_expiration_time, times.execution_expiration_time):
            if time.seconds > 0:
                ends.append(time.ToDatetime(UTC))
    seconds = [max(0.0, (end - now).total_seconds()) for end in ends]
    return Caller(min(seconds, default=None), int(created.timestamp() * 1_000_000))


async def _describe_workflow(info: activity.Info) -> "WorkflowExecutionDescription":
    if info.workflow_id is None:
        raise LookupError("no workflow called this activity")
    handle = activity.client().get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)
    return await handle.describe()


def _cancellation_reason() -> "StopError":
    """Why Temporal cancelled this activity. Only a request for it makes the phase CANCELLED."""
    from stigmer_stubs import agentexecution_pb2 as pb
    from worker.execution import CANCELLED_RETRY_SECONDS, SHUTDOWN_RETRY_SECONDS, StopError
    from worker.progress import CANCELLED_TEXT

    details = activity.cancellation_details()
    if details is None or details.worker_shutdown:
        text = "the agent-runner was stopped before the agent had finished"
        return StopError(pb.EXECUTION_FAILED, text, SHUTDOWN_RETRY_SECONDS)
    if details.cancel_requested:
        return StopError(pb.EXECUTION_CANCELLED, CANCELLED_TEXT, CANCELLED_RETRY_SECONDS)
    if details.timed_out:
        text = "no more time: one of Temporal's timeouts has passed"
    elif details.paused:
        text = "the activity was paused in Temporal; the agent-runner cannot continue it"
    elif details.reset:
        text = "the activity was reset in Temporal"
    else:
        text = (
            "Temporal does not wait for this execution any more: its workflow was terminated, or "
            "there is no more time"
        )
    return StopError(pb.EXECUTION_FAILED, text, CANCELLED_RETRY_SECONDS)

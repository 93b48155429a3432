"""The workflow of an execution, as in stigmer-server: EnsureThread, then ExecuteGraphton."""

from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from devserver.store import Store
    from stigmer_stubs import agentexecution_pb2 as pb
    from stigmer_stubs import temporal

FAIL_EXECUTION = "DevserverFailExecution"


@dataclass
class RunnerOptions:
    """The task queue and the timeouts of ExecuteGraphton. The defaults are those of the contract.

    Attributes:
        task_queue: The task queue that the runner polls.
        start_to_close: Temporal's start-to-close timeout in seconds.
        schedule_to_start: Temporal's schedule-to-start timeout in seconds.
        heartbeat: Temporal's heartbeat timeout in seconds.
        workflow_run: Temporal's timeout for the whole workflow in seconds.
    """

    task_queue: str = temporal.RUNNER_TASK_QUEUE
    start_to_close: float = 600
    schedule_to_start: float = 60
    heartbeat: float = 30
    workflow_run: float = 660


@workflow.defn(name="DevserverAgentExecution")
class AgentExecutionWorkflow:
    """One execution. Cancelling the workflow cancels the activity and waits for its end."""

    @workflow.run
    async def run(
        self, execution: pb.AgentExecution, runner: RunnerOptions
    ) -> pb.AgentExecutionStatus:
        """Run the activities, and return the final status.

        Raises:
            ActivityError: if an activity failed. The execution is then marked as failed.
        """
        once = RetryPolicy(maximum_attempts=1)
        try:
            thread_id = await workflow.execute_activity(
                temporal.ENSURE_THREAD,
                args=[execution.spec.session_id, execution.spec.agent_id],
                task_queue=runner.task_queue,
                result_type=str,
                start_to_close_timeout=timedelta(seconds=30),
                schedule_to_start_timeout=timedelta(seconds=runner.schedule_to_start),
                retry_policy=once,
            )
            status: pb.AgentExecutionStatus = await workflow.execute_activity(
                temporal.EXECUTE_GRAPHTON,
                args=[execution, thread_id],
                task_queue=runner.task_queue,
                result_type=pb.AgentExecutionStatus,
                start_to_close_timeout=timedelta(seconds=runner.start_to_close),
                schedule_to_start_timeout=timedelta(seconds=runner.schedule_to_start),
                heartbeat_timeout=timedelta(seconds=runner.heartbeat),
                retry_policy=once,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        except ActivityError as error:
            await workflow.execute_activity(
                FAIL_EXECUTION,
                args=[execution.metadata.id, str(error.cause or error)],
                start_to_close_timeout=timedelta(seconds=30),
            )
            raise
        return status


class ServerActivities:
    """The activities that the server itself performs for the workflow."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @activity.defn(name=FAIL_EXECUTION)
    async def fail(self, execution_id: str, reason: str) -> None:
        """Mark an execution as failed, because the runner did not report its end."""
        status = pb.AgentExecutionStatus()
        status.CopyFrom(self._store.executions[execution_id].status)
        status.phase, status.error = pb.EXECUTION_FAILED, reason
        await self._store.update(execution_id, status)

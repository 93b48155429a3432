"""Small workflows that call the runner's activities as stigmer-server's workflow does."""

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy


@workflow.defn
class Calls:
    @workflow.run
    async def run(self, queue: str, session: str) -> Any:
        async def call(name: str, *args: object) -> object:
            limit = timedelta(seconds=20)
            return await workflow.execute_activity(
                name,
                args=args,
                task_queue=queue,
                start_to_close_timeout=limit,
                retry_policy=RetryPolicy(maximum_attempts=1),
            )

        thread = await call("EnsureThread", session, "agent")
        if thread != f"thread-{session}":
            raise ValueError(thread)
        await call("CleanupSandbox", session)
        # As plain JSON, because not every caller's converter supports protobuf.
        return await call("ExecuteGraphton", {"spec": {"message": "m", "new": 1}}, thread)


@workflow.defn
class CallsOnce:
    @workflow.run
    async def run(self, queue: str) -> str:
        answer: str = await workflow.execute_activity(
            "EnsureThread",
            args=["session", "agent"],
            task_queue=queue,
            result_type=str,
            start_to_close_timeout=timedelta(seconds=20),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        return answer

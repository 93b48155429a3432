"""What stigmer-server's workflow does with the runner, in small."""

from datetime import timedelta

from temporalio import workflow


@workflow.defn
class Calls:
    @workflow.run
    async def run(self, queue: str, session: str) -> None:
        async def call(name: str, *args: object) -> object:
            limit = timedelta(seconds=20)
            return await workflow.execute_activity(
                name, args=args, task_queue=queue, start_to_close_timeout=limit
            )

        thread = await call("EnsureThread", session, "agent")
        if thread != f"thread-{session}":
            raise ValueError(thread)
        await call("CleanupSandbox", session)
        await call("ExecuteGraphton", {"spec": {"session_id": session}}, thread)

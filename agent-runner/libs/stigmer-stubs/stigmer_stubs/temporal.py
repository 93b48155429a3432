"""The task queues and activity names that the server's workflows use."""

from typing import Final

DEFAULT_ADDRESS: Final = "localhost:7233"
DEFAULT_NAMESPACE: Final = "default"

RUNNER_TASK_QUEUE: Final = "agent_execution_runner"
"""The task queue that the runner polls for activities. A deployment may use another name."""

WORKFLOW_TASK_QUEUE: Final = "agent_execution_stigmer"
"""The task queue that the server polls for workflows. The runner does not use it."""

ENSURE_THREAD: Final = "EnsureThread"
"""Arguments (session_id, agent_id), both str; returns the thread id, str."""

EXECUTE_GRAPHTON: Final = "ExecuteGraphton"
"""Arguments (AgentExecution, thread_id: str); returns AgentExecutionStatus."""

CLEANUP_SANDBOX: Final = "CleanupSandbox"
"""Argument (sandbox_id: str); returns nothing. No workflow calls it yet."""

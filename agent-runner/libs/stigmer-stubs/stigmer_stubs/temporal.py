"""Task queues and activity names, as the server's workflows use them."""

from typing import Final

DEFAULT_ADDRESS: Final = "localhost:7233"
DEFAULT_NAMESPACE: Final = "default"

RUNNER_TASK_QUEUE: Final = "agent_execution_runner"
"""Where the runner's activities are polled. A deployment may rename it."""

WORKFLOW_TASK_QUEUE: Final = "agent_execution_stigmer"
"""Where the server polls its own workflows. The runner never does."""

ENSURE_THREAD: Final = "EnsureThread"
"""Arguments (session_id, agent_id), both str; returns the thread id, str."""

EXECUTE_GRAPHTON: Final = "ExecuteGraphton"
"""Arguments (AgentExecution, thread_id: str); returns AgentExecutionStatus."""

CLEANUP_SANDBOX: Final = "CleanupSandbox"
"""Argument (sandbox_id: str); returns nothing. No workflow calls it today."""

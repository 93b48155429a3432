"""The contract's values are spelled out here a second time, on purpose.

A slip of the keyboard in the package is a runner that talks to nobody.
"""

import re

import pytest

from stigmer_stubs import backend, temporal
from stigmer_stubs.enums import ExecutionPhase, MessageType, ToolCallStatus


def test_temporal_names() -> None:
    assert temporal.RUNNER_TASK_QUEUE == "agent_execution_runner"
    assert temporal.WORKFLOW_TASK_QUEUE == "agent_execution_stigmer"
    assert (temporal.ENSURE_THREAD, temporal.EXECUTE_GRAPHTON, temporal.CLEANUP_SANDBOX) == (
        "EnsureThread",
        "ExecuteGraphton",
        "CleanupSandbox",
    )
    assert (temporal.DEFAULT_ADDRESS, temporal.DEFAULT_NAMESPACE) == ("localhost:7233", "default")
    assert backend.DEFAULT_ENDPOINT == "localhost:7234"


@pytest.mark.parametrize("method", backend.Method)
def test_methods_are_grpc_paths(method: backend.Method) -> None:
    assert re.fullmatch(r"/ai\.stigmer\.agentic(\.\w+)+\.v1\.\w+Controller/[a-z]\w+", method)


def test_a_method_in_full() -> None:
    assert backend.Method.UPDATE_EXECUTION_STATUS.value == (
        "/ai.stigmer.agentic.agentexecution.v1.AgentExecutionCommandController/updateStatus"
    )


def test_numbers() -> None:
    assert [phase.value for phase in ExecutionPhase] == [0, 1, 2, 3, 4, 5]
    assert ExecutionPhase.EXECUTION_FAILED.value == 4
    assert MessageType.MESSAGE_SYSTEM.value == 4
    assert ToolCallStatus.TOOL_CALL_FAILED.value == 4


def test_final_phases() -> None:
    assert [p.name for p in ExecutionPhase if p.is_final] == [
        "EXECUTION_COMPLETED",
        "EXECUTION_FAILED",
        "EXECUTION_CANCELLED",
    ]

"""Enums of the messages, with the numbers that go over the wire."""

from enum import IntEnum


class ExecutionPhase(IntEnum):
    """How far an execution is (`AgentExecutionStatus.phase`)."""

    EXECUTION_PHASE_UNSPECIFIED = 0
    EXECUTION_PENDING = 1
    EXECUTION_IN_PROGRESS = 2
    EXECUTION_COMPLETED = 3
    EXECUTION_FAILED = 4
    EXECUTION_CANCELLED = 5

    @property
    def is_final(self) -> bool:
        """Whether nothing comes after this phase."""
        return self >= ExecutionPhase.EXECUTION_COMPLETED


class MessageType(IntEnum):
    """Who speaks (`AgentMessage.type`)."""

    MESSAGE_TYPE_UNSPECIFIED = 0
    MESSAGE_HUMAN = 1
    MESSAGE_AI = 2
    MESSAGE_TOOL = 3
    MESSAGE_SYSTEM = 4


class ToolCallStatus(IntEnum):
    """How far a tool call is (`ToolCall.status`)."""

    TOOL_CALL_STATUS_UNSPECIFIED = 0
    TOOL_CALL_PENDING = 1
    TOOL_CALL_RUNNING = 2
    TOOL_CALL_COMPLETED = 3
    TOOL_CALL_FAILED = 4

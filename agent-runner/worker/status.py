"""The limits of a status, and how values and texts are made to fit them."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

from google.protobuf.json_format import MessageToJson

from graphton.text import compact_json, truncate_middle
from stigmer_stubs import agentexecution_pb2 as pb

MAX_STATUS_RESULT_CHARACTERS: Final = 10_000
"""The maximum length of a tool's result in a status.

The model gets more of it: see `graphton.tools.MAX_TOOL_RESULT_CHARACTERS`."""

MAX_STATUS_BYTES: Final = 1_500_000
"""The maximum size of a status. Temporal refuses results of more than 2 MB, and the activity would
fail. gRPC servers usually refuse messages of more than 4 MB."""

_MAX_EXACT_INTEGER: Final = 2**53
"""The largest number up to which a Struct, whose numbers are floating point, holds all integers."""

_MAX_ARGUMENT_DEPTH: Final = 12
"""How deeply arguments may be nested. Protobuf's readers refuse more than 100 nested messages."""


def all_tool_calls(status: pb.AgentExecutionStatus) -> Iterator[pb.ToolCall]:
    """The tool calls of a status, the top-level ones and those in messages."""
    yield from status.tool_calls
    for message in status.messages:
        yield from message.tool_calls


def struct_value(value: Any, depth: int = 0) -> Any:
    """Convert a JSON value to one that a protobuf Struct can hold and every reader accepts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > _MAX_EXACT_INTEGER:
        return str(value)
    if isinstance(value, (dict, list)) and depth >= _MAX_ARGUMENT_DEPTH:
        return compact_json(value)
    if isinstance(value, dict):
        return {str(key): struct_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [struct_value(item, depth + 1) for item in value]
    return value


def json_size(status: pb.AgentExecutionStatus) -> int:
    """The size in bytes of a status as JSON, the form in which Temporal gets it.

    If an upper bound is below MAX_STATUS_BYTES, returns that instead, which is much faster.
    """
    upper_bound = status.ByteSize() * 6  # JSON writes a byte with at most six
    if upper_bound <= MAX_STATUS_BYTES:
        return upper_bound
    return len(MessageToJson(status, indent=None))


def wire_size(status: pb.AgentExecutionStatus) -> int:
    """The size in bytes of a status in protobuf's binary form, in which the server gets it."""
    return status.ByteSize()


def shrink_to_fit(
    status: pb.AgentExecutionStatus, size: Callable[[pb.AgentExecutionStatus], int]
) -> pb.AgentExecutionStatus:
    """Shorten the longest texts of a status until `size` returns at most MAX_STATUS_BYTES."""
    if size(status) <= MAX_STATUS_BYTES:
        return status
    small = pb.AgentExecutionStatus()
    small.CopyFrom(status)
    for longest in (MAX_STATUS_RESULT_CHARACTERS, 2000, 400, 80):
        _truncate_texts(small, longest)
        if size(small) <= MAX_STATUS_BYTES:
            return small
    if small.messages:
        # In JSON a character can take six bytes. This leaves half of the size for the rest.
        last = small.messages[-1]
        last.content = truncate_middle(last.content, MAX_STATUS_BYTES // 12)
    while size(small) > MAX_STATUS_BYTES and len(small.messages) > 1:
        # There are thousands of messages. Keep the first one, which is the user's request.
        half = max(1, len(small.messages) // 2)
        del small.messages[1 : 1 + half]
        del small.tool_calls[: len(small.tool_calls) // 2]
        del small.sub_agent_executions[: len(small.sub_agent_executions) // 2]
    return small


def _truncate_texts(status: pb.AgentExecutionStatus, longest: int) -> None:
    last = len(status.messages) - 1
    for number, message in enumerate(status.messages):
        if number != last:  # the last one is the agent's answer
            message.content = truncate_middle(message.content, longest)
    for key in status.todos:
        status.todos[key].content = truncate_middle(status.todos[key].content, longest)
    for run in status.sub_agent_executions:
        run.input = truncate_middle(run.input, longest)
        run.output = truncate_middle(run.output, longest)
        run.error = truncate_middle(run.error, longest)
    for call in all_tool_calls(status):
        call.result = truncate_middle(call.result, longest)
        call.error = truncate_middle(call.error, longest)
        for key in call.args:
            value = call.args.fields[key]
            if value.WhichOneof("kind") == "string_value":
                value.string_value = truncate_middle(value.string_value, longest)
            elif value.ByteSize() > longest:
                value.string_value = "…"

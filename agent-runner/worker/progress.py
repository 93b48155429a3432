"""The status of an execution while the agent works."""

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from graphton.agent import Observer
from graphton.chat import ModelError, Reply, ToolUse
from graphton.subagents import SubAgentObserver
from graphton.text import truncate_middle
from graphton.todos import Todo, TodoStatus
from stigmer_stubs import agentexecution_pb2 as pb
from worker.redaction import Redactor
from worker.status import (
    MAX_STATUS_RESULT_CHARACTERS,
    all_tool_calls,
    shrink_to_fit,
    struct_value,
)

CANCELLED_TEXT: Final = "cancelled"
"""The error of an execution that somebody cancelled."""

_TODO_STATUS: Final[dict[TodoStatus, pb.TodoStatus]] = {
    "pending": pb.TODO_PENDING,
    "in_progress": pb.TODO_IN_PROGRESS,
    "completed": pb.TODO_COMPLETED,
    "cancelled": pb.TODO_CANCELLED,
}


def now() -> str:
    """The current time in the contract's format: RFC 3339, UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Progress(Observer):
    """The status of an execution while the agent works.

    The user's request is added only by `set_redactor`, when all secrets are known, because the
    request may contain secrets too.

    Args:
        request: The user's request.
        redactor: Removes the secrets that are known at the start.

    Attributes:
        redactor: Removes secrets from everything that is added.
        status: The status for the server. It contains no secrets.
        changed: Set whenever the status changes.
    """

    def __init__(self, request: str, redactor: Redactor) -> None:
        self.redactor = redactor
        self.changed = asyncio.Event()
        self.status = pb.AgentExecutionStatus(phase=pb.EXECUTION_IN_PROGRESS, started_at=now())
        self._partial_text = ""
        self._request: str | None = request
        self._running = ""
        self.changed.set()

    def _add_message(self, kind: pb.MessageType, content: str) -> pb.AgentMessage:
        message = self.status.messages.add(type=kind, content=content, timestamp=now())
        self.changed.set()
        return message

    def set_redactor(self, redactor: Redactor, request: str | None = None) -> None:
        """Use a redactor that knows all secrets, and add the request to the status.

        Args:
            redactor: The new redactor.
            request: The request, if only the server knew it.
        """
        self.redactor = redactor
        if request is not None and self._request is not None:
            self._request = request
        self._show_request()

    def _show_request(self) -> None:
        if self._request is not None:
            self._add_message(pb.MESSAGE_HUMAN, self.redactor(self._request))
            self._request = None

    def text_received(self, text: str) -> None:
        """See Observer.

        The status gets the text only when it is complete: clients such as `stigmer run` print each
        message once, as they first see it, and would show half a sentence.
        """
        self._partial_text = text

    def snapshot(self, size: Callable[[pb.AgentExecutionStatus], int]) -> pb.AgentExecutionStatus:
        """Return the current status, shortened until `size` returns at most MAX_STATUS_BYTES."""
        return shrink_to_fit(self.status, size)

    def retrying(self, error: ModelError, pause: float) -> None:
        """See Observer. The incomplete reply is dropped."""
        self._partial_text = ""

    def reply_received(self, reply: Reply) -> None:
        """See Observer."""
        message = self._add_message(pb.MESSAGE_AI, self.redactor(reply.text))
        self._partial_text = ""
        for use in reply.tool_uses:
            call = pb.ToolCall(id=use.id, name=use.name, status=pb.TOOL_CALL_PENDING)
            arguments = self.redactor.redact_json(use.arguments)
            call.args.update({str(k): struct_value(v) for k, v in arguments.items()})
            message.tool_calls.append(call)
            self.status.tool_calls.append(call)
        self.changed.set()

    def tool_started(self, use: ToolUse) -> None:
        """See Observer."""
        self._running = use.id
        for call in self._find_calls(use):
            call.status = pb.TOOL_CALL_RUNNING
            call.started_at = now()
        self.changed.set()

    def tool_finished(self, use: ToolUse, result: str, failed: bool) -> None:
        """See Observer."""
        shown = self._shortened(result)
        for call in self._find_calls(use):
            call.completed_at = now()
            call.status = pb.TOOL_CALL_FAILED if failed else pb.TOOL_CALL_COMPLETED
        if failed:
            self._top_level_call(use).error = shown
        else:
            self._top_level_call(use).result = shown
        message = self._add_message(pb.MESSAGE_TOOL, shown)
        message.metadata.update({"tool_call_id": use.id, "tool_name": use.name})

    def todos_changed(self, todos: Sequence[Todo]) -> None:
        """Show the list of what the model has to do. Items are never removed from a status."""
        for todo in todos:
            key = self.redactor(todo.id)
            content, status = self.redactor(todo.content), _TODO_STATUS[todo.status]
            item = self.status.todos[key]
            if (item.content, item.status) != (content, status):
                item.id, item.content, item.status = key, content, status
                item.updated_at = now()
                item.created_at = item.created_at or item.updated_at
        self.changed.set()

    def sub_agent_started(self, name: str, task: str) -> "SubAgentProgress":
        """Add the run of a sub-agent, which the tool call that is running has asked for."""
        run = self.status.sub_agent_executions.add(
            id=f"sub-agent-{uuid.uuid4().hex}",
            name=name,
            input=self._shortened(task),
            status=pb.SUB_AGENT_IN_PROGRESS,
            started_at=now(),
        )
        run.metadata.update({"tool_call_id": self._running})
        self.changed.set()
        return SubAgentProgress(run, self._shortened, self.changed)

    def _shortened(self, text: str) -> str:
        return truncate_middle(self.redactor(text), MAX_STATUS_RESULT_CHARACTERS)

    def _find_calls(self, use: ToolUse) -> Iterator[pb.ToolCall]:
        """Yield both copies of a tool call: the one in the message, and the top-level one."""
        for message in reversed(self.status.messages):
            found = [call for call in message.tool_calls if call.id == use.id]
            if found:
                yield found[0]
                break
        yield self._top_level_call(use)

    def _top_level_call(self, use: ToolUse) -> pb.ToolCall:
        return next(call for call in reversed(self.status.tool_calls) if call.id == use.id)

    def end(self, phase: pb.ExecutionPhase, error: str = "") -> None:
        """Set the final phase. Tool calls and sub-agents that have not finished become failed.

        A reply that is not complete is added as far as it has arrived.
        """
        self._show_request()
        if self._partial_text:
            self._add_message(pb.MESSAGE_AI, self.redactor.redact_partial(self._partial_text))
            self._partial_text = ""
        for call in all_tool_calls(self.status):
            if call.status in (pb.TOOL_CALL_PENDING, pb.TOOL_CALL_RUNNING):
                call.status = pb.TOOL_CALL_FAILED
                call.error = call.error or "the execution ended before this tool finished"
                call.completed_at = now()
        for run in self.status.sub_agent_executions:
            if run.status == pb.SUB_AGENT_IN_PROGRESS:
                run.status = pb.SUB_AGENT_FAILED
                run.error = "the execution ended before this sub-agent finished"
                run.completed_at = now()
        self.status.phase = phase
        self.status.error = self.redactor(error)
        self.status.completed_at = now()
        self.changed.set()


class SubAgentProgress(SubAgentObserver):
    """The run of a sub-agent in a status.

    Args:
        run: The part of the status. Its `metadata` counts replies, tool calls and tokens.
        shortened: Removes secrets from a text, and shortens it.
        changed: Set whenever the status changes.
    """

    def __init__(
        self, run: pb.SubAgentExecution, shortened: Callable[[str], str], changed: asyncio.Event
    ) -> None:
        self._run = run
        self._shortened = shortened
        self._changed = changed

    def _count(self, name: str, number: int) -> None:
        fields = self._run.metadata.fields
        before = fields[name].number_value if name in fields else 0
        self._run.metadata.update({name: before + number})
        self._changed.set()

    def text_received(self, text: str) -> None:
        """See Observer."""

    def retrying(self, error: ModelError, pause: float) -> None:
        """See Observer."""

    def reply_received(self, reply: Reply) -> None:
        """See Observer."""
        self._count("rounds", 1)
        self._count("tokens", reply.usage.total)

    def tool_started(self, use: ToolUse) -> None:
        """See Observer."""

    def tool_finished(self, use: ToolUse, result: str, failed: bool) -> None:
        """See Observer."""
        self._count("tool_calls", 1)

    def ended(self, output: str, error: str) -> None:
        """See SubAgentObserver."""
        self._run.status = pb.SUB_AGENT_FAILED if error else pb.SUB_AGENT_COMPLETED
        self._run.output = self._shortened(output)
        self._run.error = self._shortened(error)
        self._run.completed_at = now()
        self._changed.set()

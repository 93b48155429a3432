"""The status of an execution, and sending it to the server."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.json_format import MessageToJson

from graphton.agent import Observer
from graphton.chat import ModelError, Reply, ToolUse
from graphton.text import compact_json, truncate_middle
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs import backend as contract
from worker.backend import Backend, BackendError
from worker.redaction import Redactor

_log = logging.getLogger(__name__)

UPDATE_SECONDS: Final = 0.5
"""The shortest time between two updates. The next update contains all changes in between."""

FAILED_UPDATE_SECONDS: Final = 3.0
"""The same after an update that failed."""

CANCELLED_TEXT: Final = "cancelled"
"""The error of an execution that somebody cancelled."""

SILENT_SECONDS: Final = 2.0
"""After this time without a change, the server is asked whether the execution was cancelled."""

UPDATE_RETRY_SECONDS: Final = 5.0
"""How long an update is retried. Longer is not useful: the next one contains it."""

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

    def add_note(self, text: str) -> None:
        """Add a message that comes from the runner itself."""
        self._add_message(pb.MESSAGE_SYSTEM, self.redactor(text))

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
            call.args.update({str(k): _struct_value(v) for k, v in arguments.items()})
            message.tool_calls.append(call)
            self.status.tool_calls.append(call)
        self.changed.set()

    def tool_started(self, use: ToolUse) -> None:
        """See Observer."""
        for call in self._find_calls(use):
            call.status = pb.TOOL_CALL_RUNNING
            call.started_at = now()
        self.changed.set()

    def tool_finished(self, use: ToolUse, result: str, failed: bool) -> None:
        """See Observer."""
        shown = truncate_middle(self.redactor(result), MAX_STATUS_RESULT_CHARACTERS)
        for call in self._find_calls(use):
            call.completed_at = now()
            call.status = pb.TOOL_CALL_FAILED if failed else pb.TOOL_CALL_COMPLETED
        if failed:
            self._top_level_call(use).error = shown
        else:
            self._top_level_call(use).result = shown
        message = self._add_message(pb.MESSAGE_TOOL, shown)
        message.metadata.update({"tool_call_id": use.id, "tool_name": use.name})

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
        """Set the final phase. Tool calls that have not finished become failed.

        A reply that is not complete is added as far as it has arrived.
        """
        self._show_request()
        if self._partial_text:
            self._add_message(pb.MESSAGE_AI, self.redactor.redact_partial(self._partial_text))
            self._partial_text = ""
        for call in _all_tool_calls(self.status):
            if call.status in (pb.TOOL_CALL_PENDING, pb.TOOL_CALL_RUNNING):
                call.status = pb.TOOL_CALL_FAILED
                call.error = call.error or "the execution ended before this tool finished"
                call.completed_at = now()
        self.status.phase = phase
        self.status.error = self.redactor(error)
        self.status.completed_at = now()
        self.changed.set()


def _all_tool_calls(status: pb.AgentExecutionStatus) -> Iterator[pb.ToolCall]:
    """The tool calls of a status, the top-level ones and those in messages."""
    yield from status.tool_calls
    for message in status.messages:
        yield from message.tool_calls


def _struct_value(value: Any, depth: int = 0) -> Any:
    """Convert a JSON value to one that a protobuf Struct can hold and every reader accepts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > _MAX_EXACT_INTEGER:
        return str(value)
    if isinstance(value, (dict, list)) and depth >= _MAX_ARGUMENT_DEPTH:
        return compact_json(value)
    if isinstance(value, dict):
        return {str(key): _struct_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_struct_value(item, depth + 1) for item in value]
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
    return small


def _truncate_texts(status: pb.AgentExecutionStatus, longest: int) -> None:
    last = len(status.messages) - 1
    for number, message in enumerate(status.messages):
        if number != last:  # the last one is the agent's answer
            message.content = truncate_middle(message.content, longest)
    for call in _all_tool_calls(status):
        call.result = truncate_middle(call.result, longest)
        call.error = truncate_middle(call.error, longest)
        for key in call.args:
            value = call.args.fields[key]
            if value.WhichOneof("kind") == "string_value":
                value.string_value = truncate_middle(value.string_value, longest)
            elif value.ByteSize() > longest:
                value.string_value = "…"


class Reporter:
    """Sends the status of an execution to the server, while it runs and at its end.

    The server merges what it is sent: a phase replaces the phase that it has. So a phase is sent
    only if the server has another one, and never if the server's phase is final. Otherwise an
    update would undo a cancellation.

    Args:
        server: The client for stigmer-server.
        execution_id: The id of the execution. If it is empty, nothing is sent.
        progress: The status.

    Attributes:
        ended: Set when the server has a final phase that does not come from here, such as
            EXECUTION_CANCELLED.
        phase: The phase that the server has, as far as it is known.
    """

    def __init__(self, server: Backend, execution_id: str, progress: Progress) -> None:
        self._server = server
        self._id = execution_id
        self._progress = progress
        self._stopping = asyncio.Event()
        self._failing = False
        self.ended = asyncio.Event()
        self.phase: pb.ExecutionPhase = pb.EXECUTION_PHASE_UNSPECIFIED
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self._look()  # the execution may have been cancelled before it began
        while not self._stopping.is_set():
            await _wait_for_any(
                self._progress.changed.wait(), self._stopping.wait(), asyncio.sleep(SILENT_SECONDS)
            )
            if self._stopping.is_set():
                return
            if self._progress.changed.is_set():
                self._progress.changed.clear()
                succeeded = await self._report()
                if not succeeded:
                    self._progress.changed.set()
            else:
                succeeded = await self._look()
            pause = UPDATE_SECONDS if succeeded else FAILED_UPDATE_SECONDS
            await _wait_for_any(self._stopping.wait(), asyncio.sleep(pause))

    async def _report(self) -> bool:
        """Send the status. A failure is logged, but only the first of several in a row."""
        try:
            await self._send(UPDATE_RETRY_SECONDS)
        except Exception as error:  # the execution goes on, whatever is wrong with the server
            if not self._failing:
                self._failing = True
                self._log_failure("updates", error)
            return False
        self._failing = False
        return True

    def _log_failure(self, what: str, error: Exception) -> None:
        _log.warning(
            "execution %s: the server gets no %s: %s",
            self._id,
            what,
            error,
            exc_info=not isinstance(error, BackendError),
        )

    async def _look(self) -> bool:
        """Ask for the phase that the server has. Returns whether it answered."""
        if not self._id:
            return True
        request = pb.AgentExecutionId(value=self._id)
        try:
            found = await self._server.call(contract.GET_EXECUTION, request, retry_for=0)
            self._note(found.status.phase or self.phase)
        except Exception as error:  # the next update reports a failure
            _log.debug("execution %s: the server does not tell its phase: %s", self._id, error)
            return False
        return True

    async def _send(self, retry_for: float) -> None:
        if not self._id:
            return
        update = pb.AgentExecutionUpdateStatusInput(execution_id=self._id)
        update.status.CopyFrom(self._progress.snapshot(wire_size))
        if self.ended.is_set() and self.phase != pb.EXECUTION_CANCELLED:
            update.status.ClearField("error")  # the server has a better one
        if self.phase in {update.status.phase, *contract.FINAL_PHASES}:
            update.status.ClearField("phase")
        reply = await self._server.call(
            contract.UPDATE_EXECUTION_STATUS, update, retry_for=retry_for
        )
        # Without a phase in the reply, the server has the one that it was sent last.
        self._note(reply.status.phase or update.status.phase or self.phase)

    def _note(self, phase: pb.ExecutionPhase) -> None:
        self.phase = phase
        if self.phase in contract.FINAL_PHASES and self.phase != self._progress.status.phase:
            self.ended.set()

    async def stop(self, seconds: float) -> None:
        """Stop sending updates, and wait until the update that is being sent has ended.

        Otherwise that update could arrive after the final status and replace it.

        Args:
            seconds: How long to wait before the update is given up.
        """
        self._stopping.set()
        await asyncio.wait({self._task}, timeout=seconds)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def finish(self, retry_for: float) -> None:
        """Send the final status. If the execution was cancelled meanwhile, it stays cancelled.

        Args:
            retry_for: How long this is retried if the server is unavailable, in seconds.
        """
        until = time.monotonic() + retry_for
        await self.stop(retry_for / 2)
        with contextlib.suppress(TimeoutError):  # the rest of the time is for sending
            async with asyncio.timeout((until - time.monotonic()) / 2):
                await self._look()
        cancelled = pb.EXECUTION_CANCELLED
        if self.phase == cancelled and self._progress.status.phase != cancelled:
            self._progress.end(pb.EXECUTION_CANCELLED, CANCELLED_TEXT)
        try:
            await self._send(max(0.0, until - time.monotonic()))
        except Exception as error:  # Temporal gets the status nevertheless
            self._log_failure("final status", error)


async def _wait_for_any(*awaitables: Awaitable[Any]) -> None:
    """Wait until one of the awaitables is done, and cancel the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

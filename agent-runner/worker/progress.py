"""How far an execution is, as the server gets to know it."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.json_format import MessageToJson

from graphton.agent import Observer
from graphton.chat import ModelError, Reply, ToolUse
from graphton.tools import as_json, shortened
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs import backend as contract
from worker.backend import Backend, BackendError
from worker.redaction import Redactor

_log = logging.getLogger(__name__)

UPDATE_SECONDS: Final = 0.5
"""The shortest time between two updates: what happens meanwhile goes in the next."""

FAILED_UPDATE_SECONDS: Final = 3.0
"""The same after an update that the server did not take."""

UPDATE_PATIENCE: Final = 5.0
"""Seconds that an update on the way may be waited for. The next one says all it says, and more."""

RESULT_CHARACTERS: Final = 10_000
"""The longest result of a tool in a status. The model got more of it."""

STATUS_BYTES: Final = 1_500_000
"""The largest status. Temporal refuses more than 2 MB, and the activity would fail; a gRPC server
usually refuses more than 4 MB."""

_DEPTH: Final = 12
"""How deep arguments may be nested in a status; protobuf's readers stop at 100 messages."""


def now() -> str:
    """The time, as the contract's strings have it: RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Progress(Observer):
    """The status of an execution, which grows while the agent works.

    What is asked stands in it once all secrets are known: people write them into requests too.

    Attributes:
        status: What the server is to know. No secret is in it.
        changed: Set whenever it has changed.
    """

    def __init__(self, request: str, redactor: Redactor) -> None:
        self.redactor = redactor
        self.changed = asyncio.Event()
        self.status = pb.AgentExecutionStatus(phase=pb.EXECUTION_IN_PROGRESS, started_at=now())
        self._speaking: pb.AgentMessage | None = None
        self._said = ""
        self._request: str | None = request
        self.changed.set()

    def _say(self, kind: pb.MessageType, content: str) -> pb.AgentMessage:
        message = self.status.messages.add(type=kind, content=content, timestamp=now())
        self.changed.set()
        return message

    def learn(self, redactor: Redactor) -> None:
        """Know all secrets from now on, and show what is asked."""
        self.redactor = redactor
        self._show_request()

    def _show_request(self) -> None:
        if self._request is not None:
            self._say(pb.MESSAGE_HUMAN, self.redactor(self._request))
            self._request = None

    def note(self, text: str) -> None:
        """Say something that is neither the user's nor the agent's."""
        self._say(pb.MESSAGE_SYSTEM, self.redactor(text))

    def text(self, text: str) -> None:
        """See Observer."""
        if self._speaking is None:
            self._speaking = self._say(pb.MESSAGE_AI, "")
        self._said = text
        self.changed.set()

    def snapshot(self, size: Callable[[pb.AgentExecutionStatus], int]) -> pb.AgentExecutionStatus:
        """The status as it is now, small enough, as `size` measures it."""
        if self._speaking is not None:  # only now: there is a new word every few milliseconds
            self._speaking.content = self.redactor.begun(self._said)
        return bounded(self.status, size)

    def retrying(self, error: ModelError, pause: float) -> None:
        """See Observer. What was said before is void."""
        if self._speaking is not None:
            del self.status.messages[-1]
            self._speaking = None
            self.changed.set()

    def replied(self, reply: Reply) -> None:
        """See Observer."""
        message = self._speaking or self._say(pb.MESSAGE_AI, "")
        self._speaking = None
        message.content = self.redactor(reply.text)
        for use in reply.tool_uses:
            call = pb.ToolCall(id=use.id, name=use.name, status=pb.TOOL_CALL_PENDING)
            arguments = self.redactor.within(use.arguments)
            call.args.update({str(k): _plain(v) for k, v in arguments.items()})
            message.tool_calls.append(call)
            self.status.tool_calls.append(call)
        self.changed.set()

    def tool_began(self, use: ToolUse) -> None:
        """See Observer."""
        for call in self._calls(use):
            call.status = pb.TOOL_CALL_RUNNING
            call.started_at = now()
        self.changed.set()

    def tool_ended(self, use: ToolUse, result: str, failed: bool) -> None:
        """See Observer."""
        shown = shortened(self.redactor(result), RESULT_CHARACTERS)
        for call in self._calls(use):
            call.completed_at = now()
            call.status = pb.TOOL_CALL_FAILED if failed else pb.TOOL_CALL_COMPLETED
        if failed:
            self._top_level(use).error = shown
        else:
            self._top_level(use).result = shown
        message = self._say(pb.MESSAGE_TOOL, shown)
        message.metadata.update({"tool_call_id": use.id, "tool_name": use.name})

    def _calls(self, use: ToolUse) -> Iterator[pb.ToolCall]:
        """A tool call stands in the status twice: in the message that asked, and by itself."""
        for message in reversed(self.status.messages):
            found = [call for call in message.tool_calls if call.id == use.id]
            if found:
                yield found[0]
                break
        yield self._top_level(use)

    def _top_level(self, use: ToolUse) -> pb.ToolCall:
        return next(call for call in reversed(self.status.tool_calls) if call.id == use.id)

    def end(self, phase: pb.ExecutionPhase, error: str = "") -> None:
        """Nothing comes after this. What was begun counts as failed."""
        self._show_request()
        for calls in (self.status.tool_calls, *(m.tool_calls for m in self.status.messages)):
            for call in calls:
                if call.status in (pb.TOOL_CALL_PENDING, pb.TOOL_CALL_RUNNING):
                    call.status = pb.TOOL_CALL_FAILED
                    call.error = call.error or "the execution ended before"
                    call.completed_at = now()
        if self._speaking is not None:
            self._speaking.content = self.redactor.begun(self._said)
            self._speaking = None
        self.status.phase = phase
        self.status.error = self.redactor(error)
        self.status.completed_at = now()
        self.changed.set()


def _plain(value: Any, depth: int = 0) -> Any:
    """A JSON value that a Struct can hold and every reader can read."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dict, list)) and depth >= _DEPTH:
        return as_json(value)
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    return value


def json_size(status: pb.AgentExecutionStatus) -> int:
    """How many bytes a status has as JSON, as Temporal gets it; or more, if it is small anyway."""
    most = status.ByteSize() * 6  # what JSON can make of a byte
    return most if most <= STATUS_BYTES else len(MessageToJson(status, indent=None))


def wire_size(status: pb.AgentExecutionStatus) -> int:
    """How many bytes a status has as the server gets it. Found out much faster than `json_size`."""
    return status.ByteSize()


def bounded(
    status: pb.AgentExecutionStatus, size: Callable[[pb.AgentExecutionStatus], int]
) -> pb.AgentExecutionStatus:
    """The status, with its longest texts shortened until it is small enough."""
    if size(status) <= STATUS_BYTES:
        return status
    small = pb.AgentExecutionStatus()
    small.CopyFrom(status)
    for longest in (RESULT_CHARACTERS, 2000, 400, 80):
        _shorten(small, longest)
        if size(small) <= STATUS_BYTES:
            return small
    if small.messages:
        # Six bytes a character, in JSON, at worst: then half of it is left for the rest.
        last = small.messages[-1]
        last.content = shortened(last.content, STATUS_BYTES // 12)
    while size(small) > STATUS_BYTES and len(small.messages) > 1:
        # Thousands of them, then. The first is what was asked.
        half = max(1, len(small.messages) // 2)
        del small.messages[1 : 1 + half]
        del small.tool_calls[: len(small.tool_calls) // 2]
    return small


def _shorten(status: pb.AgentExecutionStatus, longest: int) -> None:
    last = len(status.messages) - 1
    for number, message in enumerate(status.messages):
        if number != last:  # it is what was asked for
            message.content = shortened(message.content, longest)
    for calls in (status.tool_calls, *(m.tool_calls for m in status.messages)):
        for call in calls:
            call.result = shortened(call.result, longest)
            call.error = shortened(call.error, longest)
            for key in call.args:
                value = call.args.fields[key]
                if value.WhichOneof("kind") == "string_value":
                    value.string_value = shortened(value.string_value, longest)
                elif value.ByteSize() > longest:
                    value.string_value = "…"


class Reporter:
    """Tells the server how far an execution is: now and then, and at the end.

    Args:
        server: stigmer-server.
        execution_id: Which execution; without an id nothing is told.
        progress: How far it is.
    """

    def __init__(self, server: Backend, execution_id: str, progress: Progress) -> None:
        self._server = server
        self._id = execution_id
        self._progress = progress
        self._stopping = asyncio.Event()
        self._failing = False
        self.cancelled = asyncio.Event()
        """Set when the server says that the execution is cancelled."""
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._stopping.is_set():
            await _first(self._progress.changed.wait(), self._stopping.wait())
            if self._stopping.is_set():
                return
            self._progress.changed.clear()
            pause = UPDATE_SECONDS
            try:
                known = await self._send(UPDATE_PATIENCE)
                self._failing = False
                if known.status.phase == pb.EXECUTION_CANCELLED:
                    self.cancelled.set()
            except BackendError as error:
                self._progress.changed.set()
                pause = FAILED_UPDATE_SECONDS
                if not self._failing:
                    self._failing = True
                    _log.warning("execution %s: the server gets no updates: %s", self._id, error)
            await _first(self._stopping.wait(), asyncio.sleep(pause))

    async def _send(self, patience: float) -> pb.AgentExecution:
        if not self._id:
            return pb.AgentExecution()
        update = pb.AgentExecutionUpdateStatusInput(execution_id=self._id)
        update.status.CopyFrom(self._progress.snapshot(wire_size))
        return await self._server.call(contract.UPDATE_EXECUTION_STATUS, update, patience=patience)

    async def finish(self, patience: float) -> None:
        """Send the last status, after whatever is on the way: else it could come before that.

        Args:
            patience: Seconds to wait for a server that is away.
        """
        self._stopping.set()
        until = time.monotonic() + patience
        done, _ = await asyncio.wait({self._task}, timeout=patience / 2)
        if not done:
            self._task.cancel()
        try:
            await self._send(max(0.0, until - time.monotonic()))
        except BackendError as error:
            _log.warning("execution %s: the server did not get the end: %s", self._id, error)

    def abandon(self) -> None:
        """Send nothing more."""
        self._task.cancel()


async def _first(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

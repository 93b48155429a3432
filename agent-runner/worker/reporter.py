"""Sends the status of an execution to the server."""

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Any, Final

from grpclib.const import Status

from graphton.backoff import backoff, jitter
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs import backend as contract
from worker.backend import ATTEMPT_TIMEOUT_SECONDS, Backend, BackendError
from worker.progress import CANCELLED_TEXT, Progress
from worker.status import wire_size

_log = logging.getLogger(__name__)

UPDATE_SECONDS: Final = 0.5
"""The shortest time between two updates. The next update contains all changes in between."""

FAILED_UPDATE_SECONDS: Final = 3.0
"""The same after an update that failed."""

SILENT_SECONDS: Final = 2.0
"""After this time without a change, the server is asked whether the execution was cancelled."""

UPDATE_RETRY_SECONDS: Final = 5.0
"""How long an update is retried. Longer is not useful: the next one contains it."""

FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.2, 5.0
"""Seconds between two attempts to send the final status. See `graphton.backoff`."""

LAST_ROUND_SECONDS: Final = 2.0
"""The time for asking the server a last time, and for sending the final status."""


class Reporter:
    """Sends the status of an execution to the server, while it runs and at its end.

    The server merges what it is sent: a phase replaces the phase that it has. So a phase is sent
    only if the server has another one, and never if the server's phase is final. Otherwise an
    update would undo a cancellation. The server is asked before each attempt to send a phase,
    because somebody may have cancelled the execution since the last answer. Only the end of
    `finish` does not wait for that answer.

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
                succeeded = await self._look(UPDATE_RETRY_SECONDS)
            pause = UPDATE_SECONDS if succeeded else FAILED_UPDATE_SECONDS
            await _wait_for_any(self._stopping.wait(), asyncio.sleep(pause))

    async def _report(self) -> bool:
        """Send the status. A failure is logged, but only the first of several in a row."""
        try:
            if self._has_new_phase:
                await self._ask(UPDATE_RETRY_SECONDS)
                await self._send_once(UPDATE_RETRY_SECONDS)
            else:
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

    @property
    def _has_new_phase(self) -> bool:
        """Whether the server should get a phase, as far as its own is known."""
        return self.phase not in {self._progress.status.phase, *contract.FINAL_PHASES}

    async def _ask(self, seconds: float) -> None:
        """Learn the phase that the server has.

        If the server does not return the execution, it is sent an update without a phase. The
        reply has the server's phase.

        Args:
            seconds: About how long this may last.

        Raises:
            BackendError: if the server does not accept the update either.
        """
        if not await self._look(seconds / 2):
            await self._send(seconds / 2, with_phase=False)

    async def _look(self, seconds: float) -> bool:
        """Get the execution from the server. Returns whether it answered in time."""
        if not self._id:
            return True
        request = pb.AgentExecutionId(value=self._id)
        try:
            async with asyncio.timeout(seconds):
                found = await self._server.call(
                    contract.GET_EXECUTION, request, retry_for=0, attempt_timeout=seconds
                )
            self._note(found.status.phase or self.phase)
        except Exception as error:  # the next update reports a failure
            _log.debug("execution %s: no phase from the server: %s", self._id, error)
            return False
        return True

    async def _send_once(self, seconds: float) -> None:
        """Send the status without a retry: before another attempt, the server must be asked."""
        await self._send(0, attempt_timeout=seconds)

    async def _send(
        self,
        retry_for: float,
        *,
        attempt_timeout: float = ATTEMPT_TIMEOUT_SECONDS,
        with_phase: bool = True,
    ) -> None:
        if not self._id:
            return
        update = pb.AgentExecutionUpdateStatusInput(execution_id=self._id)
        update.status.CopyFrom(self._progress.snapshot(wire_size))
        if not with_phase or (self.ended.is_set() and self.phase != pb.EXECUTION_CANCELLED):
            update.status.ClearField("error")  # the server may have a better one
        if not with_phase or not self._has_new_phase:
            update.status.ClearField("phase")
        reply = await self._server.call(
            contract.UPDATE_EXECUTION_STATUS,
            update,
            retry_for=retry_for,
            attempt_timeout=attempt_timeout,
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

        As long as the server may still tell its phase, it gets no final phase. Only the last
        attempt sends one in any case: without it, the execution would seem to run for ever, and its
        clients would wait for ever. If it replaces a cancellation, the phase still says truly how
        the work ended.

        Args:
            retry_for: How long this is retried if the server is unavailable, in seconds.
        """
        until = time.monotonic() + retry_for
        await self.stop(retry_for / 2)

        def left() -> float:
            return max(0.0, until - time.monotonic())

        for pause in map(jitter, backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)):
            is_last = left() <= LAST_ROUND_SECONDS
            try:
                await self._ask_before_the_end(left() / 2, is_last=is_last)
                if is_last:
                    await self._send(left())
                else:
                    seconds = max(0.5, left() - LAST_ROUND_SECONDS)
                    await self._send_once(min(UPDATE_RETRY_SECONDS, seconds))
                return
            except Exception as error:
                if is_last or not _is_transient(error):
                    self._log_failure("final status", error)  # Temporal gets it nevertheless
                    return
            await asyncio.sleep(min(pause, max(0.0, left() - LAST_ROUND_SECONDS)))

    async def _ask_before_the_end(self, seconds: float, *, is_last: bool) -> None:
        """Learn the server's phase, and accept a cancellation.

        Raises:
            BackendError: if asking again may help.
            TimeoutError: the same.
        """
        try:
            if is_last:
                await self._look(seconds)
                return
            seconds = min(UPDATE_RETRY_SECONDS, seconds)
            async with asyncio.timeout(seconds):
                await self._ask(seconds)
        except Exception as error:
            if _is_transient(error):
                raise
        finally:
            cancelled = pb.EXECUTION_CANCELLED
            if self.phase == cancelled and self._progress.status.phase != cancelled:
                self._progress.end(cancelled, CANCELLED_TEXT)


def _is_transient(error: Exception) -> bool:
    """Whether the server may accept later what has failed now."""
    if isinstance(error, BackendError):
        return error.code in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED}
    return isinstance(error, TimeoutError)


async def _wait_for_any(*awaitables: Awaitable[Any]) -> None:
    """Wait until one of the awaitables is done, and cancel the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

"""How many executions a worker takes at the same time."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkerTuner,
)

MAX_LENT_SLOTS: Final = 1000
"""How many waiting executions give their slot away. This limits the memory that they use."""

BUSY_SECONDS: Final = 10.0
"""A worker that has got no task for so long expects none while it closes."""

_POLL_SECONDS: Final = 0.05


class Slots(CustomSlotSupplier):
    """Counts the activities that run, without those that wait for their session.

    An execution whose session is busy does nothing. If it kept its slot, a few impatient users of
    one session would hold up all others.

    Args:
        limit: The maximum number of activities that run. It can be exceeded for a moment, when an
            execution stops waiting.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = self._lent = 0
        self._polls = 0
        self._last_arrival = -BUSY_SECONDS
        self._closed = False
        self._lock = threading.Lock()  # Temporal's threads release slots

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """See CustomSlotSupplier."""
        while (permit := self.try_reserve_slot(ctx)) is None:  # noqa: ASYNC110 (see `_lock`)
            await asyncio.sleep(_POLL_SECONDS)
        return permit

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        """See CustomSlotSupplier."""
        with self._lock:
            busy = self._used - min(self._lent, MAX_LENT_SLOTS)
            if self._closed or busy >= self._limit:
                return None
            self._used += 1
            self._polls += 1  # a slot is reserved before the worker polls
            return SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """See CustomSlotSupplier."""
        with self._lock:
            self._polls -= 1
            self._last_arrival = time.monotonic()

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """See CustomSlotSupplier."""
        with self._lock:
            self._used -= 1
            if ctx.slot_info is None:  # it was not used
                self._polls -= 1

    async def close(self, seconds: float) -> None:
        """Poll no more, and wait until the polls that are open have got a task.

        When a worker shuts down, it interrupts its polls. A task that Temporal sends at this very
        moment is lost, and its execution fails, unless the server is new enough
        (`worker_poll_complete_on_shutdown`). A worker that gets few tasks does not wait.

        Args:
            seconds: How long to wait at most.
        """
        self._closed = True
        now = time.monotonic()
        end = now + seconds if now < self._last_arrival + BUSY_SECONDS else now
        while self._polls > 0 and time.monotonic() < end:  # noqa: ASYNC110 (see `_lock`)
            await asyncio.sleep(_POLL_SECONDS / 5)

    @contextlib.contextmanager
    def lend(self) -> Iterator[None]:
        """Let another activity use the slot of the current one during the `with` block."""
        self._add_lent(1)
        try:
            yield
        finally:
            self._add_lent(-1)

    def _add_lent(self, number: int) -> None:
        with self._lock:
            self._lent += number

    @property
    def tuner(self) -> WorkerTuner:
        """The tuner for a worker that has only activities."""
        unused = FixedSizeSlotSupplier(1)
        return WorkerTuner.create_composite(
            workflow_supplier=FixedSizeSlotSupplier(2),
            activity_supplier=self,
            local_activity_supplier=unused,
            nexus_supplier=unused,
        )

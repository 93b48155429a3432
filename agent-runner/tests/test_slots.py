import asyncio
import time
from typing import Any, cast

import pytest
from temporalio.worker import SlotReleaseContext

from worker.slots import Slots

CONTEXT = cast(Any, None)


def test_waiting_executions_do_not_count() -> None:
    supplier = Slots(2)
    assert supplier.try_reserve_slot(CONTEXT)
    assert supplier.try_reserve_slot(CONTEXT)
    assert supplier.try_reserve_slot(CONTEXT) is None
    with supplier.lend():
        permit = supplier.try_reserve_slot(CONTEXT)
        assert permit
        assert supplier.try_reserve_slot(CONTEXT) is None
    assert supplier.try_reserve_slot(CONTEXT) is None
    supplier.release_slot(SlotReleaseContext(None, permit))
    assert supplier.try_reserve_slot(CONTEXT) is None
    supplier.release_slot(SlotReleaseContext(None, permit))
    assert supplier.try_reserve_slot(CONTEXT)


async def test_closing_waits_for_tasks_that_still_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    supplier = Slots(5)
    for _ in range(3):
        await supplier.reserve_slot(CONTEXT)
    with monkeypatch.context() as patched:
        patched.setattr("worker.slots.asyncio.sleep", None)
        await supplier.close(5)  # it does not wait: no task has arrived lately
    supplier.mark_slot_used(CONTEXT)
    started = time.monotonic()
    closing = asyncio.create_task(supplier.close(60))
    await asyncio.sleep(0.05)
    assert not closing.done()
    supplier.mark_slot_used(CONTEXT)
    supplier.mark_slot_used(CONTEXT)
    await closing
    assert time.monotonic() - started < 30
    assert supplier.try_reserve_slot(CONTEXT) is None

"""Blocking calls from the event loop."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_blocking(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a worker thread, and wait for it to end even if the caller is cancelled.

    A running thread cannot be interrupted. When the caller of `asyncio.to_thread` is cancelled,
    the thread continues: it would write to a sandbox that another execution uses by then.

    Returns:
        The result of `work`.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # read it, or asyncio logs that it was never retrieved
        raise

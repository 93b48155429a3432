"""The worker's life: wait for Temporal, poll, drain.

`run` blocks until SIGTERM or SIGINT. Not finding Temporal, and losing it, are waited out.
"""

import asyncio
import importlib
import logging
import os
import re
import signal
from collections.abc import Awaitable, Iterator
from datetime import timedelta
from typing import TypeVar

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.worker import Worker

from worker import probe
from worker.activities import HEARTBEAT_SECONDS, Activities
from worker.convert import CONVERTER
from worker.health import HealthFile, Phase
from worker.settings import Settings

_log = logging.getLogger(__name__)

T = TypeVar("T")

HEARTBEAT_INTERVAL = timedelta(seconds=HEARTBEAT_SECONDS)

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 15.0
"""Seconds between two attempts to reach Temporal: doubled each time, up to the longest."""

CONNECT_SECONDS = 10.0
"""How long one attempt may take."""


def pauses() -> Iterator[float]:
    """The pauses between attempts, in seconds, without end."""
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 2, LONGEST_PAUSE)


def run(settings: Settings, health: HealthFile) -> None:
    """Serve until SIGTERM or SIGINT; running activities may finish first.

    A second signal ends the process at once.
    """
    asyncio.run(_until_signalled(settings, health))


async def _until_signalled(settings: Settings, health: HealthFile) -> None:
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            _log.warning("second %s: ending at once", number.name)
            health.remove()
            os._exit(128 + number)
        _log.info("%s: stopping", number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    await serve(settings, health, stop)
    _log.info("stopped")


async def serve(settings: Settings, health: HealthFile, stop: asyncio.Event) -> None:
    """Beat and poll until `stop` is set and the running activities have ended."""
    heartbeat = asyncio.create_task(_beat(health))
    work = asyncio.create_task(_connect_and_poll(settings, health, stop))
    try:
        # The heartbeat only ends by failing: then nobody can know that the worker lives.
        done, _ = await asyncio.wait({work, heartbeat}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (work, heartbeat):
            task.cancel()
        await asyncio.gather(work, heartbeat, return_exceptions=True)
        health.remove()


async def _beat(health: HealthFile) -> None:
    while True:
        health.beat()
        await asyncio.sleep(probe.HEARTBEAT_SECONDS)


async def _connect_and_poll(settings: Settings, health: HealthFile, stop: asyncio.Event) -> None:
    """Connect and poll, again after each failure, until `stop`.

    A failure is logged once, however often it comes back in a row.
    """
    runtime = _runtime()
    where = f"{settings.temporal_service_address}, namespace `{settings.temporal_namespace}`"
    waits, reason = pauses(), ""
    while not stop.is_set():
        try:
            client = await _unless(stop, _connect(settings, runtime))
            if client is None:
                return
            _log.info(
                "connected to Temporal at %s: polling `%s`",
                where,
                settings.temporal_agent_execution_runner_task_queue,
            )
            waits, reason = pauses(), ""
            activities = Activities(settings)
            try:
                await _poll(_worker(client, settings, activities), health, stop)
            finally:
                activities.close()
        except Exception as error:  # whatever it is, Temporal may come back
            if _one_line(error) != reason:
                reason = _one_line(error)
                _log.warning("waiting for Temporal at %s: %s", where, reason)
            health.enter(Phase.WAITING)
            await _unless(stop, asyncio.sleep(next(waits)))


async def _connect(settings: Settings, runtime: Runtime) -> Client:
    """A client that has talked to the server, and whose namespace is there.

    A worker cannot be built on a lazily connected client.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        client = await Client.connect(
            settings.temporal_service_address,
            namespace=settings.temporal_namespace,
            data_converter=CONVERTER,
            identity=f"agent-runner-{os.getpid()}@{os.uname().nodename}",
            runtime=runtime,
        )
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=settings.temporal_namespace)
        )
        return client


def _worker(client: Client, settings: Settings, activities: Activities) -> Worker:
    return Worker(
        client,
        task_queue=settings.temporal_agent_execution_runner_task_queue,
        activities=activities.all,
        max_concurrent_activities=settings.temporal_max_concurrency,
        graceful_shutdown_timeout=timedelta(seconds=settings.shutdown_grace_seconds),
        # A cancellation comes back with a heartbeat. By default one is sent every 24 s of 30.
        max_heartbeat_throttle_interval=HEARTBEAT_INTERVAL,
        default_heartbeat_throttle_interval=HEARTBEAT_INTERVAL,
    )


async def _poll(worker: Worker, health: HealthFile, stop: asyncio.Event) -> None:
    """Poll until `stop`, then drain.

    Raises:
        Exception: what ended the polling, if it was not `stop`.
    """
    polling = asyncio.create_task(worker.run())
    health.enter(Phase.POLLING)
    warming = asyncio.create_task(asyncio.to_thread(_warm_up))
    try:
        await _unless(stop, asyncio.shield(polling))
        health.enter(Phase.DRAINING)
    finally:
        warming.cancel()
        if not polling.done():
            await worker.shutdown()
        await polling


def _warm_up() -> None:
    """Load what only an execution needs, so that the first one need not wait for it."""
    try:
        importlib.import_module("worker.execution")
    except Exception:  # the execution will say it too
        _log.exception("agents cannot be run")


async def _unless(stop: asyncio.Event, work: Awaitable[T]) -> T | None:
    """The result of `work`; None, with `work` cancelled, if `stop` is set first."""
    task, stopped = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        stopped.cancel()
        task.cancel()


def _runtime() -> Runtime:
    """Temporal's native core, with its own warnings sent to our log."""
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporalio.core"))
    level = TelemetryFilter(core_level="WARN", other_level="ERROR")
    return Runtime(
        telemetry=TelemetryConfig(logging=LoggingConfig(filter=level, forwarding=forwarding))
    )


def _one_line(error: Exception) -> str:
    """What went wrong, for the log. Temporal's core wraps the reason in its own structures."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:.0f} s"
    text = " ".join(str(error).split())
    reason = re.search(r'kind: \w+, message: "([^"]+)"', text)
    return reason[1] if reason else text or type(error).__name__

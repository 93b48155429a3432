"""The worker's main loop: connect to Temporal, poll its task queue, and drain on a signal.

`run` returns after SIGTERM or SIGINT. While Temporal is unavailable, the worker waits for it.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import re
import signal
import threading
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.worker import Worker

from graphton import commands
from graphton.backoff import backoff
from worker import probe
from worker.activities import ACTIVITY_HEARTBEAT_SECONDS, Activities
from worker.connection import Connection
from worker.convert import CONVERTER
from worker.health import HealthFile, Phase
from worker.metrics import Metrics
from worker.settings import Settings, SettingsError
from worker.slots import Slots
from worker.workspace import find_problem

_log = logging.getLogger(__name__)

T = TypeVar("T")

ACTIVITY_HEARTBEAT_INTERVAL = timedelta(seconds=ACTIVITY_HEARTBEAT_SECONDS)

FIRST_RETRY_SECONDS = 0.25
MAX_RETRY_SECONDS = 15.0
"""Seconds between two attempts to connect to Temporal. See `graphton.backoff`."""

MAX_CLOSING_SECONDS = 5.0
"""See `_closing_seconds`."""

LEFTOVERS_SECONDS = 3600.0
"""Seconds between two searches for leftovers, and before the first one."""

CONNECT_TIMEOUT_SECONDS = 10.0
"""The time limit of one attempt."""


def run(settings: Settings, connection: Connection, health: HealthFile) -> None:
    """Serve until SIGTERM or SIGINT, and let running activities finish.

    A second signal ends the process at once.

    Raises:
        SettingsError: if METRICS_ADDRESS cannot be used.
    """
    _watch_children_without_threads()
    asyncio.run(_serve_until_signalled(settings, connection, health))


def _watch_children_without_threads() -> None:
    """Let asyncio wait for commands with pidfds, if the kernel has them (Linux 5.3).

    By default, Python 3.11 starts a thread for each command. It counts as a process for the limit
    of the container.
    """
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            os.close(os.pidfd_open(os.getpid()))
            asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


async def _serve_until_signalled(
    settings: Settings, connection: Connection, health: HealthFile
) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().set_default_executor(start_threads())

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            _log.warning("second %s: exiting at once", number.name)
            health.remove()
            os._exit(128 + number)
        _log.info("%s: stopping", number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    await serve(settings, connection, health, stop)
    _log.info("stopped")


def start_threads() -> ThreadPoolExecutor:
    """Start the threads for blocking calls, which otherwise start when they are needed.

    While an agent's command has used up the processes that a container may have, none can start.
    """
    number = min(32, (os.cpu_count() or 1) + 4)
    executor = ThreadPoolExecutor(number, "blocking")
    started = threading.Barrier(number)
    for _ in range(number):
        executor.submit(started.wait)
    return executor


async def serve(
    settings: Settings, connection: Connection, health: HealthFile, stop: asyncio.Event
) -> None:
    """Poll and record heartbeats until `stop` is set and the running activities have ended."""
    tasks = {
        asyncio.create_task(_connect_and_poll(settings, connection, health, stop)),
        asyncio.create_task(_record_heartbeats(health)),
        asyncio.create_task(_watch_workspace(settings, health)),
    }
    end = threading.Event()
    # A thread of its own, which does not keep the process from ending: removing can take minutes.
    given = (settings.sandbox_root_dir, end)
    threading.Thread(target=_remove_leftovers, args=given, name="leftovers", daemon=True).start()
    try:
        # The other tasks end only by an error. The worker must not continue without them.
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        end.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        health.remove()


async def _record_heartbeats(health: HealthFile) -> None:
    while True:
        health.record_heartbeat()
        await asyncio.sleep(probe.HEALTH_HEARTBEAT_SECONDS)


async def _watch_workspace(settings: Settings, health: HealthFile) -> None:
    """Be unhealthy while the workspace cannot be used."""
    while True:
        await asyncio.sleep(probe.HEALTH_HEARTBEAT_SECONDS)
        # In a thread: a file server that does not answer must not block the event loop.
        problem = await asyncio.to_thread(find_problem, settings.sandbox_root_dir)
        if problem == health.problem:
            continue
        health.set_problem(problem)
        if problem:
            _log.error("executions fail until this is fixed: %s", problem)
        else:
            _log.info("the workspace can be used again")


def _remove_leftovers(root: Path, end: threading.Event) -> None:
    """Remove what nobody needs any more from the workspace, again and again until `end` is set."""
    from worker.leftovers import remove_leftovers

    while not end.wait(LEFTOVERS_SECONDS):
        try:
            removed = remove_leftovers(root, end)
        except OSError as error:  # `_watch_workspace` reports it
            _log.debug("leftovers are not removed: %s", error)
            continue
        except Exception:
            _log.exception("leftovers are not removed")
            continue
        for name, leftover in removed.items():
            _log.info("sandbox `%s`: %s removed, not used for days", name, leftover.value)


async def _connect_and_poll(
    settings: Settings, connection: Connection, health: HealthFile, stop: asyncio.Event
) -> None:
    """Connect and poll until `stop` is set. Try again after each failure.

    If the same failure repeats, it is logged once.
    """
    runtime = _runtime(settings.metrics_address)
    metrics = Metrics(runtime.metric_meter)
    pauses, reason = backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS), ""
    while not stop.is_set():
        try:
            client = await _run_until_stopped(stop, _connect(connection, runtime))
            if client is None:
                return
            _log.info(
                "connected to Temporal at %s: polling `%s`",
                connection,
                settings.temporal_agent_execution_runner_task_queue,
            )
            pauses, reason = backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS), ""
            slots = Slots(settings.temporal_max_concurrency)
            activities = Activities(settings, metrics, slots.lend, connection.secrets)
            try:
                worker = _worker(client, settings, activities, slots)
                await _poll(worker, slots, _closing_seconds(settings), health, stop)
            finally:
                activities.close()
        except Exception as error:  # any failure may be temporary
            if _describe_error(error) != reason:
                reason = _describe_error(error)
                _log.warning("waiting for Temporal at %s: %s", connection, reason)
            health.set_phase(Phase.WAITING)
            await _run_until_stopped(stop, asyncio.sleep(next(pauses)))


async def _connect(connection: Connection, runtime: Runtime) -> Client:
    """Connect to Temporal, and check that the namespace exists.

    The client must be connected, because a Worker does not accept a lazy one.
    """
    async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
        client = await Client.connect(
            connection.address,
            namespace=connection.namespace,
            tls=connection.tls,
            api_key=connection.api_key,
            rpc_metadata=connection.metadata,
            data_converter=CONVERTER,
            identity=f"agent-runner-{os.getpid()}@{os.uname().nodename}",
            runtime=runtime,
        )
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=connection.namespace)
        )
        return client


def _worker(client: Client, settings: Settings, activities: Activities, slots: Slots) -> Worker:
    return Worker(
        client,
        task_queue=settings.temporal_agent_execution_runner_task_queue,
        activities=activities.all,
        tuner=slots.tuner,
        graceful_shutdown_timeout=timedelta(
            seconds=settings.shutdown_grace_seconds - _closing_seconds(settings)
        ),
        # Enough for hundreds of tasks in a second. Each one that is open delays `Slots.close`.
        max_concurrent_activity_task_polls=2,
        # A cancellation arrives with the reply to a heartbeat. By default, the SDK sends one only
        # after 80 % of the heartbeat timeout: every 24 s if that is 30 s.
        max_heartbeat_throttle_interval=ACTIVITY_HEARTBEAT_INTERVAL,
        default_heartbeat_throttle_interval=ACTIVITY_HEARTBEAT_INTERVAL,
    )


def _closing_seconds(settings: Settings) -> float:
    """The part of the grace period in which tasks that are on their way may still arrive."""
    return min(MAX_CLOSING_SECONDS, settings.shutdown_grace_seconds / 8)


async def _poll(
    worker: Worker,
    slots: Slots,
    closing_seconds: float,
    health: HealthFile,
    stop: asyncio.Event,
) -> None:
    """Poll until `stop` is set, then drain.

    Raises:
        Exception: the error that ended the polling.
    """
    polling = asyncio.create_task(worker.run())
    health.set_phase(Phase.POLLING)
    warming = asyncio.create_task(asyncio.to_thread(_warm_up))
    try:
        await _run_until_stopped(stop, asyncio.shield(polling))
        health.set_phase(Phase.DRAINING)
        await slots.close(closing_seconds)
    finally:
        warming.cancel()
        if not polling.done():
            await worker.shutdown()
        await polling


def _warm_up() -> None:
    """Do what only an execution needs, so that the first execution starts faster."""
    try:
        importlib.import_module("worker.execution")
        commands.prepare()
    except Exception:  # the worker goes on: each execution reports the error too
        _log.exception("preparing for the first execution failed")


async def _run_until_stopped(stop: asyncio.Event, work: Awaitable[T]) -> T | None:
    """Return the result of `work`. If `stop` is set first, cancel `work` and return None."""
    task, stopped = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        stopped.cancel()
        task.cancel()


def _runtime(metrics_address: str | None) -> Runtime:
    """Create Temporal's native runtime, with its warnings sent to the worker's log.

    Args:
        metrics_address: The address on which to serve metrics, or None.

    Raises:
        SettingsError: if metrics cannot be served on this address.
    """
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporalio.core"))
    level = TelemetryFilter(core_level="WARN", other_level="ERROR")
    logs = LoggingConfig(filter=level, forwarding=forwarding)
    if metrics_address is None:
        return Runtime(telemetry=TelemetryConfig(logging=logs))
    prometheus = PrometheusConfig(metrics_address, durations_as_seconds=True)
    try:
        return Runtime(telemetry=TelemetryConfig(logging=logs, metrics=prometheus))
    except (RuntimeError, ValueError) as error:
        raise SettingsError([f"METRICS_ADDRESS `{metrics_address}`: {error}"]) from None


def _describe_error(error: Exception) -> str:
    """Describe an error in one line. Temporal's core hides the reason in a printed structure."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_SECONDS:.0f} s"
    text = " ".join(str(error).split())
    reason = re.search(r'kind: \w+, message: "([^"]+)"', text)
    return reason[1] if reason else text or type(error).__name__

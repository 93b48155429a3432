import asyncio
import itertools
import os
import sys
import threading
import uuid
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError

from graphton.backoff import backoff
from stigmer_stubs.agentexecution_pb2 import EXECUTION_FAILED
from tests.stack import TEMPORAL, needs_temporal
from worker import service
from worker.connection import find_connection
from worker.health import HealthFile
from worker.settings import Settings


def test_the_pauses_double_up_to_the_longest() -> None:
    first = list(
        itertools.islice(backoff(service.FIRST_RETRY_SECONDS, service.MAX_RETRY_SECONDS), 9)
    )
    assert first == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


async def test_a_heartbeat_that_fails_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", "127.0.0.1:1")
    settings = Settings.load()
    health = HealthFile.publish(settings, {})

    def fail() -> None:
        raise OSError("disk full")

    monkeypatch.setattr(health, "record_heartbeat", fail)
    with pytest.raises(OSError, match="disk full"):
        await asyncio.wait_for(
            service.serve(settings, find_connection(settings, {}), health, asyncio.Event()), 10
        )


@needs_temporal
async def test_the_activities_answer_through_temporal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A workflow of the test calls them in the same way as the server's workflow."""
    from temporalio.worker import Worker

    from tests.workflows import Calls

    queue, session = f"test-{uuid.uuid4().hex}", uuid.uuid4().hex
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", TEMPORAL)
    monkeypatch.setenv("TEMPORAL_AGENT_EXECUTION_RUNNER_TASK_QUEUE", queue)
    monkeypatch.setenv("SANDBOX_ROOT_DIR", str(tmp_path))
    (tmp_path / session).mkdir()
    settings, stop = Settings.load(), asyncio.Event()
    serving = asyncio.create_task(
        service.serve(
            settings, find_connection(settings, {}), HealthFile.publish(settings, {}), stop
        )
    )

    client = await Client.connect(TEMPORAL)
    async with Worker(client, task_queue=f"{queue}-workflows", workflows=[Calls]):
        status = await client.execute_workflow(
            Calls.run, args=[queue, session], id=queue, task_queue=f"{queue}-workflows"
        )
    stop.set()
    await asyncio.wait_for(serving, 15)
    assert not (tmp_path / session).exists()
    assert status.phase == EXECUTION_FAILED
    assert status.error == "neither the execution nor its session names an agent"


WITH_A_SLOW_ACTIVITY = """
import asyncio, main
from temporalio import activity
from stigmer_stubs.agentexecution_pb2 import EXECUTION_FAILED
from worker import service

class Slow:
    def __init__(self, *_): pass
    def close(self): pass

    @activity.defn(name="EnsureThread")
    async def slow(self, session_id: str, agent_id: str) -> str:
        print("started", flush=True)
        await asyncio.sleep(2)
        return "finished"

    @property
    def all(self): return [self.slow]

service.Activities = Slow
main.exit_process(main.main())
"""


@needs_temporal
@pytest.mark.parametrize(("grace", "finishes"), [("8", True), ("0.2", False)])
async def test_a_running_activity_may_finish_within_the_grace_period(
    tmp_path: Path, grace: str, finishes: bool
) -> None:
    from temporalio.worker import Worker

    from tests.workflows import CallsOnce

    queue = f"test-{uuid.uuid4().hex}"
    environment = {
        "PATH": os.environ["PATH"],
        "AGENT_RUNNER_HEALTH_FILE": os.environ["AGENT_RUNNER_HEALTH_FILE"],
        "SANDBOX_ROOT_DIR": str(tmp_path),
        "SHUTDOWN_GRACE_SECONDS": grace,
        "TEMPORAL_AGENT_EXECUTION_RUNNER_TASK_QUEUE": queue,
        "TEMPORAL_SERVICE_ADDRESS": TEMPORAL,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WITH_A_SLOW_ACTIVITY),
        env=environment,
        cwd=Path(service.__file__).parent.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        client = await Client.connect(TEMPORAL)
        async with Worker(client, task_queue=f"{queue}-workflows", workflows=[CallsOnce]):
            handle = await client.start_workflow(
                CallsOnce.run, queue, id=queue, task_queue=f"{queue}-workflows"
            )
            assert process.stdout
            assert await asyncio.wait_for(process.stdout.readline(), 20) == b"started\n"
            process.terminate()
            if finishes:
                assert await handle.result() == "finished"
            else:
                with pytest.raises(WorkflowFailureError):
                    await handle.result()
        _, err = await asyncio.wait_for(process.communicate(), 15)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    assert b"SIGTERM: stopping" in err
    assert err.splitlines()[-1].endswith(b": stopped")


def test_threads_for_blocking_calls_start_at_once() -> None:
    before = threading.active_count()
    executor = service.start_threads()
    try:
        assert threading.active_count() - before == executor._max_workers
        assert executor.submit(lambda: 1).result(5) == 1
    finally:
        executor.shutdown()

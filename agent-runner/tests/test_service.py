import asyncio
import itertools
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Coroutine
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError

from graphton.backoff import backoff
from stigmer_stubs.agentexecution_pb2 import EXECUTION_FAILED
from tests.runners import until
from tests.stack import TEMPORAL, needs_temporal
from worker import probe, service
from worker.connection import find_connection
from worker.health import HealthFile
from worker.settings import Settings


def test_the_pauses_double_up_to_the_longest() -> None:
    first = list(
        itertools.islice(backoff(service.FIRST_RETRY_SECONDS, service.MAX_RETRY_SECONDS), 9)
    )
    assert first == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def serve_without_temporal(health: HealthFile, settings: Settings) -> Coroutine[None, None, None]:
    return service.serve(settings, find_connection(settings, {}), health, asyncio.Event())


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", "127.0.0.1:1")
    return Settings.load()


async def test_a_heartbeat_that_fails_ends_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probe, "HEALTH_HEARTBEAT_SECONDS", 0.05)
    health = HealthFile.publish(settings, {})
    folder = Path(probe.health_file()).parent
    serving = asyncio.create_task(serve_without_temporal(health, settings))
    shutil.rmtree(folder)
    folder.write_text("a file, so that no folder can be made")
    await until(lambda: "cannot be written: File exists" in caplog.text)
    folder.unlink()
    await until(lambda: probe.check(probe.health_file())[0])
    assert not serving.done()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_task_that_ends_by_a_mistake_ends_the_worker(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("a mistake")

    health = HealthFile.publish(settings, {})
    monkeypatch.setattr(health, "record_heartbeat", fail)
    with pytest.raises(RuntimeError, match="a mistake"):
        await asyncio.wait_for(serve_without_temporal(health, settings), 10)


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
    await asyncio.wait_for(serving, 40)
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
        _, err = await asyncio.wait_for(process.communicate(), 40)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    assert b"SIGTERM: stopping" in err
    assert err.splitlines()[-1].endswith(b": stopped")


def test_threads_for_blocking_calls_start_at_once() -> None:
    before = set(threading.enumerate())
    executor = service.start_threads()
    try:
        # By name: a thread that another test started may end meanwhile.
        started = [t for t in set(threading.enumerate()) - before if t.name.startswith("blocking")]
        assert len(started) == executor._max_workers
        assert executor.submit(lambda: 1).result(5) == 1
    finally:
        executor.shutdown()

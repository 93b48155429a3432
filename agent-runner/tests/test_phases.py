"""Tests how an execution ends: its phase never goes back, and its last status is not lost."""

import asyncio
import dataclasses
import itertools
import logging
import signal
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.activity import ActivityCancellationDetails
from temporalio.testing import ActivityEnvironment

from devserver.workflow import RunnerOptions
from stigmer_stubs import agentexecution_pb2 as pb
from tests.runners import until
from tests.stack import Proxy, Stack, answer, needs_temporal, start_stack
from worker import activities
from worker.backend import Backend
from worker.endpoint import Endpoint
from worker.execution import Caller, Execution, StopError
from worker.progress import Progress
from worker.redaction import Redactor
from worker.reporter import Reporter
from worker.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANCELLED = pb.AgentExecutionStatus(phase=pb.EXECUTION_CANCELLED)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with start_stack(tmp_path_factory.mktemp("phases") / "workspace") as stack:
        runner = await stack.runner(TEMPORAL_MAX_CONCURRENCY="3")
        yield stack
        assert await runner.end() == 0
        assert "Traceback" not in "".join(runner.log)


def phases(stack: Stack, execution_id: str) -> list[int]:
    """The phases that were sent, without updates that have none."""
    sent = (s.phase for i, s in stack.server.store.updates if i == execution_id)
    return [phase for phase in sent if phase]


def command(text: str) -> str:
    return f'!tool run_command {{"command": "{text}"}}\n'


@needs_temporal
async def test_a_phase_is_sent_only_when_it_changes(shared: Stack) -> None:
    execution_id = await shared.create(command("sleep 0.6") * 3 + "!say done", "steps")
    assert answer(await shared.ended(execution_id)) == "done"
    assert phases(shared, execution_id) == [pb.EXECUTION_IN_PROGRESS, pb.EXECUTION_COMPLETED]
    assert len([1 for i, _ in shared.server.store.updates if i == execution_id]) > 3


@needs_temporal
async def test_a_cancellation_stops_a_silent_tool(shared: Stack) -> None:
    execution_id = await shared.create(command("touch started; sleep 60"), "silent")
    await until((shared.sandbox("silent") / "started").exists)
    await asyncio.sleep(1)  # all of it has been reported
    await shared.server.store.update(execution_id, CANCELLED)
    started = time.monotonic()
    returned = await asyncio.wait_for(shared.server.workflow(execution_id).result(), 60)
    assert time.monotonic() - started < 30
    assert (returned.phase, returned.error) == (pb.EXECUTION_CANCELLED, "cancelled")
    assert shared.status(execution_id) == returned
    assert phases(shared, execution_id) == [pb.EXECUTION_IN_PROGRESS, pb.EXECUTION_CANCELLED]


@needs_temporal
async def test_a_cancellation_before_the_end_of_the_last_step_counts(shared: Stack) -> None:
    execution_id = await shared.create(command("touch started; sleep 0.7") + "!say done", "late")
    await until((shared.sandbox("late") / "started").exists)
    await asyncio.sleep(0.6)
    await shared.server.store.update(execution_id, CANCELLED)
    returned = await asyncio.wait_for(shared.server.workflow(execution_id).result(), 10)
    assert returned.phase == pb.EXECUTION_CANCELLED
    assert shared.status(execution_id) == returned


@needs_temporal
async def test_a_cancellation_while_the_session_is_busy(shared: Stack) -> None:
    first = await shared.create(command("touch started; sleep 2") + "!say first", "busy")
    await until((shared.sandbox("busy") / "started").exists)
    second = await shared.create("run: touch second", "busy")
    await until(lambda: phases(shared, second) == [pb.EXECUTION_IN_PROGRESS])
    await shared.server.store.update(second, CANCELLED)
    assert (await shared.server.workflow(second).result()).phase == pb.EXECUTION_CANCELLED
    assert answer(await shared.ended(first)) == "first"
    assert not (shared.sandbox("busy") / "second").exists()


@needs_temporal
async def test_an_execution_that_was_cancelled_early_does_not_begin(tmp_path: Path) -> None:
    async with start_stack(tmp_path / "workspace") as stack:
        execution_id = await stack.create("run: sleep 20", "early")
        await stack.server.store.update(execution_id, CANCELLED)
        runner = await stack.runner()
        returned = await asyncio.wait_for(stack.server.workflow(execution_id).result(), 20)
        assert returned.phase == pb.EXECUTION_CANCELLED
        assert phases(stack, execution_id) == [pb.EXECUTION_CANCELLED]
        assert await runner.end() == 0


@needs_temporal
async def test_an_execution_that_failed_at_the_server_stays_failed(shared: Stack) -> None:
    execution_id = await shared.create(command("touch started; sleep 60"), "failed")
    await until((shared.sandbox("failed") / "started").exists)
    failed = pb.AgentExecutionStatus(phase=pb.EXECUTION_FAILED, error="by an operator")
    await shared.server.store.update(execution_id, failed)
    returned = await asyncio.wait_for(shared.server.workflow(execution_id).result(), 10)
    assert returned.phase == pb.EXECUTION_FAILED
    assert "ended this execution: its phase is EXECUTION_FAILED there" in returned.error
    assert shared.status(execution_id).error == "by an operator"


@needs_temporal
async def test_the_time_in_the_queue_of_the_session_counts(tmp_path: Path) -> None:
    options = RunnerOptions(workflow_run=8)
    async with start_stack(tmp_path / "workspace", options) as stack:
        runner = await stack.runner()
        first = await stack.create(command("touch started; sleep 4") + "!say first", "queue")
        await until((stack.sandbox("queue") / "started").exists)
        second = await stack.create(command("sleep 60"), "queue")
        assert answer(await stack.ended(first)) == "first"
        returned = await stack.server.workflow(second).result()
        assert stack.status(second) == returned
        assert returned.phase == pb.EXECUTION_FAILED
        assert returned.error.startswith("no more time: stopped after ")
        assert " in the session's queue, because Temporal's time" in returned.error
        assert await runner.end() == 0


def is_in_progress(stack: Stack, execution_id: str) -> bool:
    return stack.status(execution_id).phase == pb.EXECUTION_IN_PROGRESS


@needs_temporal
async def test_a_busy_session_does_not_hold_up_others(shared: Stack) -> None:
    """The worker has three slots. Five executions of one session are created first."""
    ids = []
    for number in range(5):
        wait = f"until test -e go; do sleep 0.1; done; echo {number} >> order"
        created = await shared.create(f"run: {wait}", "crowd")
        ids.append(created)
        # Temporal may dispatch the next one first.
        await until(partial(is_in_progress, shared, created))
    assert "free" in answer(await shared.run("run: echo free", "alone"))
    assert is_in_progress(shared, ids[-1])
    (shared.sandbox("crowd") / "go").touch()
    for execution_id in ids:
        answer(await shared.ended(execution_id))
    assert (shared.sandbox("crowd") / "order").read_text().split() == list("01234")


@needs_temporal
async def test_a_stopped_worker_returns_a_status_that_the_server_does_not_get(
    tmp_path: Path,
) -> None:
    async with start_stack(tmp_path / "workspace") as stack:
        proxy = Proxy(f"127.0.0.1:{stack.server.port}")
        await proxy.start()
        runner = await stack.runner(
            STIGMER_BACKEND_ENDPOINT=f"127.0.0.1:{proxy.port}", SHUTDOWN_GRACE_SECONDS="1"
        )
        execution_id = await stack.create("run: touch started; sleep 1; echo here", "away")
        await until((stack.sandbox("away") / "started").exists)
        await proxy.stop()
        await asyncio.sleep(2.5)  # the agent has finished, and the server does not know it
        started = time.monotonic()
        assert await runner.end(signal.SIGTERM) == 0
        assert time.monotonic() - started < 20
        returned = await stack.server.workflow(execution_id).result()
        assert answer(returned) == "The command says: here\n"
        await proxy.start()
        await proxy.stop()


@pytest.mark.parametrize(
    ("details", "phase", "words"),
    [
        ({"cancel_requested": True}, pb.EXECUTION_CANCELLED, "cancelled"),
        ({"timed_out": True}, pb.EXECUTION_FAILED, "no more time"),
        ({"paused": True}, pb.EXECUTION_FAILED, "paused in Temporal"),
        ({"reset": True}, pb.EXECUTION_FAILED, "reset in Temporal"),
        ({"not_found": True}, pb.EXECUTION_FAILED, "Temporal does not wait"),
        ({"worker_shutdown": True}, pb.EXECUTION_FAILED, "the agent-runner was stopped"),
    ],
)
async def test_only_a_request_cancels(
    details: dict[str, bool], phase: pb.ExecutionPhase, words: str
) -> None:
    async def until_cancelled() -> StopError:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return activities._cancellation_reason()
        raise AssertionError

    environment = ActivityEnvironment()
    running = asyncio.create_task(environment.run(until_cancelled))
    await asyncio.sleep(0.05)
    environment.cancel(ActivityCancellationDetails(**details))
    reason = await running
    assert reason.phase == phase
    assert words in str(reason)


async def test_no_time_is_a_limit_too() -> None:
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(
        environment.info, started_time=environment.info.started_time + timedelta(hours=1)
    )
    caller = await environment.run(activities._find_caller)
    assert caller.seconds == 0


class BrokenServer:
    """A server whose calls fail in an unexpected way, or take very long."""

    def __init__(self, error: Exception | None = None, seconds: float = 0) -> None:
        self.error = error
        self.seconds = seconds
        self.requests: list[Any] = []

    async def call(self, method: object, request: Any, **_: object) -> pb.AgentExecution:
        self.requests.append(request)
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        return pb.AgentExecution()


async def test_an_unexpected_error_does_not_end_the_reporter(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.reporter.FAILED_UPDATE_SECONDS", 0.02)
    monkeypatch.setattr("worker.reporter.UPDATE_SECONDS", 0.02)
    server = BrokenServer(ValueError("broken"))
    status = Progress("x", Redactor())
    reporter = Reporter(server, "e1", status)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        await until(lambda: len(server.requests) > 3)
    assert [r.message for r in caplog.records] == [
        "execution e1: the server gets no updates: broken"
    ]
    server.error = None
    status.end(pb.EXECUTION_COMPLETED)
    await reporter.finish(5)
    assert server.requests[-1].status.phase == pb.EXECUTION_COMPLETED
    server.error = ValueError("broken again")
    await reporter.finish(0)


async def test_a_reply_without_a_phase_does_not_repeat_the_phase(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.reporter.UPDATE_SECONDS", 0.01)
    server = BrokenServer()
    status = Progress("x", Redactor())
    reporter = Reporter(server, "e1", status)  # type: ignore[arg-type]

    def sent() -> list[int]:
        updates = (r for r in server.requests if isinstance(r, pb.AgentExecutionUpdateStatusInput))
        return [update.status.phase for update in updates]

    for count in range(1, 4):
        await until(lambda count=count: len(sent()) == count)  # type: ignore[misc]
        status.todos_changed([])
    status.end(pb.EXECUTION_COMPLETED)
    await reporter.finish(5)
    assert sent()[0] == pb.EXECUTION_IN_PROGRESS
    assert sent()[-1] == pb.EXECUTION_COMPLETED
    assert set(sent()[1:-1]) == {pb.EXECUTION_PHASE_UNSPECIFIED}


async def test_cancelling_again_does_not_lose_the_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SANDBOX_ROOT_DIR", str(tmp_path))
    server = BrokenServer(seconds=30)
    sent = pb.AgentExecution()
    sent.metadata.id = "e1"
    run = Execution(Settings.load(), server, sent, "t")  # type: ignore[arg-type]
    reasons = itertools.count()

    def reason() -> StopError:
        return StopError(pb.EXECUTION_CANCELLED, f"cancelled {next(reasons)}", 20)

    async def find_caller() -> Caller:
        return Caller()

    task = asyncio.create_task(run.run(find_caller, reason))
    await asyncio.sleep(0.3)
    started = time.monotonic()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.2)
    status = await asyncio.wait_for(task, 60)
    assert time.monotonic() - started < 15
    assert (status.phase, status.error) == (pb.EXECUTION_CANCELLED, "cancelled 0")


async def test_an_unexpected_error_of_a_call_is_a_backend_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stigmer_stubs import backend as contract
    from worker.backend import BackendError

    def fail(*_: object) -> None:
        raise AttributeError("a bug")

    monkeypatch.setattr("worker.backend.UnaryUnaryMethod", fail)
    server = Backend(Endpoint("127.0.0.1", 1))
    with pytest.raises(BackendError, match="failed: AttributeError"):
        await server.call(contract.GET_EXECUTION, pb.AgentExecutionId())

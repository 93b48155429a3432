"""Tests that a phase never goes back, also if the server does not answer every call."""

import asyncio
import time
from typing import Any

import pytest
from grpclib.const import Status

from stigmer_stubs import agentexecution_pb2 as pb
from tests.runners import until
from worker.backend import BackendError
from worker.progress import Progress
from worker.redaction import Redactor
from worker.reporter import Reporter

UNAVAILABLE = BackendError(Status.UNAVAILABLE, "the server restarts")
REFUSED = BackendError(Status.PERMISSION_DENIED, "not for workers")


class Server:
    """A server with one execution, which merges updates as the real server does.

    Attributes:
        phase: The phase of the execution.
        get_error: What a look fails with.
        get_seconds: How long a look lasts.
        update_error: What an update fails with.
        refuses: The updates that fail: those with a phase (True), without one (False), or all.
        replies: Whether the reply to an update has the phase.
        update_seconds: How long an update lasts.
        sent: The phases of the updates that arrived, including those that failed.
        retried: The phases of the updates that could have been retried without asking again.
    """

    def __init__(self, phase: pb.ExecutionPhase = pb.EXECUTION_PENDING) -> None:
        self.phase = phase
        self.get_error: Exception | None = None
        self.get_seconds = 0.0
        self.update_error: Exception | None = None
        self.refuses: set[bool] = {True, False}
        self.replies = True
        self.update_seconds = 0.0
        self.sent: list[pb.ExecutionPhase] = []
        self.retried: list[pb.ExecutionPhase] = []

    async def call(
        self, _: object, request: Any, *, retry_for: float, attempt_timeout: float
    ) -> pb.AgentExecution:
        reply = pb.AgentExecution()
        if isinstance(request, pb.AgentExecutionId):
            await asyncio.sleep(self.get_seconds)
            if self.get_error:
                raise self.get_error
            reply.status.phase = self.phase
            return reply
        self.sent.append(request.status.phase)
        if retry_for and request.status.phase:
            self.retried.append(request.status.phase)
        try:
            async with asyncio.timeout(attempt_timeout):
                await asyncio.sleep(self.update_seconds)
        except TimeoutError:
            raise BackendError(Status.DEADLINE_EXCEEDED, "slow") from None
        if self.update_error and bool(request.status.phase) in self.refuses:
            raise self.update_error
        self.phase = request.status.phase or self.phase
        if self.replies:
            reply.status.phase = self.phase
        return reply

    def report(self) -> tuple[Progress, Reporter]:
        progress = Progress("x", Redactor())
        return progress, Reporter(self, "e1", progress)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.reporter.UPDATE_SECONDS", 0.01)
    monkeypatch.setattr("worker.reporter.FAILED_UPDATE_SECONDS", 0.02)
    monkeypatch.setattr("worker.reporter.UPDATE_RETRY_SECONDS", 0.4)


def break_get(server: Server, how: str) -> None:
    match how:
        case "refused":
            server.get_error = REFUSED
        case "unavailable":
            server.get_error = UNAVAILABLE
        case "slow":
            server.get_seconds = 60


HOW = pytest.mark.parametrize("how", ["refused", "unavailable", "slow"])


@HOW
async def test_a_cancellation_before_the_start_counts_if_no_look_succeeds(how: str) -> None:
    server = Server(pb.EXECUTION_CANCELLED)
    break_get(server, how)
    _, reporter = server.report()
    await asyncio.wait_for(reporter.ended.wait(), 10)
    await reporter.finish(5)
    assert server.phase == pb.EXECUTION_CANCELLED
    assert set(server.sent) <= {pb.EXECUTION_PHASE_UNSPECIFIED, pb.EXECUTION_CANCELLED}


@HOW
async def test_a_cancellation_before_the_end_counts_if_no_look_succeeds(how: str) -> None:
    server = Server()
    progress, reporter = server.report()
    await until(lambda: server.phase == pb.EXECUTION_IN_PROGRESS)
    break_get(server, how)
    server.phase = pb.EXECUTION_CANCELLED
    progress.end(pb.EXECUTION_COMPLETED)
    await reporter.finish(5)
    assert pb.EXECUTION_COMPLETED not in server.sent
    assert server.phase == pb.EXECUTION_CANCELLED
    assert (progress.status.phase, progress.status.error) == (pb.EXECUTION_CANCELLED, "cancelled")


@HOW
async def test_all_phases_are_sent_if_no_look_succeeds(how: str) -> None:
    server = Server()
    break_get(server, how)
    progress, reporter = server.report()
    await until(lambda: server.phase == pb.EXECUTION_IN_PROGRESS)
    assert server.sent[0] == pb.EXECUTION_PHASE_UNSPECIFIED
    progress.end(pb.EXECUTION_COMPLETED)
    await reporter.finish(5)
    assert server.phase == pb.EXECUTION_COMPLETED
    assert server.retried == []
    assert [phase for phase in server.sent if phase] == [
        pb.EXECUTION_IN_PROGRESS,
        pb.EXECUTION_COMPLETED,
    ]


async def test_a_server_that_refuses_all_but_phases_gets_them() -> None:
    server = Server()
    server.get_error = server.update_error = REFUSED
    server.refuses = {False}
    progress, reporter = server.report()
    progress.end(pb.EXECUTION_COMPLETED)
    started = time.monotonic()
    await reporter.finish(60)
    assert time.monotonic() - started < 30
    assert server.phase == pb.EXECUTION_COMPLETED


async def test_a_slow_server_gets_all_phases() -> None:
    server = Server()
    server.update_seconds = 0.3  # of UPDATE_RETRY_SECONDS
    progress, reporter = server.report()
    await until(lambda: server.phase == pb.EXECUTION_IN_PROGRESS)
    progress.end(pb.EXECUTION_COMPLETED)
    await reporter.finish(5)
    assert server.phase == pb.EXECUTION_COMPLETED


async def test_a_cancellation_while_updates_fail_counts() -> None:
    """The server was asked before the first attempt. It is asked again before the next."""
    server = Server()
    server.update_error = UNAVAILABLE
    _, reporter = server.report()
    await until(lambda: pb.EXECUTION_IN_PROGRESS in server.sent)
    server.phase, server.update_error = pb.EXECUTION_CANCELLED, None
    await asyncio.wait_for(reporter.ended.wait(), 10)
    assert server.phase == pb.EXECUTION_CANCELLED
    await reporter.finish(5)
    assert server.phase == pb.EXECUTION_CANCELLED


async def test_a_cancellation_while_the_final_status_is_sent_counts() -> None:
    server = Server()
    progress, reporter = server.report()
    await until(lambda: server.phase == pb.EXECUTION_IN_PROGRESS)
    server.update_error = UNAVAILABLE
    progress.end(pb.EXECUTION_COMPLETED)
    finishing = asyncio.create_task(reporter.finish(20))
    await until(lambda: pb.EXECUTION_COMPLETED in server.sent)
    server.phase, server.update_error = pb.EXECUTION_CANCELLED, None
    await asyncio.wait_for(finishing, 10)
    assert server.phase == pb.EXECUTION_CANCELLED
    assert progress.status.phase == pb.EXECUTION_CANCELLED


async def test_a_cancellation_while_the_server_is_away_counts() -> None:
    server = Server()
    progress, reporter = server.report()
    await until(lambda: server.phase == pb.EXECUTION_IN_PROGRESS)
    server.get_error = server.update_error = UNAVAILABLE
    progress.end(pb.EXECUTION_COMPLETED)
    count = len(server.sent)
    finishing = asyncio.create_task(reporter.finish(20))
    await until(lambda: len(server.sent) > count + 2)
    assert set(server.sent[count:]) == {pb.EXECUTION_PHASE_UNSPECIFIED}
    server.phase = pb.EXECUTION_CANCELLED
    server.get_error = server.update_error = None
    await asyncio.wait_for(finishing, 10)
    assert server.phase == pb.EXECUTION_CANCELLED
    assert progress.status.phase == pb.EXECUTION_CANCELLED


async def test_the_error_of_an_operator_stays_if_no_look_succeeds() -> None:
    errors: list[str] = []

    class WithErrors(Server):
        async def call(self, _: object, request: Any, **__: Any) -> pb.AgentExecution:
            if isinstance(request, pb.AgentExecutionUpdateStatusInput):
                errors.append(request.status.error)
            return await super().call(_, request, **__)

    server = WithErrors(pb.EXECUTION_FAILED)
    server.get_error = REFUSED
    progress, reporter = server.report()
    progress.end(pb.EXECUTION_CANCELLED, "cancelled")
    await reporter.finish(5)
    assert set(errors) == {""}


@pytest.mark.parametrize("seconds", [0, 1, 3])
async def test_the_last_attempt_sends_the_phase_in_any_case(seconds: float) -> None:
    server = Server()
    server.get_error = server.update_error = UNAVAILABLE
    server.refuses = {False}
    progress, reporter = server.report()
    progress.end(pb.EXECUTION_COMPLETED)
    started = time.monotonic()
    await reporter.finish(seconds)
    assert time.monotonic() - started < seconds + 20
    assert server.phase == pb.EXECUTION_COMPLETED


async def test_a_server_that_replies_without_a_phase_gets_the_phases() -> None:
    server = Server()
    server.get_error, server.replies = REFUSED, False
    progress, reporter = server.report()
    await until(lambda: server.phase == pb.EXECUTION_IN_PROGRESS)
    progress.end(pb.EXECUTION_COMPLETED)
    started = time.monotonic()
    await reporter.finish(120)
    assert time.monotonic() - started < 30
    assert server.phase == pb.EXECUTION_COMPLETED

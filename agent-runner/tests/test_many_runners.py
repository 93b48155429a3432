"""Several workers that serve one task queue and one workspace."""

import asyncio
import re
import signal
from pathlib import Path

import pytest

from devserver.workflow import RunnerOptions
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs.backend import FINAL_PHASES
from tests.runners import Runner, until
from tests.stack import Stack, answer, needs_temporal, start_stack

pytestmark = needs_temporal

SESSIONS = [f"many-{number}" for number in range(12)]
ROUNDS = 5


def request(session: str, number: int) -> str:
    command = f"echo {session} {number} >> order; sleep 0.5"
    return f'!tool run_command {{"command": "{command}"}}\n!say {session} {number}: {{history}}'


async def create_all(stack: Stack) -> dict[tuple[str, int], str]:
    """Create all executions, those of each session one after the other. Returns their ids.

    A worker takes each one before the next one of its session is created. On a busy machine,
    Temporal could otherwise dispatch the next one first.
    """
    ids = {}
    for number in range(ROUNDS):
        for session in SESSIONS:
            ids[session, number] = await stack.create(request(session, number), session)
        await until(lambda: sum(len(taken(r)) for r in stack.runners) == len(ids), 120, "all taken")
    return ids


def order(stack: Stack, session: str) -> list[str]:
    """What the executions of a session wrote, in the order of the time."""
    return (stack.sandbox(session) / "order").read_text().splitlines()


def taken(runner: Runner) -> set[str]:
    """The executions that a worker took."""
    return set(re.findall(r"execution (\S+): agent", "".join(runner.log)))


async def test_three_workers_keep_the_order_of_each_session(tmp_path: Path) -> None:
    async with start_stack(tmp_path / "workspace") as stack:
        runners = await asyncio.gather(*(stack.runner() for _ in range(3)))
        ids = await create_all(stack)
        for (session, number), execution_id in ids.items():
            said = answer(await stack.ended(execution_id, 180))
            # The script of an earlier request spans two lines; its second one has its number.
            before = re.findall(rf"!say ({session} \d): ", said)
            assert before == [f"{session} {n}" for n in range(number)]
            assert said.startswith(f"{session} {number}: ")
            assert all(other not in said.split() for other in SESSIONS if other != session)
        for session in SESSIONS:
            assert order(stack, session) == [f"{session} {n}" for n in range(ROUNDS)]
        each = [taken(runner) for runner in runners]
        assert all(each), "every worker took some"
        assert sum(map(len, each)) == len(set.union(*each)) == len(ids), "each was taken once"
        for runner in runners:
            assert await runner.end() == 0


@pytest.mark.image
async def test_only_the_executions_of_a_killed_worker_fail(tmp_path: Path) -> None:
    async with start_stack(tmp_path / "workspace", RunnerOptions(heartbeat=8)) as stack:
        runners = await asyncio.gather(*(stack.runner() for _ in range(3)))
        ids = await create_all(stack)

        def count(*phases: pb.ExecutionPhase) -> int:
            return sum(stack.status(i).phase in phases for i in ids.values())

        def unfinished(runner: Runner) -> set[str]:
            return {i for i in taken(runner) if stack.status(i).phase not in FINAL_PHASES}

        await until(lambda: count(pb.EXECUTION_COMPLETED) >= 10, 120, "some ended")
        killed = max(runners, key=lambda runner: len(unfinished(runner)))
        assert await killed.end(signal.SIGKILL) == -signal.SIGKILL
        left = unfinished(killed)
        assert left, "the worker was killed in the middle"

        await until(lambda: count(*FINAL_PHASES) == len(ids), 180, "the end of all")
        failed = {i for i in ids.values() if stack.status(i).phase != pb.EXECUTION_COMPLETED}
        # It may have reported the end to the server, but not yet to Temporal.
        assert left <= failed <= taken(killed)
        assert all("eartbeat" in stack.status(i).error for i in failed)
        again = await asyncio.gather(*(stack.run("what did I ask before?", s) for s in SESSIONS))
        for session, status in zip(SESSIONS, again, strict=True):
            done = [n for n in range(ROUNDS) if ids[session, n] not in failed]
            said = answer(status)
            assert all(other not in said.split() for other in SESSIONS if other != session)
            remembered = re.findall(rf"!say {session} (\d): ", said)
            assert [n for n in map(int, remembered) if n in done] == done
            lines = order(stack, session)
            assert lines == sorted(lines)
        for runner in runners:
            if runner is not killed:
                assert await runner.end() == 0


async def test_a_rolling_update_fails_no_execution(tmp_path: Path) -> None:
    """Each worker is replaced by a new one, while executions are created all the time."""
    async with start_stack(tmp_path / "workspace") as stack:
        runners = [await stack.runner(SHUTDOWN_GRACE_SECONDS="30") for _ in range(2)]
        ids: list[str] = []

        async def keep_asking() -> None:
            while True:
                number = len(ids)
                ids.append(await stack.create("run: sleep 1", f"rolling-{number % 7}"))
                await asyncio.sleep(0.2)

        asking = asyncio.create_task(keep_asking())
        for old in runners:
            await asyncio.sleep(1)
            await stack.runner(SHUTDOWN_GRACE_SECONDS="30")
            await old.send(signal.SIGTERM)
            assert await asyncio.wait_for(old.process.wait(), 90) == 0
        asking.cancel()
        for execution_id in ids:
            answer(await stack.ended(execution_id, 180))

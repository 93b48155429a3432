"""Whole executions, with a real Temporal server and a real worker.

`.ci/run` also runs those marked `image` with the built image, on each engine.
"""

import asyncio
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from temporalio.client import WorkflowFailureError

from devserver.ask import EXECUTION_FAILED, ask
from devserver.model import ModelServer
from devserver.server import DevServer, Options
from devserver.workflow import RunnerOptions
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs import apiresourcekind_pb2
from stigmer_stubs import backend as contract
from stigmer_stubs.agent_pb2 import Agent
from stigmer_stubs.agentinstance_pb2 import AgentInstance
from stigmer_stubs.environment_pb2 import Environment
from stigmer_stubs.session_pb2 import Session
from stigmer_stubs.skill_pb2 import Skill
from tests.ports import free_port
from tests.runners import (
    ENGINE,
    IMAGE_USER,
    WORKSPACE_OWNER,
    CliRunner,
    ContainerRunner,
    until,
)
from tests.stack import (
    MODEL_KEY,
    TEMPORAL,
    WORKER_KEY,
    Proxy,
    Stack,
    answer,
    needs_temporal,
    start_stack,
)
from tests.test_skills import HEADERS, gzipped_header, tarred, zipped
from worker import probe

pytestmark = [
    needs_temporal,
    pytest.mark.asyncio(loop_scope="module"),
]

module = pytest_asyncio.fixture(loop_scope="module", scope="module")


@module
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with one worker, for the tests that do not change it."""
    async with start_stack(tmp_path_factory.mktemp("shared") / "workspace") as stack:
        runner = await stack.runner(TEMPORAL_MAX_CONCURRENCY="60")
        yield stack
        assert await runner.end() == 0
        log = "".join(runner.log)
        for key in (WORKER_KEY, MODEL_KEY, "hunter2", "s3cret-"):
            assert key not in log
        assert "Traceback" not in log


def tool(name: str, **arguments: object) -> str:
    return f"!tool {name} {json.dumps(arguments)}\n"


@pytest.mark.image
async def test_an_execution_writes_a_file(shared: Stack) -> None:
    execution_id = await shared.create("write a haiku into haiku.txt", "haiku")
    returned = await shared.server.workflow(execution_id).result()
    status = await shared.ended(execution_id)
    assert status == returned
    assert answer(status) == "I wrote haiku into haiku.txt."
    text = (shared.sandbox("haiku") / "haiku.txt").read_text()
    assert len(text.splitlines()) == 3
    human, asked, result, _ = status.messages
    assert (human.type, human.content) == (pb.MESSAGE_HUMAN, "write a haiku into haiku.txt")
    assert (asked.type, result.type) == (pb.MESSAGE_AI, pb.MESSAGE_TOOL)
    (call,) = status.tool_calls
    assert (call.name, call.status) == ("write_file", pb.TOOL_CALL_COMPLETED)
    assert call.args["content"] == text
    assert status.started_at <= call.started_at <= call.completed_at <= status.completed_at
    updates = [s for i, s in shared.server.store.updates if i == execution_id]
    assert [s.phase for s in updates[:1]] == [pb.EXECUTION_IN_PROGRESS]
    assert [s.phase for s in updates].count(pb.EXECUTION_COMPLETED) == 1
    assert updates[-1].phase == pb.EXECUTION_COMPLETED


async def test_progress_is_reported_during_an_execution(shared: Stack) -> None:
    message = tool("list_files") + "!sleep 3\n!say done"
    execution_id = await shared.create(message, "progress")
    await until(lambda: len(shared.status(execution_id).tool_calls) == 1)
    assert shared.status(execution_id).phase == pb.EXECUTION_IN_PROGRESS
    await shared.ended(execution_id)
    count = len([1 for i, _ in shared.server.store.updates if i == execution_id])
    assert count <= 6  # throttled


async def test_a_second_execution_continues_the_session(shared: Stack) -> None:
    await shared.run("write blue into color.txt", "second")
    assert "blue" in answer(await shared.run("read color.txt", "second"))
    remembered = answer(await shared.run("what did I ask before?", "second"))
    assert remembered == "You asked before: write blue into color.txt | read color.txt"
    assert answer(await shared.run("what did I ask before?", "other")) == "You asked before: "


def add_agent(stack: Stack, name: str) -> Agent:
    """Add an agent, an instance and a session, all with this id."""
    agent, instance, session = Agent(), AgentInstance(), Session()
    for resource in (agent, instance, session):
        resource.metadata.id = name
        stack.server.store.add(resource)
    agent.spec.instructions = f"You are {name}."
    instance.spec.agent_id = name
    session.spec.agent_instance_id = name
    return agent


async def test_ask_creates_the_session_that_it_names(
    shared: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = shared.server.store.get(Agent, "dev-agent")
    assert agent
    monkeypatch.setattr(agent.metadata, "org", "acme")

    async def ask_in(session: str) -> int:
        return await ask(
            f"127.0.0.1:{shared.server.port}",
            "run: echo works",
            session=session,
            agent="dev-agent",
            model="",
            workspace="/w",
            api_key=WORKER_KEY,
        )

    assert await ask_in("asked") == 0
    session = shared.server.store.get(Session, "asked")
    assert session is not None
    assert session.spec.agent_instance_id == agent.status.default_instance_id
    assert (session.metadata.name, session.metadata.org) == ("asked", "acme")
    (asked,) = (e for e in shared.server.store.executions.values() if e.metadata.org == "acme")
    assert asked.spec.session_id == "asked"
    assert await ask_in("asked") == 0, "the session exists"
    assert await ask_in("") == 0
    out, err = capsys.readouterr()
    assert out.count("works") == 3
    assert err.count(" of session asked\n") == 2


@pytest.mark.image
@pytest.mark.parametrize("pack", [zipped, tarred])
async def test_a_skill_is_installed_and_used(shared: Stack, pack: object) -> None:
    name = f"skilled-{getattr(pack, '__name__', '')}"
    agent = add_agent(shared, name)
    agent.spec.skill_refs.add(slug=name)
    skill = Skill()
    skill.metadata.slug = skill.metadata.name = name
    skill.spec.skill_md = "---\ndescription: Greets people.\n---\nRun greet.sh."
    skill.status.version_hash, skill.status.artifact_storage_key = "abc123", name
    shared.server.store.add(skill)
    script = b"#!/bin/sh\necho greetings from $0\n"
    assert callable(pack)
    shared.server.store.artifacts[name] = pack({"SKILL.md": b"old", "tools/greet.sh": script})

    output = answer(await shared.run(f"use the skill {name}", name))
    assert "Run greet.sh." in output
    system = answer(await shared.run("!say {system}", name))
    assert f"`{name}`: Greets people. (`bin/skills/abc123/SKILL.md`)" in system
    assert system.startswith(f"You are {name}.")
    ran = await shared.run("run: sh bin/skills/abc123/tools/greet.sh", name)
    assert "greetings from bin/skills/abc123/tools/greet.sh" in answer(ran)


def add_agent_with_skill(stack: Stack, name: str, archive: bytes) -> None:
    """Add an agent and its only skill, both with this name."""
    add_agent(stack, name).spec.skill_refs.add(slug=name)
    skill = Skill()
    skill.metadata.slug = skill.metadata.name = name
    skill.status.version_hash, skill.status.artifact_storage_key = name, name
    stack.server.store.add(skill)
    stack.server.store.artifacts[name] = archive


async def test_a_skill_with_a_path_that_leads_out_fails_the_execution(shared: Stack) -> None:
    add_agent_with_skill(shared, "evil", zipped({"../../../../evil": b"x"}))
    status = await shared.run("hello", "evil")
    assert status.phase == pb.EXECUTION_FAILED
    assert status.error == (
        "skill `evil`: the archive contains `../../../../evil`, which leads out of it"
    )


@pytest.mark.image
@pytest.mark.parametrize("header", HEADERS)
async def test_a_skill_that_is_a_bomb_fails_the_execution(shared: Stack, header: str) -> None:
    slug = f"bomb-{list(HEADERS).index(header)}"
    kind, content = HEADERS[header]
    add_agent_with_skill(shared, slug, gzipped_header(kind, 60_000_000, content * 1000))
    status = await shared.run("hello", slug)
    assert status.phase == pb.EXECUTION_FAILED
    assert status.error == f"skill `{slug}`: an entry has a header of more than 128 KiB"


@pytest.mark.image
async def test_variables_of_an_execution_have_no_effect_before_the_walls(shared: Stack) -> None:
    """The dynamic loader uses some variables. With LD_PRELOAD it runs code."""
    folder = shared.sandbox_in_worker("x").parent
    given = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": f"{folder}/trace"}
    status = await shared.run("run: echo =$LD_DEBUG=", "loader", **given)
    assert "=files=" in answer(status)
    assert list(shared.root.glob("trace*")) == []


async def test_other_executions_go_on_while_a_sandbox_is_tidied(shared: Stack) -> None:
    """A worker that is killed while it writes leaves a file. There may be many of them."""
    await shared.run("run: true", "littered")
    partial = shared.root / ".private/thread-littered/partial"
    partial.mkdir(exist_ok=True)
    for n in range(100_000):
        (partial / str(n)).touch()
    created = await shared.create("run: echo tidy", "littered")
    assert answer(await shared.run("run: echo here", "beside")) == "The command says: here\n"
    assert any(partial.iterdir()), "it waited until the sandbox was tidy"
    assert answer(await shared.ended(created, 120)) == "The command says: tidy\n"
    assert list(partial.iterdir()) == []


@pytest.mark.image
async def test_environments_merge_in_order_and_secrets_stay_secret(shared: Stack) -> None:
    agent = add_agent(shared, "env")
    values = {"A": "agent", "B": "agent", "C": "agent", "D": "agent"}
    for name, value in values.items():
        agent.spec.env_spec.data[name].value = value
    instance = shared.server.store.get(AgentInstance, "env")
    assert instance
    for number, names in {"env-1": "BCD", "env-2": "CD"}.items():
        environment = Environment()
        environment.metadata.slug = number
        for name in names:
            environment.spec.data[name].value = number
        environment.spec.data["TOKEN"].value = f"s3cret-{number}"
        environment.spec.data["TOKEN"].is_secret = True
        shared.server.store.add(environment)
        instance.spec.environment_refs.add(slug=number, kind=apiresourcekind_pb2.environment)

    command = "echo $A $B $C $D; echo $TOKEN; env; echo $TOKEN > f; echo s3cret-env-1"
    status = await shared.run(f"run: {command}", "env", **{"D": "run", "MY_SECRET": "hunter2"})
    output = answer(status)
    assert "agent env-1 env-2 run\n[secret TOKEN]\n" in output
    assert "MY_SECRET=[secret MY_SECRET]\n" in output
    assert "STIGMER" not in output
    assert "API_KEY" not in output
    assert output.endswith("\n[secret TOKEN]\n")
    sent = [s.SerializeToString() for _, s in shared.server.store.updates]
    asked = json.dumps([body for _, _, body in shared.model.requests])
    stored = b"".join(p.read_bytes() for p in (shared.root / ".private/thread-env").rglob("*.json"))
    assert stored
    for secret in ("hunter2", "s3cret-env-", WORKER_KEY, MODEL_KEY):
        assert not any(secret.encode() in status for status in sent)
        assert secret not in asked
        assert secret.encode() not in stored
    # The commands themselves get the real values.
    assert (shared.sandbox("env") / "f").read_text() == "s3cret-env-2\n"
    length = answer(await shared.run("run: echo ${#TOKEN}", "env"))
    assert length == "The command says: 12\n"


async def test_without_a_session_the_default_instance_is_used(shared: Stack) -> None:
    agent = add_agent(shared, "alone")
    agent.status.default_instance_id = "alone-instance"
    instance, environment = AgentInstance(), Environment()
    instance.metadata.id = environment.metadata.slug = "alone-instance"
    instance.spec.environment_refs.add(slug="alone-instance")
    environment.spec.data["WHO"].value = "default instance"
    shared.server.store.add(instance)
    shared.server.store.add(environment)
    assert "default instance" in answer(await shared.run("run: echo $WHO", agent="alone"))
    agent.status.default_instance_id = ""
    assert answer(await shared.run("run: echo [$WHO]", agent="alone")) == ("The command says: []\n")


@pytest.mark.image
@pytest.mark.parametrize(
    ("message", "agent", "words"),
    [
        ("!fail 401\n!say x", "dev-agent", "401 scripted failure 401 (is its API key set"),
        ("!fail 404\n!say x", "dev-agent", "404 scripted failure 404"),
        ("x", "nobody", "AgentQueryController/get: NOT_FOUND: there is no 'Agent nobody'"),
        ("x", "", "neither the execution nor its session names an agent"),
    ],
)
async def test_failures_are_reported_in_the_status(
    shared: Stack, message: str, agent: str, words: str
) -> None:
    execution_id = await shared.create(message, agent=agent)
    returned = await shared.server.workflow(execution_id).result()
    status = await shared.ended(execution_id)
    assert status == returned
    assert status.phase == pb.EXECUTION_FAILED
    assert words in status.error
    assert status.completed_at


async def test_temporary_failures_do_not_fail_an_execution(shared: Stack) -> None:
    path = contract.GET_AGENT.path
    shared.server.failing[path] = grpc.StatusCode.UNAVAILABLE
    execution_id = await shared.create("!fail 503 2\n!say at last", "passes")
    await until(lambda: shared.server.calls[path] >= 2)
    del shared.server.failing[path]
    assert answer(await shared.ended(execution_id)) == "at last"


async def test_a_session_chooses_its_sandbox(shared: Stack) -> None:
    add_agent(shared, "chooser")
    session = shared.server.store.get(Session, "chooser")
    assert session
    session.spec.sandbox_id = "chosen"
    await shared.run("write x into a.txt", "chooser")
    assert (shared.root / "chosen/a.txt").read_text() == "x\n"
    session.spec.sandbox_id = "../../out"
    await shared.run("write y into b.txt", "chooser")
    assert (shared.sandbox("chooser") / "b.txt").read_text() == "y\n"


async def test_the_list_of_what_to_do_is_in_the_status(shared: Stack) -> None:
    todos = [{"id": "1", "content": "read it", "status": "in_progress"}]
    later = [
        {"id": "1", "content": "read it", "status": "completed"},
        {"id": "2", "content": "write it", "status": "pending"},
    ]
    message = (
        tool("write_todos", todos=todos)
        + "!sleep 3\n"
        + tool("write_todos", todos=later)
        + "!say ok"
    )
    execution_id = await shared.create(message, "todos")
    await until(lambda: "1" in shared.status(execution_id).todos)
    assert shared.status(execution_id).todos["1"].status == pb.TODO_IN_PROGRESS
    returned = await shared.server.workflow(execution_id).result()
    status = await shared.ended(execution_id)
    assert status == returned
    assert {key: (item.content, item.status) for key, item in status.todos.items()} == {
        "1": ("read it", pb.TODO_COMPLETED),
        "2": ("write it", pb.TODO_PENDING),
    }


@pytest.mark.image
async def test_an_agent_whose_mcp_servers_cannot_be_used_fails_before_the_model_is_asked(
    shared: Stack,
) -> None:
    agent = add_agent(shared, "mcp")
    asked = len(shared.model.requests)
    agent.spec.mcp_servers.add(name="db").docker.image = "postgres-mcp"
    status = await shared.run("hello", "mcp")
    assert status.phase == pb.EXECUTION_FAILED
    assert "the MCP server `db` cannot be used: the runner has no container" in status.error
    assert [m.content for m in status.messages] == ["hello"]
    del agent.spec.mcp_servers[:]
    agent.spec.mcp_servers.add(name="files").stdio.command = "no-such-program"
    agent.spec.mcp_servers.add(name="web").http.url = "http://127.0.0.1:9/mcp"
    status = await shared.run("hello", "mcp")
    assert status.phase == pb.EXECUTION_FAILED
    assert (
        "the MCP server `files` (stdio) cannot be used: the program `no-such-program` cannot be "
        "executed: no-such-program: No such file or directory; the MCP server `web` (http) cannot "
        "be used: it cannot be reached"
    ) in status.error
    assert len(shared.model.requests) == asked


@pytest.mark.image
async def test_a_cancelled_execution_ends_soon(shared: Stack) -> None:
    loop = "while :; do date +%N > clock; sleep 0.05; done"
    execution_id = await shared.create(tool("run_command", command=loop), "cancelled")
    clock = shared.sandbox("cancelled") / "clock"
    await until(clock.exists)
    started = time.monotonic()
    handle = shared.server.workflow(execution_id)
    await handle.cancel()
    returned = await handle.result()
    assert time.monotonic() - started < 25
    status = await shared.ended(execution_id)
    assert status == returned
    assert (status.phase, status.error) == (pb.EXECUTION_CANCELLED, "cancelled")
    assert status.tool_calls[0].status == pb.TOOL_CALL_FAILED
    before = clock.read_text()
    await asyncio.sleep(0.3)
    assert clock.read_text() == before
    assert "You asked before" in answer(await shared.run("what did I ask before?", "cancelled"))


@pytest.mark.image
async def test_a_terminated_workflow_ends_the_run_too(shared: Stack) -> None:
    execution_id = await shared.create(tool("run_command", command="sleep 60"), "terminated")
    await until(lambda: len(shared.status(execution_id).tool_calls) == 1)
    await shared.server.workflow(execution_id).terminate()
    status = await shared.ended(execution_id, 20)
    assert status.phase == pb.EXECUTION_FAILED  # nobody asked for a cancellation
    assert status.error.startswith("Temporal does not wait for this execution any more")


async def test_an_execution_stops_when_the_server_reports_it_as_cancelled(shared: Stack) -> None:
    message = tool("run_command", command="sleep 2") * 30
    execution_id = await shared.create(message, "told")
    await until(lambda: len(shared.status(execution_id).tool_calls) == 1)
    update = shared.server.store.update

    async def stays_cancelled(which: str, status: pb.AgentExecutionStatus) -> pb.AgentExecution:
        if which == execution_id:
            status.phase = pb.EXECUTION_CANCELLED
        return await update(which, status)

    shared.server.store.update = stays_cancelled  # type: ignore[assignment,method-assign]
    try:
        returned = await asyncio.wait_for(shared.server.workflow(execution_id).result(), 10)
    finally:
        shared.server.store.update = update  # type: ignore[method-assign]
    assert returned.phase == pb.EXECUTION_CANCELLED


@pytest.mark.image
async def test_fifty_concurrent_executions_are_separate(
    shared: Stack, record_property: Callable[[str, object], None]
) -> None:
    def message(n: int) -> str:
        return (
            tool("write_file", path="mine.txt", content=f"number {n}")
            + tool("run_command", command='sleep 0.1; cat mine.txt; echo " $WHO $PWD"')
            + "!say {result}"
        )

    started = time.monotonic()
    ids = await asyncio.gather(
        *(shared.create(message(n), f"fifty-{n}", WHO=f"who-{n}") for n in range(50))
    )
    ended = await asyncio.gather(*(shared.ended(i, 60) for i in ids))
    seconds, megabytes = time.monotonic() - started, await shared.runners[0].peak_memory()
    record_property("50 executions at once", f"{seconds:.1f} s, at most {megabytes:.0f} MB")
    assert megabytes < 180
    for n, status in enumerate(ended):
        assert answer(status).split() == [
            "number",
            str(n),
            f"who-{n}",
            str(shared.sandbox_in_worker(f"fifty-{n}")),
        ]
        assert status.messages[0].content == message(n)
    again = await asyncio.gather(
        *(shared.run("what did I ask before?", f"fifty-{n}") for n in range(0, 50, 5))
    )
    for n, status in zip(range(0, 50, 5), again, strict=True):
        assert f'number {n}"' in answer(status)


async def test_executions_of_one_session_run_one_after_another(shared: Stack) -> None:
    command = "test ! -e busy || echo OVERLAP; touch busy; sleep 0.2; rm busy; echo x >> done"
    ended = await asyncio.gather(*(shared.run(f"run: {command}", "queue") for _ in range(5)))
    assert all("OVERLAP" not in answer(status) for status in ended)
    assert (shared.sandbox("queue") / "done").read_text() == "x\n" * 5
    remembered = answer(await shared.run("what did I ask before?", "queue"))
    assert remembered.count("run:") == 5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


async def test_an_execution_ends_before_temporals_timeout(root: Path) -> None:
    async with start_stack(root, RunnerOptions(start_to_close=4)) as stack:
        runner = await stack.runner()
        execution_id = await stack.create(tool("run_command", command="sleep 60"), "slow")
        returned = await stack.server.workflow(execution_id).result()
        assert (await stack.ended(execution_id)) == returned
        assert returned.phase == pb.EXECUTION_FAILED
        assert returned.error == (
            "no more time: stopped after 3 s, because Temporal's time limit is reached"
        )
        assert await runner.end() == 0


async def test_the_time_that_an_execution_waits_for_a_slot_counts(root: Path) -> None:
    async with start_stack(root, RunnerOptions(workflow_run=20)) as stack:
        runner = await stack.runner(TEMPORAL_MAX_CONCURRENCY="1")
        first = await stack.create("run: until test -e go; do sleep 0.1; done", "first")
        await until_file_exists(stack, "first", ".tmp")
        second = await stack.create(tool("run_command", command="sleep 60"), "second")
        await asyncio.sleep(4)
        assert stack.status(second).phase == pb.EXECUTION_PENDING
        (stack.sandbox("first") / "go").touch()
        assert "The command says" in answer(await stack.ended(first))
        status = await stack.ended(second)
        assert status.phase == pb.EXECUTION_FAILED
        assert status.error.startswith("no more time: stopped after ")
        assert await runner.end() == 0


@pytest.mark.image
async def test_a_session_continues_after_a_restart(root: Path) -> None:
    async with start_stack(root) as stack:
        runner = await stack.runner()
        await stack.run("write blue into color.txt", "restarted")
        assert await runner.end() == 0
        await runner.start()
        assert "blue" in answer(await stack.run("read color.txt", "restarted"))
        remembered = answer(await stack.run("what did I ask before?", "restarted"))
        assert remembered == "You asked before: write blue into color.txt | read color.txt"
        assert await runner.end() == 0


async def test_a_workspace_that_cannot_be_used_fails_executions_at_once(root: Path) -> None:
    async with start_stack(root) as stack:
        root.rmdir()
        root.write_text("")
        runner = await stack.runner()
        health = runner.environment["AGENT_RUNNER_HEALTH_FILE"]
        problem = f"the workspace `{root}` cannot be created: `{root}` is not a folder"
        assert probe.check(health) == (False, problem)
        started = time.monotonic()
        execution_id = await stack.create("run: echo works", "broken")
        returned = await stack.server.workflow(execution_id).result()
        assert time.monotonic() - started < 30
        assert (returned.phase, returned.error) == (pb.EXECUTION_FAILED, problem)
        assert await stack.ended(execution_id) == returned
        root.unlink()
        assert "works" in answer(await stack.run("run: echo works", "broken"))
        await until(lambda: probe.check(health)[0])
        await runner.until_logged("the workspace can be used again")
        assert await runner.end() == 0


@pytest.mark.image
@pytest.mark.skipif(not ENGINE, reason="the owner of the workspace matters to a container only")
async def test_a_workspace_of_another_user_can_be_fixed_while_the_worker_runs(root: Path) -> None:
    async with start_stack(root) as stack:
        runner = await stack.runner()
        assert isinstance(runner, ContainerRunner)
        check = ("exec", runner.name, "python", "-I", "-S", "/app/worker/probe.py")
        os.chown(root, 1001, 1002)
        root.chmod(0o755)
        status = await stack.run("run: echo works", "owner")
        assert status.phase == pb.EXECUTION_FAILED
        assert "`/workspace` belongs to uid 1001, and the agent-runner runs as uid 1000" in (
            status.error
        )
        assert "`sudo chown -R 1000:1000 FOLDER`" in status.error
        assert "`docker run --user 1001:1002 …`" in status.error
        await runner.until_logged("executions fail until this is fixed")
        with pytest.raises(AssertionError, match="unhealthy: the workspace `/workspace`"):
            await runner.engine(*check)
        os.chown(root, WORKSPACE_OWNER, WORKSPACE_OWNER)
        assert "works" in answer(await stack.run("run: echo works", "owner"))
        await runner.until_logged("the workspace can be used again")
        assert "healthy" in await runner.engine(*check)
        assert await runner.end() == 0


@pytest.mark.image
@pytest.mark.skipif(not ENGINE, reason="for a container")
async def test_a_container_that_stigmers_cli_starts(root: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    # What `stigmer server` sets, apart from the addresses and the model.
    environment = {"MODE": "local", "SANDBOX_TYPE": "filesystem", "LOG_LEVEL": "DEBUG"}
    ignored = {"TASK_QUEUE": "agent_execution_runner", "WORKSPACE_ROOT": "/workspace"}
    async with start_stack(root) as stack:
        runner = CliRunner(root, stack.variables | environment | ignored)
        stack.runners.append(runner)
        await runner.start()
        for name in ignored:
            assert len([line for line in runner.log if f" {name} (" in line]) == 1, runner.log
        status = await stack.run("run: echo works", "cli")
        assert status.phase == pb.EXECUTION_FAILED
        assert "`/workspace` belongs to uid 1001, and" in status.error
        os.chown(root, IMAGE_USER, IMAGE_USER)  # as the message says
        assert "works" in answer(await stack.run("run: echo works", "cli"))
        restarts = await runner.engine("inspect", "--format", "{{.RestartCount}}", runner.name)
        assert restarts == "0\n"
        await runner.engine("stop", runner.name)
        assert await runner.process.wait() == 0


async def until_file_exists(stack: Stack, session: str, path: str = "started") -> None:
    await until((stack.sandbox(session) / path).exists)


@pytest.mark.image
@pytest.mark.parametrize(("grace", "finishes"), [("8", True), ("0.5", False)])
async def test_a_stopped_worker_drains(root: Path, grace: str, finishes: bool) -> None:
    async with start_stack(root) as stack:
        runner = await stack.runner(SHUTDOWN_GRACE_SECONDS=grace)
        seconds = 2 if finishes else 60
        command = f"touch started; sleep {seconds}; echo finished"
        execution_id = await stack.create(f"run: {command}", "drain")
        await until_file_exists(stack, "drain")
        asked = time.monotonic()
        assert await runner.end() == 0
        returned = await stack.server.workflow(execution_id).result()
        assert (await stack.ended(execution_id)) == returned
        if finishes:
            assert answer(returned) == "The command says: finished\n"
        else:
            assert time.monotonic() - asked < 30
            assert returned.phase == pb.EXECUTION_FAILED
            assert returned.error == "the agent-runner was stopped before the agent had finished"


@pytest.mark.image
async def test_a_killed_worker_loses_no_file(root: Path) -> None:
    async with start_stack(root, RunnerOptions(heartbeat=3)) as stack:
        runner = await stack.runner()
        size = 1_000_000
        await stack.run("write before into before.txt", "killed")
        message = "".join(
            tool("write_file", path="big.txt", content=f"{{{n % 10}*{size}}}") for n in range(60)
        )
        execution_id = await stack.create(message, "killed")
        await until_file_exists(stack, "killed", "big.txt")
        await asyncio.sleep(0.3)
        assert await runner.end(signal.SIGKILL) == -signal.SIGKILL

        with pytest.raises(WorkflowFailureError):
            await stack.server.workflow(execution_id).result()
        status = await stack.ended(execution_id)
        assert status.phase == pb.EXECUTION_FAILED
        assert "eartbeat" in status.error
        data = (stack.sandbox("killed") / "big.txt").read_bytes()
        assert len(data) == size
        assert len(set(data)) == 1
        # Another worker continues after the last step that was complete.
        runner = await stack.runner()
        assert "before" in answer(await stack.run("read before.txt", "killed"))
        remembered = answer(await stack.run("what did I ask before?", "killed"))
        assert remembered.startswith("You asked before: write before into before.txt | ")
        assert list((stack.root / ".private/thread-killed/partial").iterdir()) == []
        assert await runner.end() == 0


@pytest.mark.image
async def test_an_execution_survives_an_outage_of_the_server(root: Path) -> None:
    async with start_stack(root) as stack:
        proxy = Proxy(f"127.0.0.1:{stack.server.port}")
        await proxy.start()
        runner = await stack.runner(STIGMER_BACKEND_ENDPOINT=f"127.0.0.1:{proxy.port}")
        execution_id = await stack.create("run: touch started; sleep 1; echo still here", "away")
        await until_file_exists(stack, "away")
        await proxy.stop()
        await runner.until_logged("the server gets no updates")
        await asyncio.sleep(1)
        assert stack.status(execution_id).phase == pb.EXECUTION_IN_PROGRESS
        await proxy.start()
        assert answer(await stack.ended(execution_id)) == "The command says: still here\n"
        assert await stack.server.workflow(execution_id).result() == stack.status(execution_id)
        assert await runner.end() == 0
        await proxy.stop()


@pytest.mark.image
async def test_an_execution_survives_an_outage_of_temporal(root: Path) -> None:
    async with start_stack(root) as stack:
        proxy = Proxy(TEMPORAL)
        await proxy.start()
        runner = await stack.runner(TEMPORAL_SERVICE_ADDRESS=f"127.0.0.1:{proxy.port}")
        execution_id = await stack.create("run: touch started; sleep 2; echo still here", "away")
        await until_file_exists(stack, "away")
        await proxy.stop()
        status = await stack.ended(execution_id)
        assert answer(status) == "The command says: still here\n"
        await proxy.start()
        assert await asyncio.wait_for(stack.server.workflow(execution_id).result(), 40) == status
        assert "again" in answer(await stack.run("run: echo again", "away"))
        assert await runner.end() == 0
        await proxy.stop()


@pytest.mark.image
async def test_the_worker_hides_its_environment(root: Path) -> None:
    async with start_stack(root) as stack:
        runner = await stack.runner()
        file = Path(f"/proc/{await runner.pid()}/environ")
        if isinstance(runner, ContainerRunner):
            # `exec` runs as the same user, but is not confined as the agents' commands are.
            with pytest.raises(AssertionError, match="Permission denied"):
                await runner.engine("exec", runner.name, "cat", str(file))
        else:
            assert file.stat().st_uid == 0
            if os.getuid() != 0:
                with pytest.raises(PermissionError):
                    file.read_bytes()
        for hidden in (file, "/proc/1/environ"):  # the init has the same environment
            status = await stack.run(f"run: wc -c {hidden} || echo refused", "environ")
            assert "refused" in answer(status)
        assert await runner.end() == 0


async def test_the_command_line_of_the_devserver(root: Path) -> None:
    """Run `python -m devserver`, `health` and `ask` as processes, with a worker."""
    queue = f"test-{uuid.uuid4().hex}"

    async def devserver(*words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "devserver", *words),
            cwd=Path(__file__).parent.parent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run_devserver(*words: str) -> tuple[int | None, str, str]:
        process = await devserver(*words)
        out, err = await asyncio.wait_for(process.communicate(), 30)
        return process.returncode, out.decode(), err.decode()

    port, model_port = free_port(), free_port()
    health = f"http://127.0.0.1:{model_port}/health"
    assert (await run_devserver("health", "--url", health))[0] == 1
    queues = ("--task-queue", f"{queue}-workflows", "--runner-task-queue", queue)
    ports = ("--port", str(port), "--model-port", str(model_port))
    serving = await devserver(*ports, *queues, "--temporal", TEMPORAL)
    try:
        async with asyncio.timeout(20):
            while (await run_devserver("health", "--url", health))[0]:
                pass
        here = Stack(root, DevServer(Options(port=port)), ModelServer(), queue)
        url = f"http://127.0.0.1:{model_port}/v1"
        runner = await here.runner(STIGMER_LLM_BASE_URL=url)
        server = ("--server", f"127.0.0.1:{port}", "--session", "s")
        code, out, err = await run_devserver("ask", *server, "write a haiku into haiku.txt")
        assert (code, out) == (0, "I wrote haiku into haiku.txt.\n")
        assert "  write_file: completed\n" in err
        assert "file: haiku.txt\n" in err
        assert (root / "thread-s/haiku.txt").exists()
        code, out, err = await run_devserver("ask", *server, "!fail 400\n!say x")
        assert (code, out) == (EXECUTION_FAILED, "")
        assert "EXECUTION_FAILED: openai at" in err
        assert await runner.end() == 0
    finally:
        serving.terminate()
        assert await asyncio.wait_for(serving.wait(), 10) == 0

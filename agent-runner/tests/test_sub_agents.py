"""Tests sub-agents: their limits with the scripted model, and executions with a real Temporal."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from devserver.model import ModelServer
from graphton.agent import Agent, Consumption, LimitError, Outcome, RunLimits
from graphton.chat import Reply, Text, ToolUse
from graphton.model import ModelConfig, Provider
from graphton.providers import connect
from graphton.subagents import SubAgent, SubAgentTool
from graphton.tools import Tool, ToolArguments
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs.agent_pb2 import Agent as AgentResource
from stigmer_stubs.skill_pb2 import Skill
from tests.runners import until
from tests.stack import Stack, answer, needs_temporal, start_stack
from tests.test_executions import add_agent, tool
from tests.test_graphton import RecordingObserver


class RecordingSubAgent(RecordingObserver):
    """An observer that records the end too."""

    def ended(self, output: str, error: str) -> None:
        self.lines.append(f"ended {output!r} {error!r}")


class Nothing(ToolArguments):
    """No arguments."""


async def nothing(_: Nothing) -> str:
    return "nothing"


async def broken(_: Nothing) -> str:
    raise RuntimeError


TOOLS = [
    Tool(name="nothing", description="Does nothing.", arguments=Nothing, run=nothing),
    Tool(name="broken", description="Has a bug.", arguments=Nothing, run=broken),
]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    server = ModelServer()
    server.start()
    yield server
    server.stop()


def task(prompt: str, agent: str = "helper") -> str:
    return f"!tool task {json.dumps({'agent': agent, 'prompt': prompt})}\n"


async def run(
    server: ModelServer, request: str, limits: RunLimits
) -> tuple[Outcome | LimitError, list[str], list[str]]:
    """Run an agent with a sub-agent. Returns its end and the lines of both observers."""
    model = ModelConfig.resolve(
        Provider.OPENAI, model="scripted", base_url=f"{server.url}/v1", api_key="k-1"
    )
    chat = connect(model)
    consumed, seen, sub_agent = Consumption(), RecordingObserver(), RecordingSubAgent()
    sub_agents = SubAgentTool(
        model=chat,
        agents=[SubAgent(name="helper", description="Helps.", system="You help.")],
        tools=TOOLS,
        limits=limits,
        consumed=consumed,
        observe=lambda _name, _task: sub_agent,
    )
    agent = Agent(
        chat,
        system="You are a test.",
        tools=[*TOOLS, sub_agents.tool],
        limits=limits,
        consumed=consumed,
    )
    end: Outcome | LimitError
    try:
        end = await agent.run([], request, seen, lambda _: None)
    except LimitError as error:
        end = error
    finally:
        await chat.close()
    return end, seen.lines, sub_agent.lines


async def test_what_sub_agents_consume_counts(server: ModelServer) -> None:
    request = task("!tool nothing {}\n!say {system} {result}") + "!say {result}!"
    end, _, lines = await run(server, request, RunLimits())
    assert isinstance(end, Outcome)
    assert (end.text, end.rounds) == ("You help. nothing!", 4)
    assert (end.usage.input_tokens, end.usage.output_tokens) == (40, 20)
    assert lines[-1] == "ended 'You help. nothing' ''"


async def test_a_sub_agent_leaves_rounds_for_the_agent(server: ModelServer) -> None:
    request = task("!tool nothing {}\n" * 50) + "!say {result}"
    end, _, lines = await run(server, request, RunLimits(rounds=11))
    assert isinstance(end, Outcome)
    assert "`helper` failed: stopped after 5 rounds" in end.text
    assert end.rounds == 1 + 5 + 1
    assert lines[-1] == "ended '' 'stopped after 5 rounds without a final answer'"


async def test_a_sub_agent_leaves_tokens_for_the_agent(server: ModelServer) -> None:
    request = task("!tool nothing {}\n" * 50) + "!say {result}"
    end, _, _ = await run(server, request, RunLimits(tokens=215))
    assert isinstance(end, Outcome)
    assert "stopped after 105 tokens: the limit is 100" in end.text
    assert end.usage.total == 15 + 105 + 15


async def test_many_sub_agents_do_not_exceed_the_limits(server: ModelServer) -> None:
    request = task("!tool nothing {}\n" * 50) * 50
    end, seen, _ = await run(server, request, RunLimits(rounds=20))
    assert isinstance(end, LimitError)
    assert str(end) == "stopped after 20 rounds without a final answer"
    assert any("too little is left of the limits" in line for line in seen)


async def test_a_bug_in_a_tool_is_seen_by_the_sub_agent(server: ModelServer) -> None:
    end, _, _ = await run(
        server, task("!tool broken {}\n!say {result}") + "!say {result}", RunLimits()
    )
    assert isinstance(end, Outcome)
    assert end.text == "the tool failed: RuntimeError"


async def test_an_unknown_sub_agent_is_named(server: ModelServer) -> None:
    end, _, lines = await run(server, task("x", agent="nobody") + "!say {result}", RunLimits())
    assert isinstance(end, Outcome)
    assert end.text == "there is no sub-agent `nobody`; there are: helper"
    assert not lines


def test_the_model_is_told_the_names() -> None:
    sub_agents = SubAgentTool(
        model=BrokenModel(),
        agents=[SubAgent(name="helper", description="Helps.", system="You help.")],
        tools=[],
        limits=RunLimits(),
        consumed=Consumption(),
        observe=lambda _name, _task: RecordingSubAgent(),
    )
    agent = sub_agents.tool.schema["properties"]["agent"]
    assert agent == {"type": "string", "enum": ["helper"]}
    assert "- `helper`: Helps." in sub_agents.tool.description


class BrokenModel:
    """A model that asks for a sub-agent, and then has a bug."""

    identity = "broken"

    def __init__(self) -> None:
        use = ToolUse("c1", "task", {"agent": "helper", "prompt": "x"})
        self._replies = [Reply((use,)), None, Reply((Text("done"),))]

    async def context_tokens(self) -> int:
        return 100_000

    async def reply(self, *_: object) -> Reply:
        reply = self._replies.pop(0)
        if reply is None:
            raise RuntimeError
        return reply

    async def close(self) -> None:
        pass


async def test_a_bug_ends_the_sub_agent_and_not_the_run() -> None:
    model, seen = BrokenModel(), RecordingSubAgent()
    sub_agents = SubAgentTool(
        model=model,
        agents=[SubAgent(name="helper", description="", system="You help.")],
        tools=[],
        limits=RunLimits(),
        consumed=Consumption(),
        observe=lambda _name, _task: seen,
    )
    agent = Agent(model, system="You are a test.", tools=[sub_agents.tool], limits=RunLimits())
    outcome = await agent.run([], "go", RecordingObserver(), lambda _: None)
    assert outcome.text == "done"
    assert seen.lines == ["ended '' 'the sub-agent failed: RuntimeError'"]


@pytest_asyncio.fixture
async def shared(tmp_path: Path) -> AsyncIterator[Stack]:
    async with start_stack(tmp_path / "workspace") as stack:
        await stack.runner()
        yield stack


def add_sub_agents(stack: Stack, agent_name: str) -> None:
    """Add an agent with two sub-agents."""
    agent = add_agent(stack, agent_name)
    agent.spec.sub_agents.add(
        name="writer", description="Writes files.", instructions="You are a writer."
    )
    agent.spec.sub_agents.add(name="reader", instructions="You are a reader.")


@needs_temporal
async def test_a_sub_agent_works_in_the_same_sandbox(shared: Stack) -> None:
    add_sub_agents(shared, "delegating")
    command = 'printf %s "$A_SECRET" > a.txt; cat a.txt'
    task = tool("run_command", command=command) + "!say {system} It is {result}"
    message = tool("task", agent="writer", prompt=task) + tool("list_files") + "!say ok"
    execution_id = await shared.create(message, "delegating", A_SECRET="hunter2")  # noqa: S106
    returned = await shared.server.workflow(execution_id).result()
    status = await shared.ended(execution_id)
    assert status == returned
    assert answer(status) == "ok"
    assert (shared.sandbox("delegating") / "a.txt").read_text() == "hunter2"
    (run,) = status.sub_agent_executions
    assert (run.name, run.status, run.error) == ("writer", pb.SUB_AGENT_COMPLETED, "")
    assert run.input == task.strip()
    assert run.output.startswith("You are a writer.")
    assert run.output.endswith("It is [secret A_SECRET]")
    assert "You are delegating" not in run.output
    assert status.started_at <= run.started_at <= run.completed_at <= status.completed_at
    call, listing = status.tool_calls
    assert (call.name, listing.name) == ("task", "list_files"), "only those of the agent itself"
    assert call.result == run.output
    metadata = dict(run.metadata.items())
    assert metadata.pop("tool_call_id") == call.id
    assert metadata == {"rounds": 2, "tool_calls": 1, "tokens": 30}
    assert "hunter2" not in str(status)


@needs_temporal
async def test_the_failure_of_a_sub_agent_is_an_error_of_the_tool(shared: Stack) -> None:
    add_sub_agents(shared, "failing-sub-agent")
    message = tool("task", agent="reader", prompt="!fail 400\n!say no") + "!say It was: {result}"
    status = await shared.run(message, "failing-sub-agent")
    assert answer(status).startswith("It was: the sub-agent `reader` failed: ")
    (run,) = status.sub_agent_executions
    assert (run.status, run.output) == (pb.SUB_AGENT_FAILED, "")
    assert "400" in run.error
    assert run.completed_at
    assert status.tool_calls[0].status == pb.TOOL_CALL_FAILED


@needs_temporal
async def test_a_sub_agent_has_no_sub_agents(shared: Stack) -> None:
    add_sub_agents(shared, "nested")
    inner = tool("task", agent="reader", prompt="!say never") + "!say {result}"
    status = await shared.run(
        tool("task", agent="writer", prompt=inner) + "!say {result}", "nested"
    )
    assert answer(status).startswith("there is no tool `task`; there are: read_file")
    assert [run.name for run in status.sub_agent_executions] == ["writer"]


@needs_temporal
async def test_a_sub_agent_ends_with_the_execution(shared: Stack) -> None:
    add_sub_agents(shared, "cancelled-sub-agent")
    loop = "while :; do date +%N > clock; sleep 0.05; done"
    message = tool("task", agent="writer", prompt=tool("run_command", command=loop))
    execution_id = await shared.create(message, "cancelled-sub-agent")
    clock = shared.sandbox("cancelled-sub-agent") / "clock"
    await until(clock.exists)
    await until(lambda: len(shared.status(execution_id).sub_agent_executions) == 1, 5)
    assert shared.status(execution_id).sub_agent_executions[0].status == pb.SUB_AGENT_IN_PROGRESS
    handle = shared.server.workflow(execution_id)
    await handle.cancel()
    status = await handle.result()
    assert status.phase == pb.EXECUTION_CANCELLED
    (run,) = status.sub_agent_executions
    assert (run.status, run.error) == (
        pb.SUB_AGENT_FAILED,
        "the execution ended before this sub-agent finished",
    )
    assert run.completed_at
    before = clock.read_text()
    await asyncio.sleep(0.3)
    assert clock.read_text() == before


@needs_temporal
async def test_a_sub_agent_has_skills_of_its_own(shared: Stack) -> None:
    add_sub_agents(shared, "skilled")
    agent = shared.server.store.get(AgentResource, "skilled")
    skill = Skill()
    skill.metadata.id = skill.metadata.slug = "knitting"
    skill.spec.skill_md = "# Knitting\n"
    shared.server.store.add(skill)
    assert agent
    agent.spec.sub_agents[0].skill_refs.add(slug="knitting")
    prompt = "!say {system}"
    status = await shared.run(
        tool("task", agent="writer", prompt=prompt) + tool("task", agent="reader", prompt=prompt),
        "skilled",
    )
    writer, reader = status.sub_agent_executions
    assert "`knitting`" in writer.output
    assert "`knitting`" not in reader.output

"""Tests the limits of sub-agents, with the scripted model."""

import json
from collections.abc import Iterator

import pytest

from devserver.model import ModelServer
from graphton.agent import Agent, Consumption, LimitError, Limits, Outcome
from graphton.model import ModelConfig, Provider
from graphton.providers import connect
from graphton.subagents import SubAgent, SubAgentTool
from graphton.tools import Tool, ToolArguments
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
    server: ModelServer, request: str, limits: Limits
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
    end, _, lines = await run(server, request, Limits())
    assert isinstance(end, Outcome)
    assert (end.text, end.rounds) == ("You help. nothing!", 4)
    assert (end.usage.input_tokens, end.usage.output_tokens) == (40, 20)
    assert lines[-1] == "ended 'You help. nothing' ''"


async def test_a_sub_agent_leaves_rounds_for_the_agent(server: ModelServer) -> None:
    request = task("!tool nothing {}\n" * 50) + "!say {result}"
    end, _, lines = await run(server, request, Limits(rounds=11))
    assert isinstance(end, Outcome)
    assert "`helper` failed: stopped after 5 rounds" in end.text
    assert end.rounds == 1 + 5 + 1
    assert lines[-1] == "ended '' 'stopped after 5 rounds without a final answer'"


async def test_a_sub_agent_leaves_tokens_for_the_agent(server: ModelServer) -> None:
    request = task("!tool nothing {}\n" * 50) + "!say {result}"
    end, _, _ = await run(server, request, Limits(tokens=215))
    assert isinstance(end, Outcome)
    assert "stopped after 105 tokens: the limit is 100" in end.text
    assert end.usage.total == 15 + 105 + 15


async def test_many_sub_agents_do_not_exceed_the_limits(server: ModelServer) -> None:
    request = task("!tool nothing {}\n" * 50) * 50
    end, seen, _ = await run(server, request, Limits(rounds=20))
    assert isinstance(end, LimitError)
    assert str(end) == "stopped after 20 rounds without a final answer"
    assert any("too little is left of the limits" in line for line in seen)


async def test_a_bug_in_a_tool_is_seen_by_the_sub_agent(server: ModelServer) -> None:
    end, _, _ = await run(
        server, task("!tool broken {}\n!say {result}") + "!say {result}", Limits()
    )
    assert isinstance(end, Outcome)
    assert end.text == "the tool failed: RuntimeError"


async def test_an_unknown_sub_agent_is_named(server: ModelServer) -> None:
    end, _, lines = await run(server, task("x", agent="nobody") + "!say {result}", Limits())
    assert isinstance(end, Outcome)
    assert "wrong arguments for task: agent: Input should be 'helper'" in end.text
    assert not lines

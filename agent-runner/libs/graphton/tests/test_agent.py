"""Tests what a model is told by an agent, with a model in place of a service."""

import contextlib
from collections.abc import Callable, Sequence

import pytest

from graphton.agent import Agent, LimitError, RunLimits
from graphton.chat import Message, ModelError, Reasoning, Reply, Role, Text, ToolUse, Usage
from graphton.model_client import ModelClient
from graphton.tools import Tool

BOUND, FREE = Reasoning({"signature": "s"}, bound=True), Reasoning({"reasoning_content": "r"})
STATE = {"extra_content": {"x": "y"}}


class FakeModel:
    """Answers with given replies or errors, and records what it was told."""

    def __init__(
        self, *replies: Reply | ModelError, identity: str = "m", context: int = 100_000
    ) -> None:
        self._replies = list(replies)
        self.told: list[list[Message]] = []
        self.identity = identity
        self._context = context

    async def context_tokens(self) -> int:
        return self._context

    async def reply(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        on_text: Callable[[str], None],
    ) -> Reply:
        self.told.append(list(messages))
        reply = self._replies.pop(0)
        if isinstance(reply, ModelError):
            raise reply
        return reply

    async def close(self) -> None:
        pass


class Quiet:
    """An observer that does nothing."""

    def text_received(self, text: str) -> None: ...
    def reply_received(self, reply: Reply) -> None: ...
    def retrying(self, error: ModelError, pause: float) -> None: ...
    def tool_started(self, use: ToolUse) -> None: ...
    def tool_finished(self, use: ToolUse, result: str, failed: bool) -> None: ...


async def run(
    model: FakeModel,
    history: Sequence[Message] = (),
    *,
    system: str = "Be brief.",
    redact: Callable[[str], str] = str,
    request: str = "go",
) -> list[Message]:
    """Run an agent, and return the conversation that it stored last."""
    stored: list[Message] = []

    def save(messages: Sequence[Message]) -> None:
        stored[:] = messages

    agent = Agent(model, system=system, tools=[], limits=RunLimits(), redact=redact)
    with contextlib.suppress(ModelError):
        await agent.run(history, request, Quiet(), save)
    return stored


def turns(count: int, answer: str, request: str = "request") -> list[Message]:
    """A conversation of some turns."""
    return [
        message
        for number in range(count)
        for message in (
            Message.user(f"{request} {number}"),
            Message(role=Role.ASSISTANT, parts=(Text(answer),)),
        )
    ]


def answer(*parts: Text | Reasoning | ToolUse) -> Reply:
    return Reply((*parts, Text("done", STATE)))


async def test_state_is_sent_back_to_the_model_that_wrote_it() -> None:
    first = answer(BOUND, FREE)
    stored = await run(FakeModel(first))
    model = FakeModel(answer())
    await run(model, stored)
    assert model.told[0][1].parts == first.parts


async def test_another_model_gets_the_texts_only() -> None:
    use = ToolUse("c1", "t", {}, "", STATE)
    stored = await run(FakeModel(Reply((BOUND, FREE, Text("a"), use)), answer()))
    model = FakeModel(answer(), identity="other")
    await run(model, stored)
    assert model.told[0][1].parts == (Text("a"), ToolUse("c1", "t", {}))
    assert model.told[0][3].parts == (Text("done"),)
    back = FakeModel(answer())
    await run(back, stored)
    assert back.told[0][1].parts == (BOUND, FREE, Text("a"), use), "it was not lost"


async def test_bound_reasoning_is_not_sent_with_other_instructions() -> None:
    stored = await run(FakeModel(answer(BOUND, FREE)))
    model = FakeModel(answer())
    await run(model, stored, system="Be thorough.")
    assert model.told[0][1].parts == (FREE, Text("done", STATE))


async def test_reasoning_after_a_redacted_text_is_dropped() -> None:
    before, after = Reasoning({"n": 1}, bound=True), Reasoning({"n": 2}, bound=True)
    reply = Reply((before, Text("it is hunter2"), after, FREE, Text("!")))
    stored = await run(FakeModel(reply), redact=lambda text: text.replace("hunter2", "[P]"))
    assert stored[1].parts == (before, Text("it is [P]"), FREE, Text("!"))


async def test_state_that_cannot_be_stored_is_dropped() -> None:
    bad = {"x": "\ud800"}
    use = ToolUse("c1", "t", {"a": "\ud800"}, "", bad)
    stored = await run(FakeModel(Reply((Reasoning(bad), Text("\ud800", bad), use)), answer()))
    assert stored[1].parts == (Text("?"), ToolUse("c1", "t", {"a": "?"}))


async def test_a_failed_request_forgets_nothing() -> None:
    history = turns(50, "a" * 5000)
    refused = ModelError("bad request", status=400)
    stored = await run(FakeModel(refused, context=8000), history)
    assert stored == [*history, Message.user("go")]


async def test_it_is_told_less_if_it_says_that_it_was_too_much() -> None:
    history = turns(20, "a" * 4000)
    too_long = ModelError("too long", status=400, too_long=True)
    model = FakeModel(too_long, too_long, answer())
    await run(model, history)
    lengths = [sum(len(m.text) for m in told) for told in model.told]
    assert lengths[0] > lengths[1] * 1.3 > lengths[2] * 1.6
    assert model.told[-1][-1].text == "go"
    assert model.told[-1][0].shown_text.startswith("[")


async def test_it_learns_how_many_tokens_texts_have() -> None:
    """Four bytes are a token in English, but not in every language."""
    model = FakeModel(Reply((Text("a"),), Usage(input_tokens=40_000)), answer(), context=40_000)
    client = ModelClient(
        model, "x", [], on_text=lambda _: None, on_retry=lambda _error, _pause: None
    )
    messages = [*turns(10, "ö" * 2000, "ü" * 2000), Message.user("go")]
    _, told = await client.ask(messages)
    assert told == messages
    _, told = await client.ask(messages)
    assert len(told) < len(messages)


@pytest.mark.parametrize("cached", [0, 900])
async def test_ten_tokens_from_a_cache_count_as_one(cached: int) -> None:
    reply = Reply((ToolUse("1", "nothing", {}),), Usage(1000, 10, cached))
    model = FakeModel(reply, answer())
    agent = Agent(model, system="x", tools=[], limits=RunLimits(tokens=201))
    running = agent.run([], "go", Quiet(), lambda _: None)
    if cached:
        assert reply.usage.charged == 200
        assert (await running).text == "done"
    else:
        with pytest.raises(LimitError, match="stopped after 1010 tokens: the limit is 201"):
            await running


async def test_an_empty_answer_is_asked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphton.model_client.FIRST_RETRY_SECONDS", 0.01)
    model = FakeModel(Reply((BOUND, Text(" \n"))), answer())
    assert (await run(model))[-1].text == "done"
    model = FakeModel(Reply(()), Reply(()), answer())
    agent = Agent(model, system="x", tools=[], limits=RunLimits())
    with pytest.raises(ModelError, match=r"sent an empty answer.*asked 2 times"):
        await agent.run([], "go", Quiet(), lambda _: None)

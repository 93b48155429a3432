"""Plays exchanges in the services' documented form, and validates them with the official SDKs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import ollama
import pytest
from anthropic.types import ErrorResponse, RawMessageStreamEvent
from anthropic.types import Message as ClaudeMessage
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from ollama._types import ChatRequest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import BaseModel, TypeAdapter
from typing_extensions import get_type_hints

from graphton.agent import Agent, LimitError, RunLimits
from graphton.chat import ModelError
from graphton.files import Folder
from graphton.memory import ThreadMemory
from graphton.model import Effort, ModelConfig, Provider
from graphton.providers import connect
from graphton.providers import ollama as our_ollama
from graphton.tools import SandboxTools
from tests.player import NAMES, Cassette, Player, differences
from tests.test_graphton import RecordingObserver

PATHS = {
    "/v1/responses": ResponseCreateParamsStreaming,
    "/v1/chat/completions": CompletionCreateParamsStreaming,
    "/v1/messages": MessageCreateParamsStreaming,
    "/api/chat": ChatRequest,
}

EVENTS: Mapping[str, Any] = {
    "responses": ResponseStreamEvent,
    "chat": ChatCompletionChunk,
    "claude": RawMessageStreamEvent,
    "ollama": ollama.ChatResponse,
}

BODIES: Mapping[str, Any] = {
    "responses": Response,
    "chat": ChatCompletion,
    "claude": ClaudeMessage,
    "claude-error": ErrorResponse,
    "ollama-show": ollama.ShowResponse,
    "ollama-ps": ollama.ProcessResponse,
    "ollama-generate": ollama.GenerateResponse,
}


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def validate(kind: Any, value: Any) -> None:
    """Validate a value, also the items of iterables, which pydantic does not do at once."""
    consume(adapter(kind).validate_python(value))


def consume(value: Any) -> None:
    match value:
        case str() | bytes() | BaseModel():
            return
        case Mapping():
            for item in value.values():
                consume(item)
        case _ if hasattr(value, "__iter__"):
            for item in value:
                consume(item)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphton.model_client.FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(our_ollama, "_server_contexts", {})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "box/.tmp").mkdir(parents=True)
    with Folder(tmp_path / "box") as folder:
        yield folder


def configure(cassette: Cassette, url: str, monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    config = dict(cassette.config)
    provider = Provider(config.pop("provider"))
    url += "/v1" if provider is Provider.OPENAI else ""
    if config.pop("own"):
        monkeypatch.setattr(Provider, "default_base_url", url)
    if "effort" in config:
        config["effort"] = Effort(config["effort"])
    return replace(ModelConfig.resolve(provider, base_url=url, api_key="k"), **config)


async def play(model: ModelConfig, request: str, folder: Folder) -> dict[str, Any]:
    """Run an agent, and return what became of it, in the form of a cassette's outcome."""
    chat, observer = connect(model), RecordingObserver()
    memory = ThreadMemory(folder, "t")
    agent = Agent(chat, system="Be brief.", tools=SandboxTools(folder).all, limits=RunLimits())
    result: dict[str, Any]
    try:
        outcome = await agent.run(memory.load(), request, observer, memory.save)
        result = {"text": outcome.text, "cached_tokens": outcome.usage.cached_tokens}
    except (ModelError, LimitError) as error:
        result = {"error": str(error)}
    finally:
        await chat.close()
    result["retries"] = sum(line.startswith("retrying") for line in observer.lines)
    return result


@pytest.mark.parametrize("name", NAMES)
async def test_exchanges(name: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    cassette = Cassette.load(name)
    with Player(cassette) as player:
        model = configure(cassette, player.url, monkeypatch)
        result = await play(model, cassette.request, folder)
    wanted = cassette.outcome
    if "error" in wanted:
        assert wanted["error"] in result.get("error", ""), result
    else:
        assert result.get("text") == wanted["text"], result
        assert result["cached_tokens"] == wanted.get("cached_tokens", result["cached_tokens"])
    assert result["retries"] == wanted.get("retries", 0)
    assert [path for path, _ in player.requests] == [
        exchange["request"]["path"] for exchange in cassette.exchanges
    ]
    sent = list(zip(cassette.exchanges, player.requests, strict=True))
    for exchange, (_, body) in sent:
        assert differences(exchange["request"]["contains"], body) == []
        assert not set(exchange["request"].get("absent", ())) & set(body or ())
    if wanted.get("shorter"):
        (_, (_, first)), *_, (_, (_, last)) = sent
        assert len(str(last)) < len(str(first)) * 0.8


@pytest.mark.parametrize("name", NAMES)
def test_responses_have_the_form_of_the_sdks_types(name: str) -> None:
    for exchange in Cassette.load(name).exchanges:
        response = exchange["response"]
        form = response["form"]
        assert "body" in response or form in EVENTS
        if "body" in response:
            if form == "error":  # the SDKs have no type for it
                body = response["body"]
                assert "error" in (body[0] if isinstance(body, list) else body)
            else:
                validate(BODIES[form], response["body"])
        for event in response.get("events", ()):
            if event.get("error") or event.get("type") == "ping":
                continue  # documented, but the SDKs handle them before they use types
            validate(EVENTS[form], event)


@pytest.mark.parametrize("name", NAMES)
async def test_requests_have_the_form_of_the_sdks_types(
    name: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cassette = Cassette.load(name)
    with Player(cassette) as player:
        await play(configure(cassette, player.url, monkeypatch), cassette.request, folder)
    for path, body in player.requests:
        if kind := PATHS.get(path):
            validate(kind, body)
            known = kind.model_fields if issubclass(kind, BaseModel) else get_type_hints(kind)
            # Anthropic's SDK has no `temperature` any more; older models still accept it.
            assert set(body) <= {*known, *(["temperature"] if path == "/v1/messages" else [])}


def test_a_wrong_request_does_not_have_the_form() -> None:
    """The validation can fail: also inside of lists, which pydantic reads late."""
    wrong: list[tuple[Any, dict[str, Any]]] = [
        (ResponseCreateParamsStreaming, {"stream": True, "model": "m", "input": [{"type": "x"}]}),
        (
            MessageCreateParamsStreaming,
            {"stream": True, "model": "m", "max_tokens": 5, "messages": [{"role": "user"}]},
        ),
        (
            CompletionCreateParamsStreaming,
            {"stream": True, "model": "m", "messages": [{"role": "tool", "content": "x"}]},
        ),
    ]
    for kind, body in wrong:
        with pytest.raises(ValueError, match="validation error"):
            validate(kind, body)

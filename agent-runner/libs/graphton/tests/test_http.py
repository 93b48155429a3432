"""Tests the HTTP client for models with servers that misbehave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from graphton.chat import ModelError
from graphton.model import ModelConfig, Provider
from graphton.model_client import ModelClient
from graphton.providers import connect
from graphton.providers.errors import ServiceError


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ("retry-after: 7", 7),
        ("retry-after: 0.5", 0.5),
        ("retry-after: -1", 0),
        ("retry-after: Wed, 21 Oct 2026 07:28:30 GMT\r\ndate: Wed, 21 Oct 2026 07:28:00 GMT", 30),
        ("retry-after: Wed, 21 Oct 2026 07:27:00 GMT\r\ndate: Wed, 21 Oct 2026 07:28:00 GMT", 0),
        ("retry-after: Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("retry-after: soon", None),
        ("retry-after: Wed, 99 Oct 2026 07:28:30 GMT", None),
        ("x: y", None),
    ],
)
async def test_when_a_service_asks_to_come_back(
    monkeypatch: pytest.MonkeyPatch, headers: str, seconds: float | None
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        start = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-length: 0\r\n"
        writer.write(f"{start}{headers}\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        model = connect(ModelConfig.resolve(Provider.ANTHROPIC, base_url=url))
        with pytest.raises(ModelError) as caught:
            await model.reply("x", [], [], lambda _: None)
        await model.close()
    assert (caught.value.status, caught.value.retry_after) == (429, seconds)


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, list[str]]]:
    """A server that accepts requests for a reply and does not answer them."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode()
        if "/api/show" in line:
            writer.write(
                b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
        else:
            seen.append(line)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.drain()
            if "/api/show" not in line:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()


@pytest.mark.parametrize(
    ("provider", "local", "asked"),
    [
        (Provider.OLLAMA, True, 1),
        (Provider.OLLAMA, False, 1),
        (Provider.OPENAI, True, 1),
        (Provider.OPENAI, False, 2),
        (Provider.ANTHROPIC, False, 2),
    ],
)
async def test_silence_is_not_answered_with_the_same_question(
    monkeypatch: pytest.MonkeyPatch, provider: Provider, local: bool, asked: int
) -> None:
    monkeypatch.setattr("graphton.providers.http.is_this_machine", lambda _: local)
    monkeypatch.setattr("graphton.providers.http.READ_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr("graphton.providers.http.SLOW_READ_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr("graphton.model_client.FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setenv("NO_PROXY", "*")
    async with silent_server() as (url, seen):
        model = connect(ModelConfig.resolve(provider, base_url=url))
        client = ModelClient(
            model, "x", [], on_text=lambda _: None, on_retry=lambda _error, _pause: None
        )
        with pytest.raises(ModelError, match="did not respond for 0 s") as caught:
            await client.ask([])
        await model.close()
    assert len(seen) == asked
    slow = "use a smaller or faster model, or lower STIGMER_LLM_CONTEXT_TOKENS"
    assert (slow in str(caught.value)) is (asked == 1)


@pytest.mark.parametrize(
    ("body", "text", "transient", "too_long"),
    [
        ('{"error": {"message": "busy", "type": "overloaded_error"}}', "busy", True, False),
        ('{"error": {"message": "no", "type": "authentication_error"}}', "no", False, False),
        ('{"error": {"message": "no", "code": 402}}', "no", False, False),
        ('{"error": {"message": "later", "code": 429}}', "later", True, False),
        ('{"error": "the runner has stopped"}', "the runner has stopped", True, False),
        ('[{"error": {"message": "bad", "status": "INVALID_ARGUMENT", "code": 400}}]', "bad",
         False, False),
        ('{"error": {"message": "x", "code": "context_length_exceeded"}}', "x", False, True),
        ('{"error": {"message": "maximum context length is 8"}}', "maximum context length is 8",
         False, True),
        ('{"error": {"message": "too many tokens in a minute", "code": "rate_limit_exceeded"}}',
         "too many tokens in a minute", True, False),
        ("<html>Bad Gateway</html>", "", True, False),
        ('{"detail": "x"}', "x", True, False),
        ("null", "None", True, False),
    ],
)  # fmt: skip
def test_errors_as_services_describe_them(
    body: str, text: str, transient: bool, too_long: bool
) -> None:
    problem = ServiceError.parse(body)
    assert (problem.text, problem.is_transient, problem.is_too_long) == (text, transient, too_long)

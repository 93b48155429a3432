"""OpenAI's Chat Completions API, which many other services offer too."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from graphton.chat import Message, ModelError, Reply, Role, ToolUse, Usage
from graphton.model import ModelConfig, Provider
from graphton.providers.http import ModelHttpClient, ModelResponse
from graphton.text import compact_json
from graphton.tools import Tool


class OpenAIChat:
    """A client for `POST {base_url}/chat/completions`."""

    def __init__(self, config: ModelConfig) -> None:
        headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._config = config
        self._client = ModelHttpClient(config, headers)
        self._path = "/chat/completions"
        self._url_has_no_path = urlsplit(config.base_url).path == ""

    async def reply(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        on_text: Callable[[str], None],
    ) -> Reply:
        """See ChatModel."""
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": [{"role": "system", "content": system}, *map(_encode_message, messages)],
            "tools": function_tools(tools),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._config.max_tokens is not None:
            # OpenAI's newer models refuse `max_tokens`; most other services know nothing else.
            own = self._config.provider is Provider.OPENAI and self._config.uses_default_url
            body["max_completion_tokens" if own else "max_tokens"] = self._config.max_tokens
        if self._config.temperature is not None:
            body["temperature"] = self._config.temperature
        try:
            return await self._ask(body, on_text)
        except ModelError as error:
            if error.status != 404 or not self._url_has_no_path:
                raise
        # The `/v1` at the end of a URL is easily forgotten.
        self._path, self._url_has_no_path = "/v1/chat/completions", False
        return await self._ask(body, on_text)

    async def _ask(self, body: dict[str, Any], on_text: Callable[[str], None]) -> Reply:
        async with self._client.post(self._path, body) as response:
            return await (
                _read_stream(response, on_text) if response.is_stream else _read_reply(response)
            )

    async def close(self) -> None:
        """See ChatModel."""
        await self._client.close()


def function_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Encode tools for OpenAI and Ollama."""
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": t.schema},
        }
        for t in tools
    ]


def _encode_message(message: Message) -> dict[str, Any]:
    match message.role:
        case Role.TOOL:
            return {
                "role": "tool",
                "tool_call_id": message.tool_use_id,
                "content": message.text,
            }
        case Role.ASSISTANT if message.tool_uses:
            calls = [
                {
                    "id": use.id,
                    "type": "function",
                    "function": {"name": use.name, "arguments": compact_json(use.arguments)},
                }
                for use in message.tool_uses
            ]
            return {"role": "assistant", "content": message.text or None, "tool_calls": calls}
    return {"role": message.role.value, "content": message.text}


def _read_usage(value: dict[str, Any] | None) -> Usage:
    value = value or {}
    return Usage(int(value.get("prompt_tokens") or 0), int(value.get("completion_tokens") or 0))


async def _read_reply(response: ModelResponse) -> Reply:
    value = await response.read_object()
    choice = (value.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    uses = [
        ToolUse.parse(
            str(call.get("id") or f"call_{number}"),
            str(call["function"]["name"]),
            str(call["function"].get("arguments") or ""),
        )
        for number, call in enumerate(message.get("tool_calls") or [])
    ]
    return Reply(
        str(message.get("content") or ""),
        tuple(uses),
        _read_usage(value.get("usage")),
        truncated=choice.get("finish_reason") == "length",
    )


async def _read_stream(response: ModelResponse, on_text: Callable[[str], None]) -> Reply:
    text, usage, reason = "", Usage(), None
    calls: dict[int, dict[str, str]] = {}
    async for event in response.events():
        if event.get("usage"):
            usage = _read_usage(event["usage"])
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {}
            reason = choice.get("finish_reason") or reason
            if delta.get("content"):
                text += delta["content"]
                on_text(text)
            for part in delta.get("tool_calls") or []:
                index = part.get("index")
                if index is None:  # some services omit it; a part with an id begins the next call
                    index = len(calls) - (0 if part.get("id") or not calls else 1)
                call = calls.setdefault(int(index), {"id": "", "name": "", "arguments": ""})
                function = part.get("function") or {}
                call["id"] = part.get("id") or call["id"]
                call["name"] = function.get("name") or call["name"]
                call["arguments"] += function.get("arguments") or ""
    if reason is None and not response.end_seen:
        raise response.incomplete_error()
    uses = [
        ToolUse.parse(call["id"] or f"call_{number}", call["name"], call["arguments"])
        for number, call in sorted(calls.items())
    ]
    return Reply(text, tuple(uses), usage, truncated=reason == "length")

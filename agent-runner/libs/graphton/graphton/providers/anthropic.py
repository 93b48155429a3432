"""Anthropic's Messages API."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from graphton.chat import Message, Reply, Role, ToolUse, Usage
from graphton.model import ModelConfig
from graphton.providers.http import ModelHttpClient, ModelResponse
from graphton.text import compact_json
from graphton.tools import Tool

MAX_OUTPUT_TOKENS: Final = 8192
"""The default maximum length of a reply. The API requires one; all current models support this."""

_API_VERSION: Final = "2023-06-01"


class AnthropicChat:
    """A client for `POST {base_url}/v1/messages`."""

    def __init__(self, config: ModelConfig) -> None:
        headers = {"anthropic-version": _API_VERSION}
        if config.api_key:
            headers["x-api-key"] = config.api_key
        self._path = "/messages" if config.base_url.endswith("/v1") else "/v1/messages"
        self._config = config
        self._client = ModelHttpClient(config, headers)

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
            "max_tokens": self._config.max_tokens or MAX_OUTPUT_TOKENS,
            "system": system,
            "messages": _encode_messages(messages),
            "tools": [
                {"name": t.name, "description": t.description, "input_schema": t.schema}
                for t in tools
            ],
            "stream": True,
        }
        if self._config.temperature is not None:
            body["temperature"] = self._config.temperature
        async with self._client.post(self._path, body) as response:
            return await (
                _read_stream(response, on_text) if response.is_stream else _read_reply(response)
            )

    async def close(self) -> None:
        """See ChatModel."""
        await self._client.close()


def _encode_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Encode messages so that the roles alternate, as the API requires.

    Results of tools are part of the user's messages.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = _encode_blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _encode_blocks(message: Message) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        block = {
            "type": "tool_result",
            "tool_use_id": message.tool_use_id,
            "content": message.text,
            "is_error": message.failed,
        }
        return [block]
    # The API refuses an empty text.
    blocks: list[dict[str, Any]] = []
    if message.text.strip():
        blocks.append({"type": "text", "text": message.text})
    blocks += [
        {"type": "tool_use", "id": use.id, "name": use.name, "input": use.arguments}
        for use in message.tool_uses
    ]
    return blocks


async def _read_reply(response: ModelResponse) -> Reply:
    value = await response.read_object()
    blocks = value.get("content") or []
    uses = [
        ToolUse(str(b["id"]), str(b["name"]), dict(b.get("input") or {}))
        for b in blocks
        if b.get("type") == "tool_use"
    ]
    return Reply(
        "".join(str(b.get("text") or "") for b in blocks if b.get("type") == "text"),
        tuple(uses),
        _read_usage(value.get("usage") or {}),
        truncated=value.get("stop_reason") == "max_tokens",
    )


def _read_usage(value: dict[str, Any]) -> Usage:
    cached = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return Usage(
        sum(int(value.get(name) or 0) for name in cached), int(value.get("output_tokens") or 0)
    )


async def _read_stream(response: ModelResponse, on_text: Callable[[str], None]) -> Reply:
    text, reason, stopped = "", None, False
    usage: dict[str, Any] = {}
    uses: dict[int, dict[str, str]] = {}
    async for event in response.events():
        match event.get("type"):
            case "message_start":
                usage |= (event.get("message") or {}).get("usage") or {}
            case "content_block_start":
                block = event.get("content_block") or {}
                if block.get("type") == "tool_use":
                    given = block.get("input")
                    uses[int(event["index"])] = {
                        "id": str(block["id"]),
                        "name": str(block["name"]),
                        "start": compact_json(given) if given else "",
                        "json": "",
                    }
                elif block.get("text"):
                    text += block["text"]
            case "content_block_delta":
                delta = event.get("delta") or {}
                if delta.get("type") == "text_delta":
                    text += delta.get("text") or ""
                    on_text(text)
                elif delta.get("type") == "input_json_delta":
                    uses[int(event["index"])]["json"] += delta.get("partial_json") or ""
            case "message_delta":
                reason = (event.get("delta") or {}).get("stop_reason") or reason
                usage |= event.get("usage") or {}
            case "message_stop":
                stopped = True
    if not stopped and reason is None:
        raise response.incomplete_error()
    return Reply(
        text,
        tuple(
            ToolUse.parse(use["id"], use["name"], use["json"] or use["start"])
            for _, use in sorted(uses.items())
        ),
        _read_usage(usage),
        truncated=reason == "max_tokens",
    )

"""Anthropic's messages."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from graphton.chat import Message, Reply, Role, ToolUse, Usage
from graphton.model import ModelConfig
from graphton.providers.http import Answer, Service
from graphton.tools import Tool, as_json

MAX_OUTPUT_TOKENS: Final = 8192
"""The longest reply. The API wants to be told; all its current models can do this."""

_VERSION: Final = "2023-06-01"


class AnthropicChat:
    """A model behind `POST {base_url}/v1/messages`."""

    def __init__(self, config: ModelConfig) -> None:
        headers = {"anthropic-version": _VERSION}
        if config.api_key:
            headers["x-api-key"] = config.api_key
        self._path = "/messages" if config.base_url.endswith("/v1") else "/v1/messages"
        self._model = config.model
        self._service = Service(config, headers)

    async def reply(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        on_text: Callable[[str], None],
    ) -> Reply:
        """See ChatModel."""
        body = {
            "model": self._model,
            "max_tokens": MAX_OUTPUT_TOKENS,
            "system": system,
            "messages": _messages(messages),
            "tools": [
                {"name": t.name, "description": t.description, "input_schema": t.schema}
                for t in tools
            ],
            "stream": True,
        }
        async with self._service.post(self._path, body) as answer:
            return await (_stream(answer, on_text) if answer.streams else _whole(answer))

    async def close(self) -> None:
        """See ChatModel."""
        await self._service.close()


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """User and assistant in turn, as the API wants them; results are the user's."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        block = {
            "type": "tool_result",
            "tool_use_id": message.tool_use_id,
            "content": message.text,
            "is_error": message.failed,
        }
        return [block]
    # An empty text is refused.
    blocks: list[dict[str, Any]] = []
    if message.text.strip():
        blocks.append({"type": "text", "text": message.text})
    blocks += [
        {"type": "tool_use", "id": use.id, "name": use.name, "input": use.arguments}
        for use in message.tool_uses
    ]
    return blocks


async def _whole(answer: Answer) -> Reply:
    value = await answer.whole()
    blocks = value.get("content") or []
    uses = [
        ToolUse(str(b["id"]), str(b["name"]), dict(b.get("input") or {}))
        for b in blocks
        if b.get("type") == "tool_use"
    ]
    return Reply(
        "".join(str(b.get("text") or "") for b in blocks if b.get("type") == "text"),
        tuple(uses),
        _usage(value.get("usage") or {}),
        cut_off=value.get("stop_reason") == "max_tokens",
    )


def _usage(value: dict[str, Any]) -> Usage:
    cached = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return Usage(
        sum(int(value.get(name) or 0) for name in cached), int(value.get("output_tokens") or 0)
    )


async def _stream(answer: Answer, on_text: Callable[[str], None]) -> Reply:
    text, reason, stopped = "", None, False
    usage: dict[str, Any] = {}
    uses: dict[int, dict[str, str]] = {}
    async for event in answer.events():
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
                        "start": as_json(given) if given else "",
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
        raise answer.broken_off()
    return Reply(
        text,
        tuple(
            ToolUse.parse(use["id"], use["name"], use["json"] or use["start"])
            for _, use in sorted(uses.items())
        ),
        _usage(usage),
        cut_off=reason == "max_tokens",
    )

"""Anthropic's Messages API."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from graphton.chat import Message, Omission, Part, Reasoning, Reply, Role, Text, ToolUse, Usage
from graphton.model import ModelConfig
from graphton.providers.base import HttpChat
from graphton.providers.fields import OptionalFields
from graphton.providers.http import ModelResponse
from graphton.providers.ids import safe_id
from graphton.tools import Tool

MAX_OUTPUT_TOKENS: Final = 32_000
"""The default maximum length of a reply, with the thinking. The API requires one. All models that
are not retired support this."""

DEFAULT_CONTEXT_TOKENS: Final = 200_000
"""The context of a model if none is configured. All current models have at least this."""

_API_VERSION: Final = "2023-06-01"

_CACHE: Final = {"type": "ephemeral"}
"""Marks the end of what the service caches for five minutes. Reading it costs a tenth or less."""

_THINKING: Final = frozenset({"thinking", "redacted_thinking"})

_OPTIONAL_FIELDS: Final = {"temperature": ""}  # newer models refuse it


class AnthropicChat(HttpChat):
    """A client for `POST {base_url}/v1/messages`.

    Whether a model thinks is its own default. The newer ones think always, and how much depends on
    `effort`.
    """

    def __init__(self, config: ModelConfig) -> None:
        headers = {"anthropic-version": _API_VERSION}
        if config.api_key:
            headers["x-api-key"] = config.api_key
        self._path = "/messages" if config.base_url.endswith("/v1") else "/v1/messages"
        super().__init__(config, headers)
        self._fields = OptionalFields(_OPTIONAL_FIELDS)

    async def context_tokens(self) -> int:
        """See ChatModel."""
        return self._config.context_tokens or DEFAULT_CONTEXT_TOKENS

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
            "system": _with_cache([{"type": "text", "text": system}]),
            "messages": _encode_messages(messages),
            "tools": _with_cache(
                [
                    {"name": t.name, "description": t.description, "input_schema": t.schema}
                    for t in tools
                ]
            ),
            "stream": True,
        }
        if self._config.temperature is not None:
            body["temperature"] = self._config.temperature
        if self._config.effort:
            body["output_config"] = {"effort": self._config.effort}
        return await self._fields.send(body, lambda sent: self._ask(sent, on_text))

    async def _ask(self, body: dict[str, Any], on_text: Callable[[str], None]) -> Reply:
        async with self._client.post(self._path, body) as response:
            return await (
                _read_stream(response, on_text) if response.is_stream else _read_reply(response)
            )


def _with_cache(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same blocks, of which the last one is marked as the end of what can be cached."""
    return [*blocks[:-1], {**blocks[-1], "cache_control": _CACHE}] if blocks else blocks


def _encode_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Encode messages so that the roles alternate, as the API requires.

    Results of tools are part of the user's messages. The last two of these are marked for the
    cache, so that the next request only pays for what is new: the service looks for what it has no
    more than 20 blocks before a mark, and a reply can ask for more tools than that.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = _encode_blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    for turn in [turn for turn in turns if turn["role"] == "user"][-2:]:
        turn["content"] = _with_cache(turn["content"])
    return turns


def _encode_blocks(message: Message) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        return [
            {
                "type": "tool_result",
                "tool_use_id": safe_id(message.tool_use_id),
                "content": message.text,
                "is_error": message.failed,
            }
        ]
    blocks = [block for part in message.parts if (block := _encode_part(part))]
    if message.role is Role.USER:
        return blocks or [{"type": "text", "text": "(an empty message)"}]
    while blocks and blocks[-1]["type"] in _THINKING:
        blocks.pop()  # the API refuses thinking at the end of a message
    return blocks


def _encode_part(part: Part) -> dict[str, Any] | None:
    match part:
        case Reasoning(data):
            return data
        case ToolUse(use_id, name, arguments):
            return {"type": "tool_use", "id": safe_id(use_id), "name": name, "input": arguments}
        case Omission():
            return {"type": "text", "text": part.text}
    if not part.text.strip():  # the API refuses an empty text
        return None
    return {"type": "text", "text": part.text}


async def _read_reply(response: ModelResponse) -> Reply:
    value = await response.read_object()
    blocks = [_Block(block) for block in value.get("content") or []]
    return _decode(blocks, value, value.get("usage") or {}, response)


async def _read_stream(response: ModelResponse, on_text: Callable[[str], None]) -> Reply:
    text, stopped = "", False
    end: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    blocks: dict[int, _Block] = {}
    async for event in response.events():
        match event.get("type"):
            case "message_start":
                usage |= (event.get("message") or {}).get("usage") or {}
            case "content_block_start":
                blocks[int(event["index"])] = _Block(event.get("content_block") or {})
            case "content_block_delta":
                if added := blocks[int(event["index"])].add(event.get("delta") or {}):
                    text += added
                    on_text(text)
            case "message_delta":
                end |= {k: v for k, v in (event.get("delta") or {}).items() if v is not None}
                usage |= {k: v for k, v in (event.get("usage") or {}).items() if v is not None}
            case "message_stop":
                stopped = True
    if not stopped and not end.get("stop_reason"):
        raise response.incomplete_error()
    return _decode([block for _, block in sorted(blocks.items())], end, usage, response)


class _Block:
    """A content block, as far as it has been read."""

    def __init__(self, start: dict[str, Any]) -> None:
        self._start = start
        self._added: dict[str, list[str]] = {}

    def add(self, delta: dict[str, Any]) -> str:
        """Add a part. Returns it if it is text for the user."""
        for name in ("text", "thinking", "signature", "partial_json"):
            if added := delta.get(name):
                self._added.setdefault(name, []).append(str(added))
        return str(delta.get("text") or "")

    def _whole(self, name: str) -> str:
        return str(self._start.get(name) or "") + "".join(self._added.get(name, []))

    @property
    def part(self) -> Part | None:
        """The block as a part of a message; None if the agent has no use for it."""
        match self._start.get("type"):
            case "text":
                return Text(self._whole("text"))
            case "tool_use":
                whole = json.dumps(self._start.get("input") or {})  # if it is not streamed
                arguments = self._whole("partial_json") or whole
                return ToolUse.parse(str(self._start["id"]), str(self._start["name"]), arguments)
            case kind if kind in _THINKING:
                added = {name: self._whole(name) for name in self._added}
                return Reasoning(self._start | added, bound=True)
        return None


def _decode(
    blocks: Sequence[_Block], end: dict[str, Any], usage: dict[str, Any], response: ModelResponse
) -> Reply:
    reason = end.get("stop_reason")
    if reason == "refusal":
        raise response.refusal_error(str((end.get("stop_details") or {}).get("explanation") or ""))
    if reason == "model_context_window_exceeded":
        raise response.too_long_error()
    parts = [part for block in blocks if (part := block.part)]
    return Reply(tuple(parts), _read_usage(usage), truncated=reason == "max_tokens")


def _read_usage(value: dict[str, Any]) -> Usage:
    cached = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return Usage(
        sum(int(value.get(name) or 0) for name in cached),
        int(value.get("output_tokens") or 0),
        int(value.get("cache_read_input_tokens") or 0),
    )

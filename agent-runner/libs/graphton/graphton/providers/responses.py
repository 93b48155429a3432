"""OpenAI's Responses API. With tools, OpenAI's newer models reason only here.

Nothing is stored at OpenAI: each request has the whole conversation, with the reasoning that the
model wrote, which OpenAI encrypts.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from graphton.chat import Message, Part, Reasoning, Reply, Role, Text, ToolUse, Usage
from graphton.model import ModelConfig
from graphton.providers.base import HttpChat, bearer
from graphton.providers.fields import OptionalFields
from graphton.providers.http import ModelResponse
from graphton.providers.ids import safe_id
from graphton.providers.openai import DEFAULT_CONTEXT_TOKENS
from graphton.text import compact_json
from graphton.tools import Tool

_OPTIONAL_FIELDS: Final = {
    "temperature": "",  # models that reason refuse it
    "include": "",  # models that do not reason refuse it
}

_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


class OpenAIResponses(HttpChat):
    """A client for `POST {base_url}/responses`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, bearer(config))
        self._fields = OptionalFields(_OPTIONAL_FIELDS)
        # The `/v1` at the end of a URL is easily forgotten.
        self._path = "/responses" if urlsplit(config.base_url).path else "/v1/responses"

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
            "instructions": system,
            "input": [item for message in messages for item in _encode_message(message)],
            "tools": [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.schema,
                    "strict": False,  # a strict schema cannot have optional arguments
                }
                for tool in tools
            ],
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "stream": True,
        }
        if self._config.max_tokens is not None:
            body["max_output_tokens"] = self._config.max_tokens
        if self._config.temperature is not None:
            body["temperature"] = self._config.temperature
        if self._config.effort:
            body["reasoning"] = {"effort": self._config.effort}
        return await self._fields.send(body, lambda sent: self._ask(sent, on_text))

    async def _ask(self, body: dict[str, Any], on_text: Callable[[str], None]) -> Reply:
        async with self._client.post(self._path, body) as response:
            if response.is_stream:
                return await _read_stream(response, on_text)
            return _decode(await response.read_object(), response)


def _encode_message(message: Message) -> list[dict[str, Any]]:
    match message.role:
        case Role.TOOL:
            call_id = safe_id(message.tool_use_id)
            output = {"type": "function_call_output", "call_id": call_id, "output": message.text}
            return [output]
        case Role.ASSISTANT:
            items = [_encode_part(part) for part in message.parts]
            while items and items[-1]["type"] == "reasoning":
                items.pop()  # OpenAI refuses reasoning without the item that it led to
            return items
    return [{"type": "message", "role": "user", "content": message.shown_text}]


def _encode_part(part: Part) -> dict[str, Any]:
    match part:
        case Reasoning(data):
            return data
        case ToolUse(use_id, name, arguments):
            return {
                "type": "function_call",
                "call_id": safe_id(use_id),
                "name": name,
                "arguments": compact_json(arguments),
            }
    data = part.data if isinstance(part, Text) else {}
    return {**data, "type": "message", "role": "assistant", "content": part.text}


async def _read_stream(response: ModelResponse, on_text: Callable[[str], None]) -> Reply:
    text = ""
    items: dict[int, dict[str, Any]] = {}
    async for event in response.events():
        kind = event.get("type")
        if kind == "response.output_text.delta":
            text += event.get("delta") or ""
            on_text(text)
        elif kind == "response.output_item.done":
            items[int(event["output_index"])] = event["item"]
        elif kind in _TERMINAL:
            whole = event["response"]
            finished = [item for _, item in sorted(items.items())]
            return _decode({**whole, "output": whole.get("output") or finished}, response)
    raise response.incomplete_error()


def _decode(value: dict[str, Any], response: ModelResponse) -> Reply:
    if value.get("status") == "failed":
        raise response.reported_error(value)
    reason = (value.get("incomplete_details") or {}).get("reason")
    if reason == "content_filter":
        raise response.filtered_error()
    parts = [part for item in value.get("output") or [] for part in _decode_item(item, response)]
    used = value.get("usage") or {}
    details = used.get("input_tokens_details") or {}
    usage = Usage(
        int(used.get("input_tokens") or 0),
        int(used.get("output_tokens") or 0),
        int(details.get("cached_tokens") or 0),
    )
    return Reply(tuple(parts), usage, truncated=value.get("status") == "incomplete")


def _decode_item(item: dict[str, Any], response: ModelResponse) -> list[Part]:
    match item.get("type"):
        case "reasoning":
            return [Reasoning(item, bound=True)]
        case "function_call":
            return [ToolUse.parse(item["call_id"], item["name"], item.get("arguments") or "")]
        case "message":
            contents = item.get("content") or []
            refusals = [c.get("refusal") or "" for c in contents if c.get("type") == "refusal"]
            if refusals:
                raise response.refusal_error(" ".join(refusals))
            text = "".join(c.get("text") or "" for c in contents)
            phase = item.get("phase")
            return [Text(text, {"phase": phase} if phase else {})]
    return []

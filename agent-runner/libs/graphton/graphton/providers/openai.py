"""OpenAI's Chat Completions API, which many other services offer too.

Some of them send state that they want back with the next request, or refuse it: Gemini its
`thought_signature`, DeepSeek its `reasoning_content`, OpenRouter its `reasoning_details`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from graphton.chat import (
    Message,
    ModelError,
    Part,
    Reasoning,
    Reply,
    Role,
    Text,
    ToolUse,
    Usage,
)
from graphton.model import ModelConfig
from graphton.providers.base import HttpChat, bearer
from graphton.providers.fields import OptionalFields
from graphton.providers.http import ModelResponse
from graphton.providers.text_calls import find_text_calls
from graphton.text import compact_json
from graphton.tools import Tool

DEFAULT_CONTEXT_TOKENS: Final = 128_000
"""The context of a model if none is configured. Most models have at least this."""

_OPTIONAL_FIELDS: Final = {
    # Newer models know only the new name; most other services know only the old one.
    "max_tokens": "max_completion_tokens",
    "stream_options": "",
    "temperature": "",
}

_STATE_FIELDS: Final = ("reasoning_content", "reasoning_details", "extra_content")
"""Fields of a message that are sent back unchanged, also if they are empty."""

_FILLERS: Final[Mapping[str, dict[str, Any]]] = {
    "reasoning_content": {"reasoning_content": ""},
    # https://ai.google.dev/gemini-api/docs/thought-signatures
    "thought_signature": {
        "extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}
    },
}
"""What takes the place of state that a service misses: in messages that another model wrote, or
that an earlier version of the runner stored."""

_FILTERED: Final = frozenset(
    {"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"}
)
"""Reasons to stop that are no success. All but the first are Gemini's."""


class OpenAIChat(HttpChat):
    """A client for `POST {base_url}/chat/completions`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, bearer(config))
        self._fields = OptionalFields(_OPTIONAL_FIELDS)
        self._filled: set[str] = set()
        self._path = "/chat/completions"
        self._url_has_no_path = urlsplit(config.base_url).path == ""

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
        while True:
            try:
                body = self._encode(system, messages, tools)
                reply = await self._fields.send(body, lambda sent: self._ask(sent, on_text))
            except ModelError as error:
                if not self._adapt(error):
                    raise
            else:
                within_text = self._client.is_slow  # a server of the user's own, such as vLLM
                return find_text_calls(reply, [t.name for t in tools], within_text=within_text)

    def _encode(
        self, system: str, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> dict[str, Any]:
        encoded = [_encode_message(message, self._filled) for message in messages]
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": [{"role": "system", "content": system}, *encoded],
            "tools": function_tools(tools),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._config.max_tokens is not None:
            body["max_tokens"] = self._config.max_tokens
        if self._config.temperature is not None:
            body["temperature"] = self._config.temperature
        if self._config.effort:
            body["reasoning_effort"] = self._config.effort
        return body

    def _adapt(self, error: ModelError) -> bool:
        """Learn from an error what the service expects. Returns whether it was something new."""
        if error.status == 404 and self._url_has_no_path:
            # The `/v1` at the end of a URL is easily forgotten.
            self._path, self._url_has_no_path = "/v1/chat/completions", False
            return True
        missing = {name for name in _FILLERS if error.status == 400 and name in str(error)}
        if missing <= self._filled:
            return False
        self._filled |= missing
        return True

    async def _ask(self, body: dict[str, Any], on_text: Callable[[str], None]) -> Reply:
        async with self._client.post(self._path, body) as response:
            return await (
                _read_stream(response, on_text) if response.is_stream else _read_reply(response)
            )


def function_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Encode tools for OpenAI and Ollama."""
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": t.schema},
        }
        for t in tools
    ]


def _encode_message(message: Message, filled: Collection[str]) -> dict[str, Any]:
    match message.role:
        case Role.TOOL:
            return {
                "role": "tool",
                "tool_call_id": message.tool_use_id,
                "content": message.text,
            }
        case Role.ASSISTANT:
            filler = _FILLERS["thought_signature"] if "thought_signature" in filled else {}
            calls = [
                {
                    **filler,
                    **use.data,
                    "id": use.id,
                    "type": "function",
                    "function": {"name": use.name, "arguments": compact_json(use.arguments)},
                }
                for use in message.tool_uses
            ]
            encoded: dict[str, Any] = {"role": "assistant", "content": message.text}
            if "reasoning_content" in filled:
                encoded |= _FILLERS["reasoning_content"]
            if calls:
                encoded |= {"content": message.text or None, "tool_calls": calls}
            for part in message.parts:
                if isinstance(part, Reasoning):
                    encoded |= part.data
            return encoded
    return {"role": "user", "content": message.shown_text}


def _read_usage(value: dict[str, Any] | None) -> Usage:
    value = value or {}
    details = value.get("prompt_tokens_details") or {}
    return Usage(
        int(value.get("prompt_tokens") or 0),
        int(value.get("completion_tokens") or 0),
        int(details.get("cached_tokens") or value.get("prompt_cache_hit_tokens") or 0),
    )


@dataclass
class _Choice:
    """The message of a reply, as far as it has been read."""

    text: str = ""
    refusal: str = ""
    reason: str | None = None
    state: dict[str, Any] = field(default_factory=dict)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, message: dict[str, Any]) -> None:
        """Add a message or a part of one."""
        self.text += message.get("content") or ""
        self.refusal += message.get("refusal") or ""
        for name in _STATE_FIELDS:
            if (value := message.get(name)) is not None:
                self.state[name] = _joined(self.state.get(name), value)
        for part in message.get("tool_calls") or []:
            self._add_call(part)

    def _add_call(self, part: dict[str, Any]) -> None:
        index = part.get("index")
        if index is None:  # some services omit it; a part with an id begins the next call
            index = len(self.calls) - (0 if part.get("id") or not self.calls else 1)
        empty = {"id": "", "name": "", "arguments": "", "state": {}}
        call = self.calls.setdefault(int(index), empty)
        function = part.get("function") or {}
        call["id"] = part.get("id") or call["id"]
        call["name"] = function.get("name") or call["name"]
        arguments = function.get("arguments") or ""
        call["arguments"] += arguments if isinstance(arguments, str) else compact_json(arguments)
        for name in _STATE_FIELDS:
            if (value := part.get(name)) is not None:
                call["state"][name] = _joined(call["state"].get(name), value)

    def reply(self, response: ModelResponse, usage: Usage) -> Reply:
        """The whole reply.

        Raises:
            ModelError: if the model did not finish it as it should.
        """
        reason = (self.reason or "").lower()
        if self.refusal:
            raise response.refusal_error(self.refusal)
        if reason in _FILTERED:
            raise response.filtered_error()
        if reason == "error":
            raise response.incomplete_error()
        parts: list[Part] = [Reasoning(self.state)] if self.state else []
        if self.text:
            parts.append(Text(self.text))
        parts += [
            ToolUse.parse(
                str(call["id"] or f"call_{number}"),
                str(call["name"]),
                call["arguments"],
                call["state"],
            )
            for number, call in sorted(self.calls.items())
        ]
        return Reply(tuple(parts), usage, truncated=reason in {"length", "max_tokens"})


def _joined(before: Any, value: Any) -> Any:
    """Add a part of a value from a stream to what came before."""
    match before, value:
        case str(), str():
            return before + value
        case list(), list():
            return [*before, *value]
        case dict(), dict():
            return before | value
    return value


async def _read_reply(response: ModelResponse) -> Reply:
    value = await response.read_object()
    found = (value.get("choices") or [{}])[0]
    choice = _Choice(reason=found.get("finish_reason"))
    message = found.get("message") or {}
    calls = [
        {**call, "index": number, "function": call["function"]}
        for number, call in enumerate(message.get("tool_calls") or [])
    ]
    choice.add({**message, "tool_calls": calls})
    return choice.reply(response, _read_usage(value.get("usage")))


async def _read_stream(response: ModelResponse, on_text: Callable[[str], None]) -> Reply:
    choice, usage = _Choice(), Usage()
    async for event in response.events():
        if event.get("usage"):
            usage = _read_usage(event["usage"])
        for found in event.get("choices") or []:
            choice.reason = found.get("finish_reason") or choice.reason
            delta = found.get("delta") or {}
            choice.add(delta)
            if delta.get("content"):
                on_text(choice.text)
    if choice.reason is None and not response.end_seen:
        raise response.incomplete_error()
    return choice.reply(response, usage)

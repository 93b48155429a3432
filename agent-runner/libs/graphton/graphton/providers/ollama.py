"""Ollama's own chat API. Its OpenAI-compatible API cannot set the length of the context."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from graphton.chat import Message, ModelError, Reply, Role, ToolUse, Usage
from graphton.model import ModelConfig
from graphton.providers.http import ModelHttpClient
from graphton.providers.openai import OpenAIChat, function_tools
from graphton.tools import Tool

CONTEXT_TOKENS: Final = 16_384
"""The length of the context.

A few files fill Ollama's default of 4096, and it then drops the beginning without an error."""


class OllamaChat:
    """A client for `POST {base_url}/api/chat`.

    If the server does not have this path, it uses the OpenAI-compatible API instead.
    """

    def __init__(self, config: ModelConfig) -> None:
        # A hosted Ollama or a proxy in front of one may need a key.
        headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._config = config
        self._client = ModelHttpClient(config, headers)
        self._openai_chat: OpenAIChat | None = None

    async def reply(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        on_text: Callable[[str], None],
    ) -> Reply:
        """See ChatModel."""
        if self._openai_chat is None:
            try:
                return await self._reply_native(system, messages, tools, on_text)
            except ModelError as error:
                # A 404 that names the model is Ollama's own: the model is missing, not the path.
                if error.status not in {404, 405, 501} or "model '" in str(error):
                    raise
            url = f"{self._config.base_url}/v1"
            self._openai_chat = OpenAIChat(replace(self._config, base_url=url))
        return await self._openai_chat.reply(system, messages, tools, on_text)

    async def _reply_native(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        on_text: Callable[[str], None],
    ) -> Reply:
        names = {use.id: use.name for message in messages for use in message.tool_uses}
        options: dict[str, float] = {"num_ctx": CONTEXT_TOKENS}
        if self._config.max_tokens is not None:
            options["num_predict"] = self._config.max_tokens
        if self._config.temperature is not None:
            options["temperature"] = self._config.temperature
        body = {
            "model": self._config.model,
            "messages": [
                {"role": "system", "content": system},
                *(_encode_message(message, names) for message in messages),
            ],
            "tools": function_tools(tools),
            "stream": True,
            "options": options,
        }
        text, uses = "", list[ToolUse]()
        async with self._client.post("/api/chat", body) as response:
            last: dict[str, Any] = {}
            if not response.is_stream:
                last = await response.read_object()
                text, uses = _add_event(last, text, uses)
            else:
                async for event in response.events():
                    more, uses = _add_event(event, text, uses)
                    if more != text:
                        text = more
                        on_text(text)
                    last = event
            if not last.get("done", not response.is_stream):
                raise response.incomplete_error()
            if last.get("error"):
                raise ModelError(f"{self._client.name}: {last['error']}")
        usage = Usage(int(last.get("prompt_eval_count") or 0), int(last.get("eval_count") or 0))
        return Reply(text, tuple(uses), usage, truncated=last.get("done_reason") == "length")

    async def close(self) -> None:
        """See ChatModel."""
        await self._client.close()
        if self._openai_chat is not None:
            await self._openai_chat.close()


def _add_event(event: dict[str, Any], text: str, uses: list[ToolUse]) -> tuple[str, list[ToolUse]]:
    message = event.get("message") or {}
    text += str(message.get("content") or "")
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        name, arguments = str(function.get("name") or ""), function.get("arguments") or {}
        # Ollama does not use ids for tool calls; the agent needs them.
        use_id = str(call.get("id") or f"call_{len(uses)}")
        if isinstance(arguments, dict):
            uses = [*uses, ToolUse(use_id, name, arguments)]
        else:
            uses = [*uses, ToolUse.parse(use_id, name, str(arguments))]
    return text, uses


def _encode_message(message: Message, names: dict[str, str]) -> dict[str, Any]:
    match message.role:
        case Role.TOOL:
            name = names.get(message.tool_use_id, "")
            return {"role": "tool", "tool_name": name, "content": message.text}
        case Role.ASSISTANT if message.tool_uses:
            calls = [
                {"function": {"name": use.name, "arguments": use.arguments}}
                for use in message.tool_uses
            ]
            return {"role": "assistant", "content": message.text, "tool_calls": calls}
    return {"role": message.role.value, "content": message.text}

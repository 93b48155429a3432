"""Ollama's own chat API: the OpenAI-compatible one cannot say how long the context is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from graphton.chat import Message, ModelError, Reply, Role, ToolUse, Usage
from graphton.model import ModelConfig
from graphton.providers.http import Service
from graphton.providers.openai import OpenAIChat, function_tools
from graphton.tools import Tool

CONTEXT_TOKENS: Final = 16_384
"""Ollama's default of 4096 is used up by a few files, and it then forgets silently."""


class OllamaChat:
    """A model behind `POST {base_url}/api/chat`."""

    def __init__(self, config: ModelConfig) -> None:
        # A hosted Ollama, or a proxy before one, may want a key.
        headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._config = config
        self._service = Service(config, headers)
        self._compatible: OpenAIChat | None = None

    async def reply(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        on_text: Callable[[str], None],
    ) -> Reply:
        """See ChatModel."""
        if self._compatible is None:
            try:
                return await self._native(system, messages, tools, on_text)
            except ModelError as error:
                # Ollama has no such model: it says so. Somebody else has no such path.
                if error.status not in {404, 405, 501} or "model '" in str(error):
                    raise
            url = f"{self._config.base_url}/v1"
            self._compatible = OpenAIChat(replace(self._config, base_url=url))
        return await self._compatible.reply(system, messages, tools, on_text)

    async def _native(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        on_text: Callable[[str], None],
    ) -> Reply:
        names = {use.id: use.name for message in messages for use in message.tool_uses}
        body = {
            "model": self._config.model,
            "messages": [
                {"role": "system", "content": system},
                *(_message(message, names) for message in messages),
            ],
            "tools": function_tools(tools),
            "stream": True,
            "options": {"num_ctx": CONTEXT_TOKENS},
        }
        text, uses = "", list[ToolUse]()
        async with self._service.post("/api/chat", body) as answer:
            last: dict[str, Any] = {}
            if not answer.streams:
                last = await answer.whole()
                text, uses = _part(last, text, uses)
            else:
                async for event in answer.events():
                    more, uses = _part(event, text, uses)
                    if more != text:
                        text = more
                        on_text(text)
                    last = event
            if not last.get("done", not answer.streams):
                raise answer.broken_off()
            if last.get("error"):
                raise ModelError(f"{self._service.name}: {last['error']}")
        usage = Usage(int(last.get("prompt_eval_count") or 0), int(last.get("eval_count") or 0))
        return Reply(text, tuple(uses), usage, cut_off=last.get("done_reason") == "length")

    async def close(self) -> None:
        """See ChatModel."""
        await self._service.close()
        if self._compatible is not None:
            await self._compatible.close()


def _part(event: dict[str, Any], text: str, uses: list[ToolUse]) -> tuple[str, list[ToolUse]]:
    message = event.get("message") or {}
    text += str(message.get("content") or "")
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        name, arguments = str(function.get("name") or ""), function.get("arguments") or {}
        # Ollama gives its tool calls no names of their own, but wants none back either.
        use_id = str(call.get("id") or f"call_{len(uses)}")
        if isinstance(arguments, dict):
            uses = [*uses, ToolUse(use_id, name, arguments)]
        else:
            uses = [*uses, ToolUse.parse(use_id, name, str(arguments))]
    return text, uses


def _message(message: Message, names: dict[str, str]) -> dict[str, Any]:
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

"""Ollama's own chat API. Its OpenAI-compatible API cannot set the length of the context."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

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
from graphton.providers.openai import OpenAIChat, function_tools
from graphton.providers.text_calls import CAPABLE_MODEL, find_text_calls
from graphton.tools import Tool

WANTED_CONTEXT_TOKENS: Final = 32_768
"""The context if neither the configuration nor the server sets one. A few files fill a shorter one,
and Ollama then drops the beginning of the conversation without an error."""

_UNSET_CONTEXTS: Final = frozenset({2048, 4096})
"""Ollama's own defaults. A server that reports one of them has probably no setting."""

_NO_NATIVE_API: Final = frozenset({404, 405, 501})
"""The HTTP statuses of a server that has only the OpenAI-compatible API."""

_server_contexts: dict[tuple[str, str], int | None] = {}
"""The contexts that servers give to models, by URL and model; None if a server does not tell.

To ask, a model has to be loaded."""


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """What Ollama knows about a model.

    Attributes:
        max_context: The longest context that the model can have; None if it is not known.
        own_context: The context that the model's file sets; None if it sets none.
        capabilities: What the model can do, such as `tools`; None if it is not known.
    """

    max_context: int | None = None
    own_context: int | None = None
    capabilities: frozenset[str] | None = None

    @classmethod
    def parse(cls, value: dict[str, Any]) -> "ModelDetails":
        """Read the response of `/api/show`."""
        info = value.get("model_info") or {}
        # A model that sees images has another length for them.
        size = info.get(f"{info.get('general.architecture')}.context_length")
        own = re.search(r"^num_ctx\s+(\d+)", value.get("parameters") or "", re.MULTILINE)
        capabilities = value.get("capabilities")
        return cls(
            int(size) if size else None,
            int(own[1]) if own else None,
            frozenset(capabilities) if capabilities is not None else None,
        )


def choose_context(details: ModelDetails, configured: int | None, server: int | None) -> int:
    """The length of the context, in tokens.

    The first of these that is known counts, but never more than the model can have: the configured
    one, that of the model's file, that of the server's setting, WANTED_CONTEXT_TOKENS.

    Args:
        details: What Ollama knows about the model.
        configured: The configured context.
        server: The context that the server gives to the model if it is not told one.
    """
    if server in _UNSET_CONTEXTS:
        server = None
    wanted = configured or details.own_context or server or WANTED_CONTEXT_TOKENS
    return min(wanted, details.max_context or wanted)


class OllamaChat(HttpChat):
    """A client for `POST {base_url}/api/chat`.

    If the server does not have this path, it uses the OpenAI-compatible API instead.
    """

    def __init__(self, config: ModelConfig) -> None:
        # A hosted Ollama or a proxy in front of one may need a key.
        super().__init__(config, bearer(config))
        self._openai_chat: OpenAIChat | None = None
        self._details: ModelDetails | None = None
        self._context = 0

    async def context_tokens(self) -> int:
        """See ChatModel."""
        if self._context:
            return self._context
        self._details = details = await self._find_details()
        if details.capabilities is not None and "tools" not in details.capabilities:
            raise ModelError(
                f"{self._client.name}: the model {self._config.model} cannot use tools (use one "
                f"that can, such as {CAPABLE_MODEL}: STIGMER_LLM_MODEL={CAPABLE_MODEL})"
            )
        server = None
        if not (self._config.context_tokens or details.own_context or details == ModelDetails()):
            server = await self._find_server_context()
        self._context = choose_context(details, self._config.context_tokens, server)
        return self._context

    async def _find_details(self) -> ModelDetails:
        try:
            body = {"model": self._config.model}
            return ModelDetails.parse(await self._client.read("/api/show", body))
        except ModelError as error:
            if error.status is None or error.transient:
                raise
            return ModelDetails()  # a missing model or API is reported for the request itself

    async def _find_server_context(self) -> int | None:
        """The context that the server gives to the model; None if it does not tell.

        A server tells it only for a model that is loaded. So the model is loaded without a context
        of ours, once in the life of this process.
        """
        key = (self._config.base_url, self._config.model)
        if key not in _server_contexts:
            try:
                if (loaded := await self._find_loaded_context()) is None:
                    # Without a prompt, this only loads the model.
                    body = {"model": self._config.model, "stream": False}
                    await self._client.read("/api/generate", body)
                    loaded = await self._find_loaded_context()
            except ModelError as error:
                if error.status is None or error.transient:
                    raise
                loaded = None
            _server_contexts[key] = loaded
        return _server_contexts[key]

    async def _find_loaded_context(self) -> int | None:
        value = await self._client.read("/api/ps")
        for model in value.get("models") or []:
            names = {model.get("name"), model.get("model")}
            if self._config.model in names or f"{self._config.model}:latest" in names:
                return int(model.get("context_length") or 0) or None
        return None

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
                if error.status not in _NO_NATIVE_API or "model '" in str(error):
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
        options: dict[str, float] = {"num_ctx": await self.context_tokens()}
        if self._config.max_tokens is not None:
            options["num_predict"] = self._config.max_tokens
        if self._config.temperature is not None:
            options["temperature"] = self._config.temperature
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": [
                {"role": "system", "content": system},
                *(_encode_message(message, names) for message in messages),
            ],
            "tools": function_tools(tools),
            "stream": True,
            "options": options,
        }
        if self._config.effort:
            body["think"] = _think(self._config.effort)
        answer = _Answer()
        async with self._client.post("/api/chat", body) as response:
            last: dict[str, Any] = {}
            if not response.is_stream:
                last = await response.read_object()
                answer.add(last)
            else:
                async for event in response.events():
                    if answer.add(event):
                        on_text(answer.text)
                    last = event
            if not last.get("done", not response.is_stream):
                raise response.incomplete_error()
        usage = Usage(int(last.get("prompt_eval_count") or 0), int(last.get("eval_count") or 0))
        reply = Reply(answer.parts, usage, truncated=last.get("done_reason") == "length")
        return find_text_calls(reply, [tool.name for tool in tools], within_text=True)

    async def close(self) -> None:
        """See ChatModel."""
        await super().close()
        if self._openai_chat is not None:
            await self._openai_chat.close()


class _Answer:
    """The message of a reply, as far as it has been read."""

    def __init__(self) -> None:
        self.text = ""
        self._thinking = ""
        self._uses: list[ToolUse] = []

    def add(self, event: dict[str, Any]) -> bool:
        """Add a part of the message. Returns whether it has text."""
        message = event.get("message") or {}
        self.text += str(message.get("content") or "")
        self._thinking += str(message.get("thinking") or "")
        for call in message.get("tool_calls") or []:
            function = call.get("function") or {}
            name, arguments = str(function.get("name") or ""), function.get("arguments") or {}
            # Older versions of Ollama do not use ids for tool calls; the agent needs them.
            use_id = str(call.get("id") or f"call_{len(self._uses)}")
            if isinstance(arguments, dict):
                self._uses.append(ToolUse(use_id, name, arguments))
            else:
                self._uses.append(ToolUse.parse(use_id, name, str(arguments)))
        return bool(message.get("content"))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts so far."""
        parts: list[Part] = []
        if self._thinking:
            parts.append(Reasoning({"thinking": self._thinking}))
        if self.text:
            parts.append(Text(self.text))
        return (*parts, *self._uses)


def _think(effort: str) -> bool | str:
    """The value of `think` for an effort. Ollama has fewer levels than other services."""
    match effort:
        case "none" | "minimal":
            return False
        case "xhigh" | "max":
            return "high"
    return effort


def _encode_message(message: Message, names: dict[str, str]) -> dict[str, Any]:
    match message.role:
        case Role.TOOL:
            name = names.get(message.tool_use_id, "")
            return {"role": "tool", "tool_name": name, "content": message.text}
        case Role.ASSISTANT:
            encoded: dict[str, Any] = {"role": "assistant", "content": message.text}
            for part in message.parts:
                if isinstance(part, Reasoning):
                    encoded |= part.data
            if message.tool_uses:
                encoded["tool_calls"] = [
                    {"function": {"name": use.name, "arguments": use.arguments}}
                    for use in message.tool_uses
                ]
            return encoded
    return {"role": "user", "content": message.shown_text}

"""Messages between an agent and a language model, in a form independent of the provider."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from graphton.tools import Tool


class Role(StrEnum):
    """The author of a message."""

    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Text:
    """A part of a message: text, or the result of a tool.

    Attributes:
        text: The text.
        data: Fields that the provider sent with it and wants back unchanged.
    """

    text: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A part of a message: reasoning, in the form of the provider that sent it.

    Attributes:
        data: What the provider sent. It is sent back unchanged, to the same model only.
        bound: Whether the provider refuses it once anything before it has changed.
    """

    data: dict[str, Any]
    bound: bool = False


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A part of a message: a model's request to run a tool.

    Attributes:
        id: Identifies this use. The message with the result refers to it.
        name: The name of the tool.
        arguments: The arguments of the tool.
        problem: Why the arguments could not be parsed; empty if they could.
        data: Fields that the provider sent with it and wants back unchanged.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    problem: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, use_id: str, name: str, arguments: str, data: dict[str, Any] | None = None
    ) -> "ToolUse":
        """Parse arguments from JSON text. If that fails, `problem` says why."""
        value, problem = {}, ""
        try:
            value = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            problem = f"the arguments are not JSON: {error}"
        if not isinstance(value, dict):
            value, problem = {}, "the arguments are not a JSON object"
        return cls(use_id, name, value, problem, data or {})


@dataclass(frozen=True, slots=True)
class Omission:
    """A part of a user's message: a note that earlier messages were left out here.

    Attributes:
        replies: How many of the model's replies were left out.
    """

    replies: int

    @property
    def text(self) -> str:
        """The note, for the model."""
        return f"[{self.replies} earlier replies and their tool results were left out to save room]"


Part = Text | Reasoning | ToolUse | Omission


def text_of(parts: Iterable[Part]) -> str:
    """The texts of parts together, without reasoning."""
    return "".join(part.text for part in parts if isinstance(part, Text))


def tool_uses_of(parts: Iterable[Part]) -> tuple[ToolUse, ...]:
    """The tool uses among parts."""
    return tuple(part for part in parts if isinstance(part, ToolUse))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a conversation. `graphton.memory` stores it.

    Attributes:
        role: The author.
        parts: What it consists of, in the order in which the model wrote it.
        tool_use_id: The id of the tool use that this result belongs to.
        failed: Whether the tool failed.
        author: The model that wrote it: see `ChatModel.identity`.
        prompt: A digest of the instructions and tools that the author had.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    tool_use_id: str = ""
    failed: bool = False
    author: str = ""
    prompt: str = ""

    @classmethod
    def user(cls, text: str) -> "Message":
        """A user's request."""
        return cls(role=Role.USER, parts=(Text(text),))

    @classmethod
    def result(cls, tool_use_id: str, text: str, *, failed: bool = False) -> "Message":
        """The result of a tool, or its error message."""
        return cls(role=Role.TOOL, parts=(Text(text),), tool_use_id=tool_use_id, failed=failed)

    @property
    def text(self) -> str:
        """The text without reasoning and notes."""
        return text_of(self.parts)

    @property
    def shown_text(self) -> str:
        """The text and the notes, for a model that gets each message as one text."""
        texts = [part.text for part in self.parts if isinstance(part, (Text, Omission))]
        notes = any(isinstance(part, Omission) for part in self.parts)
        return ("\n\n" if notes else "").join(texts)

    @property
    def tool_uses(self) -> tuple[ToolUse, ...]:
        """The tools that the assistant asks for."""
        return tool_uses_of(self.parts)


def without_bound_reasoning(message: Message) -> Message:
    """A message without the reasoning that is bound to what was before it."""
    kept = tuple(p for p in message.parts if not (isinstance(p, Reasoning) and p.bound))
    return message if len(kept) == len(message.parts) else replace(message, parts=kept)


def without_state(message: Message) -> Message:
    """A message without anything that only the model that wrote it understands."""
    kept = tuple(
        replace(part, data={}) if isinstance(part, (Text, ToolUse)) and part.data else part
        for part in message.parts
        if not isinstance(part, Reasoning)
    )
    return message if kept == message.parts else replace(message, parts=kept)


def readable_by(author: str, prompt: str, messages: Sequence[Message]) -> list[Message]:
    """The messages without the state that this model, with these instructions, cannot use."""
    readable = []
    for message in messages:
        if message.author != author:
            readable.append(without_state(message))
        elif message.prompt != prompt:
            readable.append(without_bound_reasoning(message))
        else:
            readable.append(message)
    return readable


@dataclass(frozen=True, slots=True)
class Usage:
    """The number of tokens of a request and its reply; 0 if the service does not report it.

    Attributes:
        input_tokens: The tokens of the request, including those from a cache.
        output_tokens: The tokens of the reply, including reasoning.
        cached_tokens: The tokens of the request that the service read from its cache.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total(self) -> int:
        """The sum of input and output tokens."""
        return self.input_tokens + self.output_tokens

    @property
    def charged(self) -> int:
        """The sum of tokens, in which ten tokens from a cache count as one.

        This is what Anthropic, OpenAI and Gemini charge for them, at least for their newer models.
        """
        return self.total - self.cached_tokens * 9 // 10

    def __add__(self, other: "Usage") -> "Usage":
        """The usage of two requests together."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of a model.

    Attributes:
        parts: What it consists of, in the order in which the model wrote it.
        usage: The tokens used.
        truncated: Whether the service cut the reply off at its maximum length.
    """

    parts: tuple[Part, ...]
    usage: Usage = field(default_factory=Usage)
    truncated: bool = False

    @property
    def text(self) -> str:
        """The text without reasoning."""
        return text_of(self.parts)

    @property
    def tool_uses(self) -> tuple[ToolUse, ...]:
        """The tools that the model asks for; empty if this is the final answer."""
        return tool_uses_of(self.parts)


class ModelError(Exception):
    """A request to a model failed. The message is for people.

    Attributes:
        transient: Whether the same request may succeed later.
        retry_after: Seconds to wait before the next attempt, if the service says so.
        status: The HTTP status, if there is one.
        field: The field of the request that the service refuses, if it names one.
        too_long: Whether the conversation is too long for the model.
        stale_reasoning: Whether the service refuses reasoning that it had sent.
        max_attempts: How often the same request is sent at most; None for the usual number.
    """

    def __init__(  # noqa: PLR0913 (most have defaults)
        self,
        message: str,
        *,
        transient: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
        field: str = "",
        too_long: bool = False,
        stale_reasoning: bool = False,
        max_attempts: int | None = None,
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after
        self.status = status
        self.field = field
        self.too_long = too_long
        self.stale_reasoning = stale_reasoning
        self.max_attempts = max_attempts


class ChatModel(Protocol):
    """A language model."""

    @property
    def identity(self) -> str:
        """The service and the model. Reasoning is sent back only to the one that wrote it."""
        ...

    async def context_tokens(self) -> int:
        """The maximum number of tokens of a request and its reply together.

        Raises:
            ModelError: if the service has to be asked for it and does not answer.
        """
        ...

    async def reply(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        on_text: Callable[[str], None],
    ) -> Reply:
        """Send one request, without retries.

        Args:
            system: The instructions for the model.
            messages: The conversation so far.
            tools: The tools that the model may ask for.
            on_text: Called with the whole text so far, each time more of it has arrived.

        Raises:
            ModelError: if the request fails.
        """
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...

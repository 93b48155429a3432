"""Messages between an agent and a language model, in a form independent of the provider."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from graphton.tools import Tool


class Role(StrEnum):
    """The author of a message."""

    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A model's request to run a tool. The attributes are stored by `graphton.memory`.

    Attributes:
        id: Identifies this use. The message with the result refers to it.
        name: The name of the tool.
        arguments: The arguments of the tool.
        problem: Why the arguments could not be parsed; empty if they could.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    problem: str = ""

    @classmethod
    def parse(cls, use_id: str, name: str, arguments: str) -> "ToolUse":
        """Parse arguments from JSON text. If that fails, `problem` says why."""
        try:
            value = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            return cls(use_id, name, {}, f"the arguments are not JSON: {error}")
        if not isinstance(value, dict):
            return cls(use_id, name, {}, "the arguments are not a JSON object")
        return cls(use_id, name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a conversation. The attributes are stored by `graphton.memory`.

    Attributes:
        role: The author.
        text: The text, or the result of a tool.
        tool_uses: The tools that the assistant asks for.
        tool_use_id: The id of the tool use that this result belongs to.
        failed: Whether the tool failed.
    """

    role: Role
    text: str = ""
    tool_uses: tuple[ToolUse, ...] = ()
    tool_use_id: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """The number of tokens of a request and its reply; 0 if the service does not report it."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total(self) -> int:
        """The sum of input and output tokens."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of a model.

    Attributes:
        text: The text.
        tool_uses: The tools that the model asks for; empty if this is the final answer.
        usage: The tokens used.
        truncated: Whether the service cut the reply off at its maximum length.
    """

    text: str
    tool_uses: tuple[ToolUse, ...] = ()
    usage: Usage = field(default_factory=Usage)
    truncated: bool = False


class ModelError(Exception):
    """A request to a model failed. The message is for people.

    Attributes:
        transient: Whether the same request may succeed later.
        retry_after: Seconds to wait before the next attempt, if the service says so.
        status: The HTTP status, if there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        transient: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after
        self.status = status


class ChatModel(Protocol):
    """A language model."""

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

"""What is said between an agent and a language model, whoever serves the model."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from graphton.tools import Tool


class Role(StrEnum):
    """Who speaks."""

    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool that the model asks for.

    Attributes:
        id: A name for this use; the result refers to it.
        name: The tool's.
        arguments: Its arguments.
        problem: Why the arguments could not be read; empty if they could.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    problem: str = ""

    @classmethod
    def parse(cls, use_id: str, name: str, arguments: str) -> "ToolUse":
        """Read arguments that came as JSON text."""
        try:
            value = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            return cls(use_id, name, {}, f"the arguments are not JSON: {error}")
        if not isinstance(value, dict):
            return cls(use_id, name, {}, "the arguments are not a JSON object")
        return cls(use_id, name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        text: What is said; a tool's result.
        tool_uses: What the assistant asks for.
        tool_use_id: Which use a tool's result answers.
        failed: Whether the tool could not do it.
    """

    role: Role
    text: str = ""
    tool_uses: tuple[ToolUse, ...] = ()
    tool_use_id: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply has cost, in tokens; 0 where the service does not say."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answers.

    Attributes:
        text: What it says.
        tool_uses: The tools it asks for; none if this is its last word.
        usage: What it has cost.
        cut_off: Whether it was ended by the limit of its length.
    """

    text: str
    tool_uses: tuple[ToolUse, ...] = ()
    usage: Usage = field(default_factory=Usage)
    cut_off: bool = False


class ModelError(Exception):
    """A model that gave no reply. The message is for people; no key is in it.

    Attributes:
        transient: Whether asking again may help.
        retry_after: Seconds to wait before, if the service says so.
        status: The HTTP status, if there was one.
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
    """A language model that can be asked."""

    async def reply(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        on_text: Callable[[str], None],
    ) -> Reply:
        """Ask once.

        Args:
            system: Who the model is to be.
            messages: What was said so far.
            tools: What it may ask for.
            on_text: Gets all the text so far, each time there is more.

        Raises:
            ModelError: if there is no reply.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...

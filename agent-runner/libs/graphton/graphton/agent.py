"""The agent loop: ask the model, run the tools it asks for, and repeat until it asks for none."""

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from graphton.blocking import run_blocking
from graphton.chat import (
    ChatModel,
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
from graphton.model_client import ModelClient
from graphton.text import compact_json
from graphton.tools import Tool, ToolError

_log = logging.getLogger(__name__)


class LimitError(Exception):
    """A run has reached one of its limits. The message says which one, and its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """The limits of a run.

    Attributes:
        rounds: The maximum number of requests to the model.
        tokens: The maximum number of tokens of all requests and replies together, as
            `Usage.charged` counts them.
        seconds: The maximum duration, or None for no limit.
    """

    rounds: int = 100
    tokens: int = 2_000_000
    seconds: float | None = None


@dataclass(slots=True)
class Consumption:
    """What a run has consumed of its limits.

    Attributes:
        rounds: The number of replies.
        usage: The tokens of all requests and replies together.
    """

    rounds: int = 0
    usage: Usage = field(default_factory=Usage)

    def add(self, reply: Reply) -> None:
        """Add a reply and its request."""
        self.rounds += 1
        self.usage += reply.usage


class Observer(Protocol):
    """Follows a run. The methods must neither block nor raise."""

    def text_received(self, text: str) -> None:
        """A part of a reply has arrived. `text` is the whole text of this reply so far."""

    def reply_received(self, reply: Reply) -> None:
        """A reply is complete."""

    def retrying(self, error: ModelError, pause: float) -> None:
        """A request failed. It is sent again after `pause` seconds."""

    def tool_started(self, use: ToolUse) -> None:
        """A tool is about to run."""

    def tool_finished(self, use: ToolUse, result: str, failed: bool) -> None:
        """A tool has finished, with this result or error message."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run.

    Attributes:
        text: The model's final answer.
        usage: The tokens of all requests and replies together, also those of sub-agents.
        rounds: The number of replies, also of those to sub-agents.
    """

    text: str
    usage: Usage
    rounds: int


class Agent:
    """A model with its instructions and its tools.

    Args:
        model: The language model.
        system: The instructions for the model.
        tools: The tools that the model may use. They may change during a run.
        limits: The limits of each run.
        redact: Removes secrets from a text before it is stored or shown.
        consumed: What counts as consumed when the next run begins. Tools can add to it.
    """

    def __init__(  # noqa: PLR0913 (the last two have defaults)
        self,
        model: ChatModel,
        *,
        system: str,
        tools: Sequence[Tool],
        limits: RunLimits,
        redact: Callable[[str], str] = str,
        consumed: Consumption | None = None,
    ) -> None:
        self._model = model
        self._system = system
        self._tools = tools
        self._limits = limits
        self._redact = redact
        self._consumed = consumed

    async def run(
        self,
        history: Sequence[Message],
        request: str,
        observer: Observer,
        save: Callable[[Sequence[Message]], None],
    ) -> Outcome:
        """Run until the model asks for no more tools.

        Args:
            history: The messages of earlier runs.
            request: The user's request.
            observer: Follows the run.
            save: Stores the conversation. It is called whenever each tool use in it has a result.
                It may block: it runs in a thread of its own.

        Raises:
            ModelError: if the model does not reply.
            LimitError: if a limit is reached.
            FilesError: from `save`.
        """
        messages = [*history, Message.user(request)]
        consumed = self._consumed or Consumption()
        client = ModelClient(
            self._model,
            self._system,
            self._tools,
            on_text=observer.text_received,
            on_retry=observer.retrying,
        )
        time_limit = asyncio.timeout(self._limits.seconds)
        try:
            async with time_limit:
                await run_blocking(save, tuple(messages))
                while True:
                    self._check_limits(consumed)
                    reply, messages = await client.ask(messages)
                    consumed.add(reply)
                    reply = _sanitize(reply, messages)
                    observer.reply_received(reply)
                    parts = _redact_parts(reply.parts, self._redact)
                    messages.append(
                        Message(
                            role=Role.ASSISTANT,
                            parts=parts,
                            author=client.author,
                            prompt=client.prompt,
                        )
                    )
                    for use in reply.tool_uses:
                        messages.append(await self._run_tool(use, reply.truncated, observer))
                    await run_blocking(save, tuple(messages))
                    if not reply.tool_uses:
                        if reply.truncated:
                            raise LimitError(
                                "the model's answer exceeded the maximum length: ask for a "
                                "shorter one; if the limit is not the model's own, raise "
                                "STIGMER_LLM_MAX_TOKENS"
                            )
                        return Outcome(reply.text, consumed.usage, consumed.rounds)
        except TimeoutError:
            if not time_limit.expired():
                raise
            raise LimitError(
                f"stopped after {self._limits.seconds:.0f} s: the time limit is reached"
            ) from None

    def _check_limits(self, consumed: Consumption) -> None:
        if consumed.rounds >= self._limits.rounds:
            raise LimitError(f"stopped after {consumed.rounds} rounds without a final answer")
        if consumed.usage.charged >= self._limits.tokens:
            raise LimitError(
                f"stopped after {consumed.usage.charged} tokens: the limit is {self._limits.tokens}"
            )

    async def _run_tool(self, use: ToolUse, truncated: bool, observer: Observer) -> Message:
        observer.tool_started(use)
        tool = next((tool for tool in self._tools if tool.name == use.name), None)
        failed = True
        try:
            if tool is None:
                known = ", ".join(tool.name for tool in self._tools)
                raise ToolError(f"there is no tool `{use.name}`; there are: {known}")
            if use.problem:
                hint = " (the reply was too long and was cut off)" if truncated else ""
                raise ToolError(use.problem + hint)
            result = await tool.call(use.arguments)
            failed = False
        except ToolError as error:
            result = str(error)
        except Exception as error:  # tell the model, so that a bug in a tool does not end the run
            _log.exception("the tool %s failed", use.name)
            result = f"the tool failed: {type(error).__name__}"
        result = self._redact(result)
        observer.tool_finished(use, result, failed)
        return Message.result(use.id, result, failed=failed)


def _sanitize(reply: Reply, messages: Sequence[Message]) -> Reply:
    """Make a reply safe to store and to send back.

    Characters that UTF-8 cannot encode and numbers that JSON does not know are replaced. Data
    that the provider wants back unchanged is left out if it contains any of them. A tool use whose
    id already occurs in the conversation gets a new id.
    """
    taken = {use.id for message in messages for use in message.tool_uses}
    parts: list[Part] = []
    for part in reply.parts:
        match part:
            case Text(text, data):
                parts.append(Text(_valid_unicode(text), data if _is_valid(data) else {}))
            case ToolUse(use_id, _, arguments, _, data):
                if use_id in taken:
                    use_id = f"call_{uuid.uuid4().hex}"
                taken.add(use_id)
                valid = json.loads(_valid_unicode(compact_json(arguments)), parse_constant=str)
                kept = data if _is_valid(data) else {}
                parts.append(replace(part, id=use_id, arguments=valid, data=kept))
            case Reasoning(data) if _is_valid(data):
                parts.append(part)
    return replace(reply, parts=tuple(parts))


def _is_valid(data: dict[str, Any]) -> bool:
    """Whether data can be sent as JSON."""
    try:
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return False
    return True


def _redact_parts(parts: Sequence[Part], redact: Callable[[str], str]) -> tuple[Part, ...]:
    """Redact the texts of a reply, and remove reasoning that is bound to a text that changed."""
    redacted: list[Part] = []
    changed = False
    for part in parts:
        match part:
            case Text(text):
                shown = redact(text)
                changed = changed or shown != text
                redacted.append(replace(part, text=shown))
            case Reasoning(_, bound) if bound and changed:
                pass
            case _:
                redacted.append(part)
    return tuple(redacted)


def _valid_unicode(text: str) -> str:
    return text.encode(errors="replace").decode()

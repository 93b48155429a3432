"""An agent: a model that is asked, and asked again with what its tools found, until it is done."""

import asyncio
import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from graphton.chat import ChatModel, Message, ModelError, Reply, Role, ToolUse, Usage
from graphton.threads import in_thread
from graphton.tools import Tool, ToolError, as_json

_log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0
"""Seconds between two attempts to ask a model: doubled each time, each shortened by chance."""

ATTEMPTS: Final = 6
"""How often a model is asked the same before it counts as broken: for about 30 s."""


class LimitError(Exception):
    """A run that has used up what it was given. The message says what and how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may use.

    Attributes:
        rounds: How often the model is asked.
        tokens: How many tokens, in and out, all replies together may cost.
        seconds: How long it may take; None for as long as it does.
    """

    rounds: int = 100
    tokens: int = 2_000_000
    seconds: float | None = None


class Observer(Protocol):
    """Who watches a run. Nothing here may block or fail."""

    def text(self, text: str) -> None:
        """The model is speaking; this is all it has said in this reply so far."""

    def replied(self, reply: Reply) -> None:
        """The model has replied."""

    def retrying(self, error: ModelError, pause: float) -> None:
        """The model could not be asked, and will be asked again after `pause` seconds."""

    def tool_began(self, use: ToolUse) -> None:
        """A tool begins."""

    def tool_ended(self, use: ToolUse, result: str, failed: bool) -> None:
        """A tool has ended."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        text: The model's last word.
        usage: What all replies have cost together.
        rounds: How often the model was asked.
    """

    text: str
    usage: Usage
    rounds: int


class Agent:
    """A model with its instructions and its tools.

    Args:
        model: Who is asked.
        system: Its instructions.
        tools: What it may use.
        limits: What a run may use.
        redact: Takes secrets out of a text, before anyone remembers or sees it.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        system: str,
        tools: Sequence[Tool],
        limits: Limits,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._model = model
        self._system = system
        self._tools = tools
        self._limits = limits
        self._redact = redact

    async def run(
        self,
        history: Sequence[Message],
        request: str,
        observer: Observer,
        remember: Callable[[Sequence[Message]], None],
    ) -> Outcome:
        """Work until the model asks for no more tools.

        Args:
            history: What was said before.
            request: What is asked now.
            observer: Who watches.
            remember: Gets the whole conversation, each time it is complete: with a result for
                each use of a tool. It may block; it is called in a thread.

        Raises:
            ModelError: if the model cannot be asked.
            LimitError: if the limits are used up.
            FilesError: from `remember`.
        """
        messages = [*history, Message(role=Role.USER, text=request)]
        usage, rounds = Usage(), 0
        time_limit = asyncio.timeout(self._limits.seconds)
        try:
            async with time_limit:
                await in_thread(remember, tuple(messages))
                while True:
                    self._check(rounds, usage)
                    reply = await self._ask(messages, observer)
                    rounds += 1
                    usage = Usage(
                        usage.input_tokens + reply.usage.input_tokens,
                        usage.output_tokens + reply.usage.output_tokens,
                    )
                    reply = _tidied(reply, messages)
                    observer.replied(reply)
                    messages.append(
                        Message(
                            role=Role.ASSISTANT,
                            text=self._redact(reply.text),
                            tool_uses=reply.tool_uses,
                        )
                    )
                    for use in reply.tool_uses:
                        messages.append(await self._use(use, reply.cut_off, observer))
                    await in_thread(remember, tuple(messages))
                    if not reply.tool_uses:
                        if reply.cut_off:
                            raise LimitError("the model's answer was longer than it may be")
                        return Outcome(reply.text, usage, rounds)
        except TimeoutError:
            if not time_limit.expired():
                raise
            raise LimitError(
                f"stopped after {self._limits.seconds:.0f} s: no more time was given"
            ) from None

    def _check(self, rounds: int, usage: Usage) -> None:
        if rounds >= self._limits.rounds:
            raise LimitError(f"stopped after {rounds} rounds without a last word")
        if usage.total >= self._limits.tokens:
            raise LimitError(
                f"stopped after {usage.total} tokens: a run may use {self._limits.tokens}"
            )

    async def _ask(self, messages: Sequence[Message], observer: Observer) -> Reply:
        pause, begun = FIRST_PAUSE, time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._model.reply(self._system, messages, self._tools, observer.text)
            except ModelError as error:
                if not error.transient or attempt == ATTEMPTS:
                    if attempt > 1:
                        took = time.monotonic() - begun
                        raise ModelError(
                            f"{error} (asked {attempt} times in {took:.0f} s)", status=error.status
                        ) from None
                    raise
                rest = pause * random.uniform(0.5, 1)  # noqa: S311 (so that not all come at once)
                if error.retry_after is not None:
                    rest = max(rest, min(error.retry_after, 2 * LONGEST_PAUSE))
                _log.warning("%s; again in %.1f s", error, rest)
                observer.retrying(error, rest)
                await asyncio.sleep(rest)
                pause = min(pause * 2, LONGEST_PAUSE)
        raise AssertionError  # the last attempt returned or raised

    async def _use(self, use: ToolUse, cut_off: bool, observer: Observer) -> Message:
        observer.tool_began(use)
        tool = next((tool for tool in self._tools if tool.name == use.name), None)
        failed = True
        try:
            if tool is None:
                known = ", ".join(tool.name for tool in self._tools)
                raise ToolError(f"there is no tool `{use.name}`; there are: {known}")
            if use.problem:
                hint = " (the reply was too long and was cut off)" if cut_off else ""
                raise ToolError(use.problem + hint)
            result = await tool.call(use.arguments)
            failed = False
        except ToolError as error:
            result = str(error)
        except Exception as error:  # a tool's fault is the model's to know, not the run's end
            _log.exception("the tool %s failed", use.name)
            result = f"the tool failed: {type(error).__name__}"
        result = self._redact(result)
        observer.tool_ended(use, result, failed)
        return Message(role=Role.TOOL, text=result, tool_use_id=use.id, failed=failed)


def _tidied(reply: Reply, messages: Sequence[Message]) -> Reply:
    """The reply, with nothing in it that no UTF-8 or JSON can hold.

    And with each use of a tool under a name that no other use of this thread has.
    """
    taken = {use.id for message in messages for use in message.tool_uses}
    uses = []
    for use in reply.tool_uses:
        own = use if use.id not in taken else replace(use, id=f"call_{uuid.uuid4().hex}")
        taken.add(own.id)
        uses.append(
            replace(own, arguments=json.loads(_utf8(as_json(use.arguments)), parse_constant=str))
        )
    return replace(reply, text=_utf8(reply.text), tool_uses=tuple(uses))


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()

"""Asks a model: with retries, and with as much of the conversation as it can read."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from graphton.backoff import backoff, jitter
from graphton.chat import (
    ChatModel,
    Message,
    ModelError,
    Reply,
    readable_by,
    without_bound_reasoning,
)
from graphton.compaction import estimate, fit, message_tokens
from graphton.text import compact_json
from graphton.tools import Tool

_log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 20.0
"""Seconds between two attempts to ask a model. See `graphton.backoff`."""

MAX_ATTEMPTS: Final = 6
"""How often the same request is sent before the run fails. The pauses take 8 to 16 s in all.

A service can ask for longer ones."""

MAX_EMPTY_ANSWERS: Final = 2
"""How often a request is sent if the model answers with nothing."""

CONTEXT_SHARE: Final = 0.75
"""The share of the model's context that a request may use. The rest is for the reply."""

MIN_BUDGET_TOKENS: Final = 500
"""What the conversation may use at least, even if the instructions take all of the context."""

_Answer = TypeVar("_Answer")


class ModelClient:
    """A model with its instructions and tools.

    Args:
        model: The language model.
        system: The instructions.
        tools: The tools that the model may ask for. They may change between two requests.
        on_text: Called with the whole text of a reply so far, each time more of it has arrived.
        on_retry: Called if a request failed, before it is sent again, with the pause in seconds.

    Attributes:
        author: The model. Its replies have it, so that their reasoning comes back only to it.
        prompt: A digest of the instructions and tools of the last request. The reply has it too.
    """

    def __init__(
        self,
        model: ChatModel,
        system: str,
        tools: Sequence[Tool],
        *,
        on_text: Callable[[str], None],
        on_retry: Callable[[ModelError, float], None],
    ) -> None:
        self._model = model
        self._system = system
        self._tools = tools
        self._on_text = on_text
        self._on_retry = on_retry
        self._overhead = 0
        self._limit: float | None = None
        self._scale = 1.0
        self.author = model.identity
        self.prompt = ""

    async def ask(self, messages: Sequence[Message]) -> tuple[Reply, list[Message]]:
        """Ask the model. Returns its reply, and as much of the conversation as it was told.

        Raises:
            ModelError: if the model does not reply.
        """
        self._describe_prompt()
        told = fit(messages, await self._budget())
        while True:
            try:
                reply = await self._with_retries(partial(self._ask_once, told))
            except ModelError as error:
                less = await self._reduce(told, error)
                if less == told:
                    raise
                _log.warning("%s; trying again with less of the conversation", error)
                told = less
            else:
                # Texts in some languages have more tokens than estimated.
                self._scale = max(self._scale, reply.usage.input_tokens / self._estimate(told))
                return reply, told

    def _describe_prompt(self) -> None:
        tools = [[tool.name, tool.description, tool.schema] for tool in self._tools]
        described = compact_json(tools)
        self._overhead = estimate(self._system) + estimate(described)
        text = f"{self._system}\0{described}"
        self.prompt = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]

    async def _reduce(self, messages: list[Message], error: ModelError) -> list[Message]:
        """The messages without what a service refuses; all of them if it is something else."""
        if error.stale_reasoning:
            return [without_bound_reasoning(message) for message in messages]
        if error.too_long:
            # The estimate was wrong, or the model's limit is lower than assumed.
            told = self._estimate(messages) * self._scale
            self._limit = CONTEXT_SHARE * min(self._limit or told, told)
            return fit(messages, await self._budget())
        return messages

    async def _ask_once(self, messages: Sequence[Message]) -> Reply:
        readable = readable_by(self.author, self.prompt, messages)
        reply = await self._model.reply(self._system, readable, self._tools, self._on_text)
        if not (reply.text.strip() or reply.tool_uses or reply.truncated):
            raise ModelError(
                "the model sent an empty answer: ask again, or use another model",
                transient=True,
                max_attempts=MAX_EMPTY_ANSWERS,
            )
        return reply

    async def _budget(self) -> int:
        """How many tokens the conversation may have, as `message_tokens` estimates them."""
        if self._limit is None:
            self._limit = CONTEXT_SHARE * await self._with_retries(self._model.context_tokens)
        return max(MIN_BUDGET_TOKENS, int(self._limit / self._scale) - self._overhead)

    def _estimate(self, messages: Sequence[Message]) -> int:
        return self._overhead + sum(map(message_tokens, messages))

    async def _with_retries(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        started = time.monotonic()
        pauses = backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
        attempt = 0
        while True:
            attempt += 1
            try:
                return await ask()
            except ModelError as error:
                if not error.transient or attempt >= (error.max_attempts or MAX_ATTEMPTS):
                    if attempt > 1:
                        took = time.monotonic() - started
                        raise ModelError(
                            f"{error} (asked {attempt} times in {took:.0f} s)",
                            status=error.status,
                            too_long=error.too_long,
                            stale_reasoning=error.stale_reasoning,
                        ) from None
                    raise
                pause = jitter(next(pauses))
                if error.retry_after is not None:
                    pause = max(pause, min(error.retry_after, 2 * MAX_RETRY_SECONDS))
                _log.warning("%s; trying again in %.1f s", error, pause)
                self._on_retry(error, pause)
                await asyncio.sleep(pause)

"""Shortens a conversation that does not fit into a model's context."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from graphton.chat import (
    Message,
    Omission,
    Part,
    Reasoning,
    Role,
    Text,
    ToolUse,
    without_bound_reasoning,
)
from graphton.text import compact_json, truncate_middle

BYTES_PER_TOKEN: Final = 4
"""An estimate for the usual mix of English, code and JSON."""

MESSAGE_TOKENS: Final = 8
"""The estimated tokens of a message besides its text."""

SHORT_CHARACTERS: Final = 1000
"""To how many characters old tool results and arguments are shortened."""

OLD_TEXT_CHARACTERS: Final = 4000
"""To how many characters long requests and answers of earlier turns are shortened."""

RECENT_ROUNDS: Final = 3
"""How many of the newest replies keep their tool results as long as possible."""

_SLACK_CHARACTERS: Final = 100
"""A text may exceed its limit by this much.

A shortened text does, because it contains a note, and it must not be shortened again."""

LONG_CHARACTERS: Final = 8000
"""To how many characters the newest tool results and arguments are shortened.

This happens before anything is left out."""

_LAST_RESORT_CHARACTERS: Final = (2000, 400)


def estimate(text: str) -> int:
    """The estimated number of tokens of a text."""
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


def message_tokens(message: Message) -> int:
    """The estimated number of tokens of a message."""
    tokens = MESSAGE_TOKENS
    for part in message.parts:
        match part:
            case Text(text, data):
                tokens += estimate(text) + (estimate(compact_json(data)) if data else 0)
            case Omission():
                tokens += estimate(part.text)
            case ToolUse():
                tokens += MESSAGE_TOKENS + estimate(part.name + compact_json(part.arguments))
                tokens += estimate(compact_json(part.data)) if part.data else 0
            case Reasoning(data):
                tokens += estimate(compact_json(data))
    return tokens


def fit(messages: Sequence[Message], budget: int) -> list[Message]:
    """Return the messages, with less of the old ones if they are over the budget.

    Long tool results and arguments are shortened first, the oldest before newer ones, then long
    texts of earlier turns. Then the oldest turns are left out, then the oldest replies of the
    newest turn, each with the results of the tools that it asked for. A note takes their place. The
    newest request and the last reply stay; if they alone are too long, their texts are shortened
    too.

    The result is much shorter than the budget, so that shortening is needed rarely: services cache
    the beginning of a conversation, and a change makes the cache useless. After the first change,
    reasoning that is bound to the messages before it is removed.

    Args:
        messages: The conversation. It begins with a user's message.
        budget: The maximum number of tokens, as `message_tokens` estimates them.
    """
    conversation = _Conversation(messages)
    if conversation.tokens <= budget:
        return list(messages)
    target = budget * 3 // 5
    conversation.shorten_tools(target, SHORT_CHARACTERS, keep_rounds=RECENT_ROUNDS)
    conversation.shorten_tools(target, LONG_CHARACTERS, keep_rounds=0)
    conversation.shorten_old_texts(target)
    conversation.leave_out_turns(target)
    conversation.leave_out_rounds(target)
    for characters in _LAST_RESORT_CHARACTERS:
        conversation.shorten_tools(budget, characters, keep_rounds=0)
    conversation.shorten_texts(budget)
    return _without_stale_reasoning(messages, conversation.messages)


class _Conversation:
    """Messages that become fewer and shorter, with their estimated tokens."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = list(messages)
        self._sizes = [message_tokens(message) for message in messages]
        self.tokens = sum(self._sizes)

    def _replace(self, index: int, message: Message) -> None:
        size = message_tokens(message)
        self.tokens += size - self._sizes[index]
        self.messages[index], self._sizes[index] = message, size

    def _remove(self, start: int, end: int) -> int:
        """Remove messages, and return how many replies were among them or in their notes."""
        removed = self.messages[start:end]
        self.tokens -= sum(self._sizes[start:end])
        del self.messages[start:end], self._sizes[start:end]
        notes = [p.replies for m in removed for p in m.parts if isinstance(p, Omission)]
        return sum(m.role is Role.ASSISTANT for m in removed) + sum(notes)

    def _positions(self, role: Role) -> list[int]:
        return [n for n, message in enumerate(self.messages) if message.role is role]

    def shorten_tools(self, target: int, characters: int, *, keep_rounds: int) -> None:
        """Shorten tool results and arguments, but not those of the newest rounds."""
        replies = self._positions(Role.ASSISTANT)
        end = len(self.messages)
        if keep_rounds:
            end = replies[-keep_rounds] if len(replies) > keep_rounds else 0
        for index in range(end):
            if self.tokens <= target:
                return
            message = self.messages[index]
            short = _shorten_tools(message, characters)
            if short is not message:
                self._replace(index, short)

    def shorten_old_texts(self, target: int) -> None:
        """Shorten long requests and answers of all turns but the newest."""
        newest = max(self._positions(Role.USER), default=0)
        self._shorten_texts(range(newest), target, OLD_TEXT_CHARACTERS)

    def leave_out_turns(self, target: int) -> None:
        """Leave out the oldest turns, but not the newest."""
        requests = self._positions(Role.USER)
        end, tokens = 0, self.tokens
        for start, following in pairwise(requests):
            if tokens <= target:
                break
            tokens -= sum(self._sizes[start if end else 0 : following])
            end = following
        if end:
            replies = self._remove(0, end)
            self._add_note(0, replies, first=True)

    def leave_out_rounds(self, target: int) -> None:
        """Leave out the oldest replies of the newest turn, but not the last one."""
        newest = max(self._positions(Role.USER), default=-1)
        rounds = [n for n in self._positions(Role.ASSISTANT) if n > newest]
        end, tokens = 0, self.tokens
        for start, following in pairwise(rounds):
            if tokens <= target:
                break
            tokens -= sum(self._sizes[start:following])
            end = following
        if end and newest >= 0:
            replies = self._remove(rounds[0], end)
            self._add_note(newest, replies, first=False)

    def _add_note(self, index: int, replies: int, *, first: bool) -> None:
        """Add a note to a user's message, or the count to the note that is there."""
        message = self.messages[index]
        parts = list(message.parts)
        place = 0 if first else len(parts) - 1
        if parts and isinstance(note := parts[place], Omission):
            parts[place] = Omission(note.replies + replies)
        else:
            parts.insert(0 if first else len(parts), Omission(replies))
        self._replace(index, replace(message, parts=tuple(parts)))

    def shorten_texts(self, budget: int) -> None:
        """Shorten the longest texts, whoever wrote them."""
        characters = budget * BYTES_PER_TOKEN
        while self.tokens > budget and characters > SHORT_CHARACTERS:
            characters //= 2
            self._shorten_texts(range(len(self.messages)), budget, characters)

    def _shorten_texts(self, indexes: Iterable[int], target: int, characters: int) -> None:
        for index in indexes:
            if self.tokens <= target:
                return
            message = self.messages[index]
            parts = tuple(
                replace(part, text=_shorten(part.text, characters))
                if isinstance(part, Text)
                else part
                for part in message.parts
            )
            if parts != message.parts:
                self._replace(index, replace(message, parts=parts))


def _shorten(text: str, characters: int) -> str:
    if len(text) <= characters + _SLACK_CHARACTERS:
        return text
    return truncate_middle(text, characters)


def _shorten_tools(message: Message, characters: int) -> Message:
    def short(value: Any) -> Any:
        match value:
            case str():
                return _shorten(value, characters)
            case dict() | list():
                shorter = _shorten(text := compact_json(value), characters)
                return value if shorter == text else shorter
        return value

    parts: list[Part] = []
    for part in message.parts:
        match part:
            case Text(text, data) if message.role is Role.TOOL:
                parts.append(Text(_shorten(text, characters), data))
            case ToolUse(_, _, arguments):
                shortened = {name: short(value) for name, value in arguments.items()}
                parts.append(replace(part, arguments=shortened))
            case _:
                parts.append(part)
    return message if tuple(parts) == message.parts else replace(message, parts=tuple(parts))


def _without_stale_reasoning(before: Sequence[Message], after: list[Message]) -> list[Message]:
    """Remove the reasoning that is bound to messages which have changed."""
    pairs = zip(before, after, strict=False)
    same = next((n for n, (old, new) in enumerate(pairs) if new is not old), len(after))
    return after[:same] + [without_bound_reasoning(message) for message in after[same:]]

"""What was said in a thread, kept in the sandbox so that a later run remembers it."""

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from typing import Any, Final

from graphton.chat import Message, Role, ToolUse
from graphton.files import PRIVATE, FilesError, Folder

_log = logging.getLogger(__name__)

VERSION: Final = 1

REMEMBERED_CHARACTERS: Final = 200_000
"""How much of a thread a model is told: about 50 000 tokens. The oldest is forgotten first."""

STORED_BYTES: Final = 20_000_000
"""No file of ours is larger."""

_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Thread:
    """A conversation, in a file. Two writers at a time would overwrite each other: lock before.

    Args:
        folder: The sandbox.
        thread_id: The thread's name.
    """

    def __init__(self, folder: Folder, thread_id: str) -> None:
        self._folder = folder
        safe = _SAFE.fullmatch(thread_id)
        name = thread_id if safe else hashlib.sha256(thread_id.encode()).hexdigest()
        self._path = f"{PRIVATE}/threads/{name}.json"

    def load(self) -> list[Message]:
        """What was said; nothing in a new thread. What cannot be read is told and forgotten."""
        try:
            data = self._folder.read(self._path, STORED_BYTES, private=True)
        except FilesError:
            return []
        try:
            stored = json.loads(data)
            if stored["version"] != VERSION:
                raise ValueError(f"version {stored['version']}")
            return [_message(item) for item in stored["messages"]]
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("the thread's memory `%s` cannot be read: %s", self._path, error)
            return []

    def save(self, messages: Sequence[Message]) -> None:
        """Keep what was said, less what is too much to be remembered.

        Raises:
            FilesError: if it cannot be written.
        """
        kept = remembered(messages)
        stored = {"version": VERSION, "messages": [_stored(message) for message in kept]}
        data = json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
        self._folder.write(self._path, data.encode(errors="replace"), mode=0o600, private=True)


def remembered(messages: Sequence[Message], limit: int = REMEMBERED_CHARACTERS) -> list[Message]:
    """The newest turns that together have at most `limit` characters, or the newest one alone.

    A turn begins with what a user says: cut elsewhere, a result would answer nothing.
    """
    turns: list[list[Message]] = []
    for message in messages:
        if message.role is Role.USER or not turns:
            turns.append([])
        turns[-1].append(message)
    kept: list[list[Message]] = []
    size = 0
    for turn in reversed(turns):
        size += sum(_size(message) for message in turn)
        if kept and size > limit:
            break
        kept.insert(0, turn)
    return [message for turn in kept for message in turn]


def _size(message: Message) -> int:
    return len(message.text) + sum(len(json.dumps(use.arguments)) for use in message.tool_uses)


def _stored(message: Message) -> dict[str, Any]:
    return dataclasses.asdict(message)


def _message(value: dict[str, Any]) -> Message:
    uses = tuple(ToolUse(**use) for use in value.pop("tool_uses"))
    return Message(**{**value, "role": Role(value["role"])}, tool_uses=uses)

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
from graphton.tools import shortened

_log = logging.getLogger(__name__)

VERSION: Final = 1

REMEMBERED_CHARACTERS: Final = 200_000
"""How much of a thread a model is told: about 50 000 tokens. The oldest is forgotten first."""

STORED_BYTES: Final = 20_000_000
"""No file of ours is larger."""

STORED_CHARACTERS: Final = 2000
"""The longest argument of a tool that is kept. Texts may be ten times as long."""

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
        kept = remembered([_shortened(message) for message in messages])
        data = _encoded(kept)
        if len(data) > STORED_BYTES:
            # A turn with thousands of uses of tools, then: what was asked is what counts.
            data = _encoded([message for message in kept if message.role is Role.USER])
        self._folder.write(self._path, data, mode=0o600, private=True)


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


def _encoded(messages: Sequence[Message]) -> bytes:
    stored = {"version": VERSION, "messages": [dataclasses.asdict(m) for m in messages]}
    return json.dumps(stored, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _size(message: Message) -> int:
    return len(message.text) + sum(len(json.dumps(use.arguments)) for use in message.tool_uses)


def _shortened(message: Message) -> Message:
    """A message without most of what is long in it: whoever wrote a file can read it again."""

    def short(value: Any) -> Any:
        return shortened(value, STORED_CHARACTERS) if isinstance(value, str) else value

    uses = tuple(
        dataclasses.replace(use, arguments={k: short(v) for k, v in use.arguments.items()})
        for use in message.tool_uses
    )
    return dataclasses.replace(
        message, text=shortened(message.text, 10 * STORED_CHARACTERS), tool_uses=uses
    )


def _message(value: dict[str, Any]) -> Message:
    uses = tuple(ToolUse(**use) for use in value.pop("tool_uses"))
    return Message(**{**value, "role": Role(value["role"])}, tool_uses=uses)

"""Stores the messages of a thread (a conversation) in a private folder, for later executions."""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from typing import Any, Final

from graphton.chat import Message, Omission, Part, Reasoning, Role, Text, ToolUse
from graphton.compaction import fit
from graphton.files import PRIVATE_FOLDER, FilesError, Folder
from graphton.text import compact_json

_log = logging.getLogger(__name__)

FORMAT_VERSION: Final = 2
"""Version 1 had one text and the tool uses instead of parts. It is still read."""

MAX_STORED_BYTES: Final = 20_000_000
"""The maximum size of the file."""

_MAX_STORED_TOKENS: Final = 1_000_000
"""The size to which a conversation is shortened if the file would be larger than that."""

_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ThreadMemory:
    """The stored messages of one thread. Only one process at a time may use it.

    Args:
        folder: The sandbox.
        thread_id: The id of the thread.
    """

    def __init__(self, folder: Folder, thread_id: str) -> None:
        self._folder = folder
        safe = _FILE_NAME.fullmatch(thread_id)
        name = thread_id if safe else hashlib.sha256(thread_id.encode()).hexdigest()
        self._path = f"{PRIVATE_FOLDER}/threads/{name}.json"

    def load(self) -> list[Message]:
        """Return the messages of earlier executions. A new thread has none.

        If the file does not have the expected content, a copy of it is kept beside it, and the
        conversation begins anew, with a warning.

        Raises:
            FilesError: if there is a file and it cannot be read, or not be copied.
        """
        try:
            data = self._folder.read(self._path, MAX_STORED_BYTES + 1, private=True)
        except FilesError as error:
            if isinstance(error.__context__, FileNotFoundError):
                return []
            raise FilesError(f"the memory of this conversation cannot be read: {error}") from None
        try:
            stored = json.loads(data)
            decode = {1: _decode_v1, FORMAT_VERSION: _decode}[stored["version"]]
            return [decode(item) for item in stored["messages"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            copy = f"{self._path}.unreadable"
            self._folder.write(copy, data, mode=0o600, private=True)
            _log.warning(
                "the stored messages in `%s` cannot be used (%s: %s): the conversation begins anew;"
                " `%s` has a copy",
                *(self._path, type(error).__name__, error, copy),
            )
            return []

    def save(self, messages: Sequence[Message]) -> None:
        """Store messages as they are, except if the file would become too large to read.

        Raises:
            FilesError: if the file cannot be written.
        """
        data = _to_json(messages)
        if len(data) > MAX_STORED_BYTES:
            data = _to_json(fit(messages, _MAX_STORED_TOKENS))
        self._folder.write(self._path, data, mode=0o600, private=True)


def _to_json(messages: Sequence[Message]) -> bytes:
    stored = {"version": FORMAT_VERSION, "messages": [_encode(message) for message in messages]}
    return compact_json(stored).encode(errors="replace")


def _encode(message: Message) -> dict[str, Any]:
    stored: dict[str, Any] = {
        "role": message.role.value,
        "parts": [_encode_part(part) for part in message.parts],
    }
    for name in ("tool_use_id", "failed", "author", "prompt"):
        if value := getattr(message, name):
            stored[name] = value
    return stored


def _encode_part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text, data):
            return {"type": "text", "text": text, "data": data}
        case Reasoning(data, bound):
            return {"type": "reasoning", "data": data, "bound": bound}
        case ToolUse(use_id, name, arguments, problem, data):
            return {"type": "tool_use", "id": use_id, "name": name, "arguments": arguments,
                    "problem": problem, "data": data}  # fmt: skip
        case Omission(replies):
            return {"type": "omission", "replies": replies}


_PARTS: Final[dict[str, type[Part]]] = {
    "text": Text,
    "reasoning": Reasoning,
    "tool_use": ToolUse,
    "omission": Omission,
}


def _decode(stored: dict[str, Any]) -> Message:
    parts = [_PARTS[part.pop("type")](**part) for part in stored.pop("parts")]
    return Message(role=Role(stored.pop("role")), parts=tuple(parts), **stored)


def _decode_v1(stored: dict[str, Any]) -> Message:
    text, uses = stored.pop("text"), [ToolUse(**use) for use in stored.pop("tool_uses")]
    parts = (*((Text(text),) if text or not uses else ()), *uses)
    return Message(role=Role(stored.pop("role")), parts=parts, **stored)

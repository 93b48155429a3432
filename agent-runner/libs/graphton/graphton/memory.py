"""Stores the messages of a thread (a conversation) in the sandbox, for later executions."""

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from typing import Any, Final

from graphton.chat import Message, Role, ToolUse
from graphton.files import PRIVATE_FOLDER, FilesError, Folder
from graphton.text import truncate_middle

_log = logging.getLogger(__name__)

FORMAT_VERSION: Final = 1

MAX_HISTORY_CHARACTERS: Final = 200_000
"""The maximum length of the stored messages: about 50 000 tokens. The oldest are dropped first."""

MAX_STORED_BYTES: Final = 20_000_000
"""The maximum size of the file."""

MAX_STORED_ARGUMENT_CHARACTERS: Final = 2000
"""The maximum length of one argument of a tool."""

MAX_STORED_TEXT_CHARACTERS: Final = 20_000
"""The maximum length of the text of one message."""

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
        """Return the messages of earlier executions.

        A new thread has none. A file that cannot be parsed counts as none, with a warning.
        """
        try:
            data = self._folder.read(self._path, MAX_STORED_BYTES, private=True)
        except FilesError:
            return []
        try:
            stored = json.loads(data)
            if stored["version"] != FORMAT_VERSION:
                raise ValueError(f"version {stored['version']}")
            return [_from_json(item) for item in stored["messages"]]
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("the stored messages in `%s` cannot be read: %s", self._path, error)
            return []

    def save(self, messages: Sequence[Message]) -> None:
        """Store messages. Long ones are shortened, and the oldest are dropped.

        Raises:
            FilesError: if the file cannot be written.
        """
        kept = newest_turns([_abridge(message) for message in messages])
        data = _to_json(kept)
        if len(data) > MAX_STORED_BYTES:
            # A single turn with thousands of tool uses. Keep the requests only.
            data = _to_json([message for message in kept if message.role is Role.USER])
        self._folder.write(self._path, data, mode=0o600, private=True)


def newest_turns(messages: Sequence[Message], limit: int = MAX_HISTORY_CHARACTERS) -> list[Message]:
    """Return the newest turns with at most `limit` characters together, but at least one turn.

    A turn begins with a user's message. Cutting within a turn could separate the result of a tool
    from the message that asked for it.
    """
    turns: list[list[Message]] = []
    for message in messages:
        if message.role is Role.USER or not turns:
            turns.append([])
        turns[-1].append(message)
    kept: list[list[Message]] = []
    size = 0
    for turn in reversed(turns):
        size += sum(_count_characters(message) for message in turn)
        if kept and size > limit:
            break
        kept.insert(0, turn)
    return [message for turn in kept for message in turn]


def _to_json(messages: Sequence[Message]) -> bytes:
    stored = {"version": FORMAT_VERSION, "messages": [dataclasses.asdict(m) for m in messages]}
    return json.dumps(stored, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _count_characters(message: Message) -> int:
    return len(message.text) + sum(len(json.dumps(use.arguments)) for use in message.tool_uses)


def _abridge(message: Message) -> Message:
    """Shorten the long texts of a message. The agent can still read the files that it wrote."""

    def short(value: Any) -> Any:
        if isinstance(value, str):
            return truncate_middle(value, MAX_STORED_ARGUMENT_CHARACTERS)
        return value

    uses = tuple(
        dataclasses.replace(use, arguments={k: short(v) for k, v in use.arguments.items()})
        for use in message.tool_uses
    )
    return dataclasses.replace(
        message, text=truncate_middle(message.text, MAX_STORED_TEXT_CHARACTERS), tool_uses=uses
    )


def _from_json(value: dict[str, Any]) -> Message:
    uses = tuple(ToolUse(**use) for use in value.pop("tool_uses"))
    return Message(**{**value, "role": Role(value["role"])}, tool_uses=uses)

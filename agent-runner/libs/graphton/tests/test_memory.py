"""Tests the stored messages of a conversation."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphton.chat import Message, Omission, Reasoning, Role, Text, ToolUse
from graphton.files import FilesError, Folder
from graphton.memory import MAX_STORED_BYTES, ThreadMemory


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "box/.tmp").mkdir(parents=True)
    with Folder(tmp_path / "box") as folder:
        yield folder


def file_of(folder: Folder) -> Path:
    (path,) = (folder.root / ".graphton/threads").glob("*.json")
    return path


def test_every_part_comes_back_as_it_was(folder: Folder) -> None:
    thread = ThreadMemory(folder, "odd/../name")
    parts = (
        Reasoning({"type": "thinking", "thinking": "", "signature": "Eq=="}, bound=True),
        Text("I look.", {"phase": "commentary"}),
        Reasoning({"reasoning_content": ""}),
        ToolUse("1", "t", {"a": [1, None]}, "", {"extra_content": {"google": {"x": "y"}}}),
        ToolUse("2", "t", {}, "the arguments are not JSON"),
    )
    said = [
        Message(role=Role.USER, parts=(Omission(3), Text("ä"))),
        Message(role=Role.ASSISTANT, parts=parts, author="openai at x m", prompt="abc"),
        Message.result("1", "no", failed=True),
    ]
    assert thread.load() == []
    thread.save(said)
    assert ThreadMemory(folder, "odd/../name").load() == said
    assert ThreadMemory(folder, "other").load() == []


def test_the_older_format_is_read(folder: Folder) -> None:
    use = {"id": "1", "name": "t", "arguments": {"a": 1}, "problem": ""}
    none = {"tool_uses": [], "tool_use_id": "", "failed": False}
    messages = [
        {"role": "user", "text": "hello", **none},
        {"role": "assistant", "text": "", **none, "tool_uses": [use]},
        {"role": "tool", "text": "gone", **none, "tool_use_id": "1", "failed": True},
        {"role": "assistant", "text": "Done.", **none},
    ]
    thread = ThreadMemory(folder, "t")
    data = json.dumps({"version": 1, "messages": messages}).encode()
    folder.write(".graphton/threads/t.json", data, private=True)
    assert thread.load() == [
        Message.user("hello"),
        Message(role=Role.ASSISTANT, parts=(ToolUse("1", "t", {"a": 1}),)),
        Message.result("1", "gone", failed=True),
        Message(role=Role.ASSISTANT, parts=(Text("Done."),)),
    ]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 3}', '{"version": 2, "messages": [{}]}', "null"]
)
def test_a_file_with_other_content_is_kept_beside_the_new_one(
    folder: Folder, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    thread = ThreadMemory(folder, "t")
    thread.save([Message.user("x")])
    file_of(folder).write_text(text)
    assert thread.load() == []
    assert "`.graphton/threads/t.json.unreadable` has a copy" in caplog.text
    thread.save([Message.user("y")])
    assert (folder.root / ".graphton/threads/t.json.unreadable").read_text() == text
    assert thread.load() == [Message.user("y")]


def test_a_file_that_cannot_be_read_is_an_error(folder: Folder) -> None:
    thread = ThreadMemory(folder, "t")
    thread.save([Message.user("x")])
    path = file_of(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(FilesError, match="the memory of this conversation cannot be read"):
        thread.load()


@pytest.mark.parametrize("number", [5, 13])  # EIO, EACCES
def test_an_error_of_the_disk_is_an_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    thread = ThreadMemory(folder, "t")
    thread.save([Message.user("x")])
    real = os.open

    def broken(path: str, *arguments: int, **named: int) -> int:
        if path == "t.json":
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(FilesError, match=os.strerror(number)):
        thread.load()
    monkeypatch.undo()
    assert thread.load() == [Message.user("x")]


def test_a_file_never_becomes_too_large_to_read(folder: Folder) -> None:
    thread = ThreadMemory(folder, "t")
    turn = [Message.user("do much")]
    for n in range(60):
        use = ToolUse(f"c{n}", "write_file", {"content": "x" * 500_000})
        turn.append(Message(role=Role.ASSISTANT, parts=(use,)))
        turn.append(Message.result(use.id, "y" * 30_000))
    thread.save(turn[:21])
    assert thread.load() == turn[:21]
    thread.save(turn)
    assert file_of(folder).stat().st_size <= MAX_STORED_BYTES
    kept = thread.load()
    assert kept[0].text == "do much"
    assert kept[-1] == turn[-1]

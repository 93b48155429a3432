"""Tests the recognition of tool calls that a model wrote as text."""

from typing import Any

import pytest

from graphton.chat import ModelError, Reasoning, Reply, Text, ToolUse
from graphton.providers.text_calls import find_text_calls

TOOLS = ["list_files", "read_file", "run_command"]
READ: dict[str, Any] = {"path": "a.txt"}


@pytest.mark.parametrize(
    ("text", "calls", "rest"),
    [
        ('{"name": "read_file", "arguments": {"path": "a.txt"}}', [("read_file", READ)], ""),
        ('\n{"name": "read_file", "parameters": {"path": "a.txt"}}\n', [("read_file", READ)], ""),
        ('{"name": "read_file", "arguments": {"path": "a.txt"}}\n'
         '{"name": "list_files", "arguments": {}}', [("read_file", READ), ("list_files", {})], ""),
        ('[{"name": "list_files", "arguments": {}}]', [("list_files", {})], ""),
        ('```json\n{"name": "read_file", "arguments": {"path": "a.txt"}}\n```',
         [("read_file", READ)], ""),
        ('I read it.\n```\n{"name": "read_file", "arguments": {"path": "a.txt"}}\n```\nThen more.',
         [("read_file", READ)], "I read it.\n\nThen more."),
        ('<tool_call>\n{"name": "read_file", "arguments": {"path": "a.txt"}}\n</tool_call>',
         [("read_file", READ)], ""),
        ('First.<tool_call>{"name": "read_file", "arguments": {"path": "a.txt"}}</tool_call>'
         '<tool_call>{"name": "list_files", "arguments": "{}"}',
         [("read_file", READ), ("list_files", {})], "First."),
        ('<tools>\n{"name": "list_files", "arguments": {}}\n</tools>', [("list_files", {})], ""),
        ("<tool_call>\n<function=run_command>\n<parameter=command>\nls 'a b'\n</parameter>\n"
         "<parameter=timeout_seconds>\n5\n</parameter>\n</function>\n</tool_call>",
         [("run_command", {"command": "ls 'a b'", "timeout_seconds": 5})], ""),
        ("<function=read_file><parameter=path>a.txt</parameter></function>",
         [("read_file", READ)], ""),
        ('[TOOL_CALLS][{"name": "list_files", "arguments": {}}]', [("list_files", {})], ""),
        ('{"type": "function", "function": {"name": "list_files", "arguments": {}}}',
         [("list_files", {})], ""),
        ('{"name": "run_command", "arguments": {"command": "a\nb"}}',
         [("run_command", {"command": "a\nb"})], ""),
    ],
)  # fmt: skip
def test_known_forms(text: str, calls: list[tuple[str, dict[str, Any]]], rest: str) -> None:
    reply = find_text_calls(
        Reply((Reasoning({"thinking": "x"}), Text(text))), TOOLS, within_text=True
    )
    assert [(use.name, use.arguments) for use in reply.tool_uses] == calls
    assert reply.text == rest
    assert reply.parts[0] == Reasoning({"thinking": "x"})
    assert len({use.id for use in reply.tool_uses}) == len(calls)


@pytest.mark.parametrize(
    "text",
    [
        "Done.",
        '{"name": "Ada", "arguments": {"a": 1}}',  # not a tool
        'The file has ```json\n{"name": "left-pad", "version": "1"}\n``` in it.',
        '{"name": "read_file"}',
        "Use `read_file(...)` for that.",
        "",
    ],
)
def test_other_texts_stay(text: str) -> None:
    reply = Reply((Text(text),))
    assert find_text_calls(reply, TOOLS, within_text=True) is reply


def test_a_reply_with_calls_stays() -> None:
    text = '{"name": "list_files", "arguments": {}}'
    reply = Reply((Text(text), ToolUse("1", "list_files", {})))
    assert find_text_calls(reply, TOOLS, within_text=True) is reply


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "read_file", "arguments": {"path": oops}}',
        '<tool_call>{"name": "fly", "arguments": {}}</tool_call>',
        '{"name": "read_file", "arguments": {}, "why": "an example"}',
        '```json\n{"name": "run_command", "arguments": {"command": "x"',
        "read_file({path: 'a.txt'})",
        "<function=fly><parameter=to>x</parameter></function>",
    ],
)
def test_a_call_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(ModelError, match="use a model that can call tools, such as qwen3:8b"):
        find_text_calls(Reply((Text(text),)), TOOLS, within_text=True)
    find_text_calls(Reply((Text(text),), truncated=True), TOOLS, within_text=True)


def test_json_between_other_text_may_be_an_example() -> None:
    call = '```json\n{"name": "list_files", "arguments": {}}\n```'
    example = Reply((Text(f"I call tools like this:\n{call}"),))
    assert find_text_calls(example, TOOLS, within_text=False) is example
    assert find_text_calls(example, TOOLS, within_text=True).tool_uses
    alone = find_text_calls(Reply((Text(call),)), TOOLS, within_text=False)
    assert [use.name for use in alone.tool_uses] == ["list_files"]

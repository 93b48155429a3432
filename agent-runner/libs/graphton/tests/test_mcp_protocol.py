"""Tests what is decided about the messages and the names of MCP servers."""

import re
from random import Random
from typing import Any

import pytest

from graphton.mcp import naming
from graphton.mcp.naming import tool_names
from graphton.mcp.protocol import (
    McpError,
    is_answer_to,
    parse,
    parse_tools,
    redacted,
    reply_to,
    result_of,
    tool_result,
)


def test_a_name_says_the_server_and_the_tool() -> None:
    assert tool_names([("github", "create_issue")]) == {
        ("github", "create_issue"): "github__create_issue"
    }


@pytest.mark.parametrize(
    ("server", "tool"),
    [("my server", "a.b/c"), ("1st", "x"), ("données", "lire"), ("s" * 80, "t" * 80), ("", "")],
)
def test_each_name_is_valid_everywhere(server: str, tool: str) -> None:
    (name,) = tool_names([(server, tool)]).values()
    assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}", name)


def test_names_that_would_be_the_same_differ_and_do_not_depend_on_the_order() -> None:
    tools = [("a.b", "x"), ("a b", "x"), ("a", "b__x"), ("a__b", "x")]
    names = tool_names(tools)
    assert len(set(names.values())) == 4
    assert names == tool_names(reversed(tools))
    assert all(len(name) <= 64 for name in names.values())


def test_long_names_keep_their_beginning() -> None:
    first, second = tool_names([("s" * 70, "one"), ("s" * 70, "two")]).values()
    assert first != second
    assert first.startswith("s" * 50)


def test_a_reserved_name_is_not_used() -> None:
    assert tool_names([("read", "file")], {"read__file"})["read", "file"] != "read__file"


def test_the_name_of_a_tool_is_never_that_of_another() -> None:
    clash = [("a.b", "x"), ("a b", "x")]
    server, _, tool = tool_names(clash)["a.b", "x"].partition("__")
    names = tool_names([*clash, (server, tool)])
    assert len(set(names.values())) == 3


@pytest.mark.parametrize("seed", range(50))
def test_all_names_differ_from_each_other_and_from_reserved_ones(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With digests of one or two characters, many of them are the same.
    monkeypatch.setattr(naming, "_DIGEST_SIZES", [1, 2, 3, 8, 56])
    random = Random(seed)  # noqa: S311
    parts = ["a", "_", ".", "\0", "é", "\ud800", "?", "x" * 30, "x" * 60]

    def some() -> str:
        return "".join(random.choices(parts, k=random.randrange(4)))

    tools = {(some(), some()) for _ in range(40)}
    for _ in range(3):  # names that others get, as names of tools and as reserved ones
        found = tool_names(tools)
        tools |= {
            (server, tool)
            for name in random.sample(sorted(found.values()), 5)
            for server, _, tool in [name.partition("__")]
        }
    reserved = set(random.sample(sorted(tool_names(tools).values()), 5))
    names = tool_names(tools, reserved)
    assert names.keys() == tools
    assert len(set(names.values())) == len(tools)
    assert not reserved & set(names.values())
    assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}", name) for name in names.values())
    assert names == tool_names(sorted(tools), reserved)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
         "one\ntwo"),
        ({"content": []}, "(no output)"),
        ({}, "(no output)"),
        ({"content": [{"type": "image", "mimeType": "image/png", "data": "AAEC"}]},
         "[image, image/png, 3 bytes, not shown]"),
        ({"content": [{"type": "audio", "mimeType": "audio/wav", "data": "AAE="}]},
         "[audio, audio/wav, 2 bytes, not shown]"),
        ({"content": [{"type": "resource", "resource": {"uri": "x://1", "text": "hello"}}]},
         "[resource x://1]\nhello"),
        ({"content": [{"type": "resource",
                       "resource": {"uri": "x://1", "mimeType": "a/b", "blob": "AAEC"}}]},
         "[resource x://1, a/b, 3 bytes, not shown]"),
        ({"content": [{"type": "resource_link", "uri": "x://1", "name": "one"}]},
         "[resource x://1: one]"),
        ({"content": [{"type": "hologram"}, 7]},
         "[content of the unknown type hologram, not shown]\n"
         "[content of the unknown type int, not shown]"),
        ({"content": [], "structuredContent": {"a": 1}}, '{"a":1}'),
        ({"content": [{"type": "text", "text": "a is 1"}], "structuredContent": {"a": 1}},
         "a is 1"),
    ],
)  # fmt: skip
def test_a_result_becomes_a_text(result: dict[str, Any], text: str) -> None:
    assert tool_result(result) == (text, False)
    assert tool_result({**result, "isError": True}) == (text, True)


def test_a_schema_becomes_one_that_model_services_accept() -> None:
    page = {
        "tools": [
            {"name": "none"},
            {"name": "odd", "inputSchema": {"type": ["object"], "properties": None}},
            {
                "name": "choice",
                "title": "A title",
                "inputSchema": {
                    "$schema": "http://json-schema.org/draft-07/schema#",
                    "type": "object",
                    "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
                    "anyOf": [{"required": ["a"]}],
                    "additionalProperties": False,
                },
            },
        ]
    }
    tools, cursor = parse_tools(page)
    assert cursor is None
    assert [tool.schema for tool in tools] == [
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}},
        {
            "type": "object",
            "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            "additionalProperties": False,
        },
    ]
    assert tools[2].description == "A title"


@pytest.mark.parametrize("page", [{}, {"tools": {}}, {"tools": [7]}, {"tools": [{"name": None}]}])
def test_a_list_that_is_not_one_is_an_error(page: dict[str, Any]) -> None:
    with pytest.raises(McpError, match="its list"):
        parse_tools(page)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"error": {"code": -32602, "message": "no\nsuch tool"}}, "error -32602: no such tool"),
        ({"error": {}}, "error without a code: no reason given"),
        ({"result": 7}, "no result"),
        ({}, "no result"),
    ],
)
def test_an_answer_without_a_result_is_an_error(answer: dict[str, Any], text: str) -> None:
    with pytest.raises(McpError, match=text):
        result_of(answer)


def test_secrets_in_a_schema_are_replaced_but_names_stay() -> None:
    schema = {
        "type": "object",
        "properties": {
            "string": {"type": ["string", "null"], "enum": ["a string"], "pattern": "string"},
            "required": {"type": "object", "properties": {}, "title": "string"},
            "type": {"description": "string", "examples": [{"string": 1, "x": "string"}]},
        },
        "required": ["string"],
    }
    page = {"tools": [{"name": "t", "description": "a string", "inputSchema": schema}]}
    ((found,), _) = parse_tools(page)
    tool = redacted(found, lambda text: text.replace("string", "[secret]"))
    assert tool.description == "a [secret]"
    assert tool.schema == {
        "type": "object",
        "properties": {
            "string": {"type": ["string", "null"], "enum": ["a [secret]"], "pattern": "string"},
            "required": {"type": "object", "properties": {}, "title": "[secret]"},
            "type": {"description": "[secret]", "examples": [{"string": 1, "x": "[secret]"}]},
        },
        "required": ["string"],
    }


def test_a_number_that_json_cannot_write_becomes_a_text() -> None:
    item = parse('{"name": "t", "inputSchema": {"default": [1e999, -1e999, NaN, 1.5]}}')
    ((tool,), _) = parse_tools({"tools": [item]})
    assert tool.schema["default"] == ["Infinity", "-Infinity", "NaN", 1.5]


@pytest.mark.parametrize("number", ["1.0", "true", '"1"', "null", "[1]"])
def test_an_answer_has_exactly_the_number_of_its_request(number: str) -> None:
    assert is_answer_to(parse('{"id": 1, "result": {}}'), 1)
    assert not is_answer_to(parse('{"id": 1, "method": "ping"}'), 1)
    assert not is_answer_to(parse(f'{{"id": {number}, "result": {{}}}}'), 1)


def test_only_ping_is_answered_with_a_result() -> None:
    assert reply_to({"id": "p", "method": "ping"}) == {"jsonrpc": "2.0", "id": "p", "result": {}}
    for method in ("sampling/createMessage", "roots/list", "elicitation/create"):
        assert reply_to({"id": 1, "method": method})["error"]["code"] == -32601

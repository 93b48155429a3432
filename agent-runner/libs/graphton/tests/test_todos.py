"""Tests the tool with which a model keeps a list of what it has to do."""

from collections.abc import Sequence
from typing import Any

import pytest

from graphton.todos import MAX_TODOS, Todo, TodoList
from graphton.tools import Tool, ToolError


@pytest.fixture
def seen() -> list[Sequence[Todo]]:
    return []


@pytest.fixture
def write(seen: list[Sequence[Todo]]) -> Tool:
    return TodoList(seen.append).tool


def item(name: str, status: str = "pending", content: str = "") -> dict[str, str]:
    return {"id": name, "content": content or f"do {name}", "status": status}


async def test_each_call_replaces_the_list(write: Tool, seen: list[Sequence[Todo]]) -> None:
    first = await write.call({"todos": [item("a", "in_progress"), item("b")]})
    assert first == "the list has 2 items: 1 in progress, 1 pending"
    await write.call({"todos": [item("a", "completed"), item("b", "in_progress")]})
    assert [[(todo.id, todo.status) for todo in todos] for todos in seen] == [
        [("a", "in_progress"), ("b", "pending")],
        [("a", "completed"), ("b", "in_progress")],
    ]


async def test_what_is_left_out_is_cancelled_unless_it_was_done(
    write: Tool, seen: list[Sequence[Todo]]
) -> None:
    await write.call({"todos": [item("a", "completed"), item("b", "in_progress"), item("c")]})
    assert await write.call({"todos": [item("d")]}) == "the list has 1 item: 1 pending"
    states = {todo.id: todo.status for todo in seen[-1]}
    assert states == {"a": "completed", "b": "cancelled", "c": "cancelled", "d": "pending"}
    await write.call({"todos": [item("b"), item("d")]})
    assert {todo.id: todo.status for todo in seen[-1]}["b"] == "pending"


@pytest.mark.parametrize(
    ("todos", "problem"),
    [
        ([item("a"), item("a"), item("b")], "an id of its own: `a`"),
        ([item("")], r"todos\.0\.id"),
        ([item("a", content="x" * 501)], r"todos\.0\.content"),
        ([item("a", "done")], r"todos\.0\.status"),
        ([{**item("a"), "priority": "high"}], r"todos\.0\.priority"),
        ([item(f"{n}") for n in range(MAX_TODOS + 1)], "wrong arguments"),
    ],
    ids=["twice", "no-id", "long", "status", "unknown", "many"],
)
async def test_a_wrong_list_changes_nothing(
    write: Tool, seen: list[Sequence[Todo]], todos: list[Any], problem: str
) -> None:
    with pytest.raises(ToolError, match=problem):
        await write.call({"todos": todos})
    assert not seen


async def test_items_that_were_left_out_count(write: Tool, seen: list[Sequence[Todo]]) -> None:
    await write.call({"todos": [item(f"{n}") for n in range(MAX_TODOS)]})
    with pytest.raises(ToolError, match=f"more than {MAX_TODOS}"):
        await write.call({"todos": [item("one more")]})
    assert len(seen) == 1


def test_the_schema_has_no_references(write: Tool) -> None:
    schema = write.schema
    assert "$defs" not in schema
    assert "description" not in schema
    items = schema["properties"]["todos"]["items"]
    assert items["required"] == ["id", "content", "status"]
    assert "description" not in items, "the docstring is for developers"
    assert items["properties"]["status"] == {
        "enum": ["pending", "in_progress", "completed", "cancelled"],
        "type": "string",
    }
    assert items["properties"]["content"]["description"] == "what to do"

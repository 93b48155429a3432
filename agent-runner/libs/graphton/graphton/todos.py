"""The tool with which a model keeps a list of what it has to do."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from pydantic import Field

from graphton.tools import Tool, ToolArguments, ToolError

MAX_TODOS: Final = 100
"""How many items a list may have, together with those that were left out of it later."""

MAX_TODO_CHARACTERS: Final = 500
"""The maximum length of an item."""

TodoStatus = Literal["pending", "in_progress", "completed", "cancelled"]


class TodoArgument(ToolArguments):
    """An item in the arguments of write_todos."""

    id: Annotated[
        str, Field(description="names the item; keep it between calls", min_length=1, max_length=64)
    ]
    content: Annotated[
        str, Field(description="what to do", min_length=1, max_length=MAX_TODO_CHARACTERS)
    ]
    status: TodoStatus


class WriteTodos(ToolArguments):
    """Arguments of write_todos."""

    todos: Annotated[list[TodoArgument], Field(description="the whole list", max_length=MAX_TODOS)]


@dataclass(frozen=True, slots=True)
class Todo:
    """An item of the list.

    Attributes:
        id: Identifies it within the list.
        content: What to do.
        status: How far it is.
    """

    id: str
    content: str
    status: TodoStatus


class TodoList:
    """The list of one run.

    An item does not disappear: if the model leaves it out of a later list, it stays as it was if it
    was completed, else it becomes cancelled. stigmer-server ignores an empty list, and would show
    for ever what was only removed.

    Args:
        on_change: Called with all items after each change.
    """

    def __init__(self, on_change: Callable[[Sequence[Todo]], None]) -> None:
        self._on_change = on_change
        self._todos: dict[str, Todo] = {}

    @property
    def tool(self) -> Tool:
        """The tool that replaces the list."""
        return Tool(
            name="write_todos",
            description="Keep a list of what you have to do, which the user sees. Use it for work "
            "of several steps: write the list first, and again whenever a step begins or ends. "
            "Each call replaces the whole list.",
            arguments=WriteTodos,
            run=self._write,
        )

    async def _write(self, arguments: WriteTodos) -> str:
        given = {item.id: Todo(item.id, item.content, item.status) for item in arguments.todos}
        if len(given) < len(arguments.todos):
            counts = Counter(item.id for item in arguments.todos)
            twice = ", ".join(f"`{name}`" for name, count in counts.items() if count > 1)
            raise ToolError(f"the list was not changed: each item needs an id of its own: {twice}")
        left_out = {
            todo.id: todo if todo.status == "completed" else replace(todo, status="cancelled")
            for todo in self._todos.values()
            if todo.id not in given
        }
        if len(given) + len(left_out) > MAX_TODOS:
            raise ToolError(
                f"the list was not changed: with the items that were in it before, it would have "
                f"more than {MAX_TODOS}; use their ids again"
            )
        self._todos = {**left_out, **given}
        self._on_change(tuple(self._todos.values()))
        counts = Counter(todo.status for todo in given.values())
        listed = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.items())
        items = "item" if len(given) == 1 else "items"
        return f"the list has {len(given)} {items}" + (f": {listed}" if listed else "")

"""Tests the status of an execution."""

import json
import math
import time

from google.protobuf.json_format import MessageToDict, MessageToJson

from graphton.chat import ModelError, Reply, Text, ToolUse
from graphton.todos import Todo
from stigmer_stubs import agentexecution_pb2 as pb
from worker.progress import Progress
from worker.redaction import Redactor
from worker.status import (
    MAX_STATUS_BYTES,
    MAX_STATUS_RESULT_CHARACTERS,
    json_size,
    shrink_to_fit,
    wire_size,
)


def begin(request: str, redactor: Redactor) -> Progress:
    progress = Progress(request, Redactor())
    progress.set_redactor(redactor)
    return progress


def finished(progress: Progress, use: ToolUse, result: str, failed: bool = False) -> None:
    progress.reply_received(Reply((use,)))
    progress.tool_started(use)
    progress.tool_finished(use, result, failed)


def test_the_status_during_an_execution() -> None:
    progress = begin("do it with hunter2", Redactor([("P", "hunter2")]))
    progress.changed.clear()
    progress.text_received("I wi")
    assert not progress.changed.is_set()
    assert [m.content for m in progress.status.messages] == ["do it with [secret P]"]
    use = ToolUse("c1", "run_command", {"command": "echo hunter2", "n": math.nan})
    progress.reply_received(Reply((Text("I will."), use)))
    (call,) = progress.status.tool_calls
    assert call.status == pb.TOOL_CALL_PENDING
    progress.tool_started(use)
    assert call.status == progress.status.messages[1].tool_calls[0].status == pb.TOOL_CALL_RUNNING
    progress.tool_finished(use, "hunter2", failed=False)
    progress.reply_received(Reply((Text("Done: hunter2"),)))
    progress.end(pb.EXECUTION_COMPLETED)

    shown = MessageToDict(progress.status, preserving_proto_field_name=True)
    assert "hunter2" not in json.dumps(shown)
    assert [m["type"] for m in shown["messages"]] == [
        "MESSAGE_HUMAN",
        "MESSAGE_AI",
        "MESSAGE_TOOL",
        "MESSAGE_AI",
    ]
    assert shown["messages"][2]["metadata"] == {"tool_call_id": "c1", "tool_name": "run_command"}
    assert shown["tool_calls"][0]["args"] == {"command": "echo [secret P]", "n": "nan"}
    assert shown["tool_calls"][0]["result"] == "[secret P]"
    assert shown["phase"] == "EXECUTION_COMPLETED"


def test_the_request_is_added_when_all_secrets_are_known() -> None:
    progress = Progress("use hunter2", Redactor())
    assert not progress.status.messages
    progress.set_redactor(Redactor([("P", "hunter2")]))
    assert [m.content for m in progress.status.messages] == ["use [secret P]"]
    fetched = Progress("", Redactor())
    fetched.set_redactor(Redactor(), "from the server")
    assert [m.content for m in fetched.status.messages] == ["from the server"]
    early = Progress("hello", Redactor())
    early.end(pb.EXECUTION_FAILED, "nobody there")
    assert [m.content for m in early.status.messages] == ["hello"]


def test_an_incomplete_reply_is_shown_at_the_end_only() -> None:
    progress = begin("x", Redactor([("P", "hunter2")]))
    progress.text_received("half an ans")
    progress.retrying(ModelError("broken"), 1)
    progress.text_received("it is hunt")
    assert [m.content for m in progress.status.messages] == ["x"]
    progress.end(pb.EXECUTION_CANCELLED, "cancelled")
    progress.end(pb.EXECUTION_CANCELLED, "cancelled")
    assert [m.content for m in progress.status.messages] == ["x", "it is "]


def test_unfinished_tool_calls_have_failed_at_the_end() -> None:
    progress = begin("x", Redactor())
    use = ToolUse("c1", "t", {})
    progress.reply_received(Reply((use,)))
    progress.tool_started(use)
    progress.end(pb.EXECUTION_CANCELLED, "cancelled")
    assert progress.status.tool_calls[0].status == pb.TOOL_CALL_FAILED
    assert progress.status.messages[1].tool_calls[0].status == pb.TOOL_CALL_FAILED
    assert progress.status.error == "cancelled"


def test_a_status_is_never_too_large_for_temporal() -> None:
    progress = begin("first", Redactor())
    for n in range(400):
        use = ToolUse(f"c{n}", "write_file", {"content": "\x01" * 20_000, "deep": {"er": ["x"]}})
        finished(progress, use, "ü\n" * 6000, failed=bool(n % 2))
    progress.reply_received(Reply((Text("last " + "w" * 50_000),)))
    sent = shrink_to_fit(progress.status, wire_size)
    assert sent.ByteSize() <= MAX_STATUS_BYTES < progress.status.ByteSize()
    small = shrink_to_fit(progress.status, json_size)
    assert len(MessageToJson(small, indent=None)) <= MAX_STATUS_BYTES
    assert small.messages[0].content == "first"
    assert small.messages[-1].content == progress.status.messages[-1].content
    assert len(small.tool_calls) > 100
    long = begin("first", Redactor())
    long.reply_received(Reply((Text("last " + "\x01" * 300_000),)))
    shown = shrink_to_fit(long.status, json_size)
    assert len(MessageToJson(shown, indent=None)) <= MAX_STATUS_BYTES
    assert shown.messages[-1].content.startswith("last \x01")
    many = begin("first", Redactor())
    for _ in range(20_000):
        many.reply_received(Reply((Text("x" * 100),)))
    assert (
        len(MessageToJson(shrink_to_fit(many.status, json_size), indent=None)) <= MAX_STATUS_BYTES
    )


def test_deeply_nested_arguments_are_flattened() -> None:
    deep: dict[str, object] = {}
    for _ in range(150):
        deep = {"d": deep}
    progress = begin("x", Redactor())
    progress.reply_received(Reply((ToolUse("c1", "t", deep),)))
    sent = progress.status.SerializeToString()
    assert pb.AgentExecutionStatus.FromString(sent) == progress.status
    MessageToJson(progress.status)


def test_numbers_that_a_struct_cannot_hold_become_texts() -> None:
    large = 10**400
    arguments = {
        "n": large,
        "m": -large,
        "exact": 2**53 + 1,
        "list": [large],
        "ok": 2**53,
        "t": True,
    }
    progress = begin("x", Redactor())
    progress.reply_received(Reply((ToolUse("c1", "t", arguments),)))
    shown = MessageToDict(progress.status.tool_calls[0].args)
    assert shown == {
        "n": str(large),
        "m": str(-large),
        "exact": str(2**53 + 1),
        "list": [str(large)],
        "ok": 2**53,
        "t": True,
    }


def test_todos_are_shown_as_they_change() -> None:
    progress = begin("go", Redactor([("P", "hunter2")]))
    progress.todos_changed([Todo("a", "use hunter2", "in_progress"), Todo("b", "test", "pending")])
    first = pb.AgentExecutionStatus()
    first.CopyFrom(progress.status)
    item = first.todos["a"]
    assert (item.id, item.content, item.status) == ("a", "use [secret P]", pb.TODO_IN_PROGRESS)
    assert item.created_at == item.updated_at != ""
    progress.changed.clear()
    time.sleep(0.01)
    progress.todos_changed([Todo("a", "use hunter2", "completed"), Todo("b", "test", "pending")])
    assert progress.changed.is_set()
    done = progress.status.todos["a"]
    assert (done.status, done.created_at) == (pb.TODO_COMPLETED, item.created_at)
    assert done.updated_at > item.updated_at
    assert progress.status.todos["b"] == first.todos["b"], "it has not changed"


def test_todos_are_shortened_if_a_status_is_too_large() -> None:
    progress = begin("go", Redactor())
    progress.todos_changed([Todo(f"{n}", "\1" * 500, "pending") for n in range(600)])
    small = shrink_to_fit(progress.status, json_size)
    assert json_size(small) <= MAX_STATUS_BYTES
    assert len(small.todos) == 600


def test_large_texts_of_sub_agents_are_shortened() -> None:
    progress = begin("go", Redactor([("P", "hunter2")]))
    for number in range(100):
        run = progress.sub_agent_started(f"helper {number}", "use hunter2 " + "\1" * 20_000)
        run.ended("\1" * 20_000, "" if number % 2 else "\1" * 20_000)
    first = progress.status.sub_agent_executions[0]
    assert first.input.startswith("use [secret P]")
    assert len(first.output) < 2 * MAX_STATUS_RESULT_CHARACTERS
    small = shrink_to_fit(progress.status, json_size)
    assert json_size(small) <= MAX_STATUS_BYTES
    assert len(small.sub_agent_executions) == 100

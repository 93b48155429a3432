import asyncio
import re

import grpc
import pytest

from devserver.ask import EXECUTION_FAILED, REQUEST_FAILED, ask, folder_of, report
from stigmer_stubs import agentexecution_pb2 as pb
from worker.sandbox import sandbox_id


def test_the_folder_of_a_session_is_the_one_that_the_runner_makes() -> None:
    for session in ("mine", "ask-19a.b_c"):
        assert folder_of(session, "/w/") == f"/w/{sandbox_id('', f'thread-{session}')}/"
    for session, workspace in (("a b", "/w"), ("a/b", "/w"), ("", "/w"), ("mine", "")):
        assert folder_of(session, workspace) == ""


def test_a_failed_execution_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    call = pb.ToolCall(name="write_file", status=pb.TOOL_CALL_COMPLETED)
    call.args["path"] = "a.txt"
    status = pb.AgentExecutionStatus(phase=pb.EXECUTION_FAILED, error="no key", tool_calls=[call])
    assert report(status, "/w/thread-mine/") == EXECUTION_FAILED
    assert capsys.readouterr().err == "file: /w/thread-mine/a.txt\nEXECUTION_FAILED: no key\n"
    assert report(pb.AgentExecutionStatus(phase=pb.EXECUTION_COMPLETED)) == 0


def test_a_server_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    server = "127.0.0.1:1"
    asked = ask(server, "hello", session="", agent="", model="", workspace="", api_key="")
    assert asyncio.run(asked) == REQUEST_FAILED
    assert re.match(f"{server}: {grpc.StatusCode.UNAVAILABLE.name}: ", capsys.readouterr().err)

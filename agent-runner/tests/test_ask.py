import asyncio
import re
from typing import Any

import grpc
import grpc.aio
import pytest

import devserver.ask
from devserver.ask import (
    EXECUTION_FAILED,
    REQUEST_FAILED,
    ask,
    find_session,
    folder_of,
    report,
)
from stigmer_stubs import agent_pb2, session_pb2
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs import backend as contract
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
    asked = ask(server, "hello", session="", agent="a", model="", workspace="", api_key="")
    assert asyncio.run(asked) == REQUEST_FAILED
    assert re.match(f"{server}: {grpc.StatusCode.UNAVAILABLE.name}: ", capsys.readouterr().err)


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED])
def test_an_unknown_agent(
    code: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(channel: object, method: contract.Method[Any, Any]) -> Any:
        async def answer(request: Any, metadata: object) -> Any:
            assert method is contract.GET_AGENT
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(code, none, none, details="no")

        return answer

    monkeypatch.setattr(devserver.ask, "_call", call)
    asked = ask("s:1", "hello", session="", agent="dev-agent", model="", workspace="", api_key="")
    assert asyncio.run(asked) == REQUEST_FAILED
    printed = capsys.readouterr().err
    assert printed.endswith(f"s:1: {code.name}: no\n")
    hint = "the server has no agent `dev-agent`: name one of its agents with `--agent ID`\n"
    assert (hint in printed) == (code == grpc.StatusCode.NOT_FOUND)


def test_the_server_chooses_the_id_of_a_new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def call(channel: object, method: contract.Method[Any, Any]) -> Any:
        async def answer(request: Any, metadata: object) -> Any:
            sent.append(request)
            if method is contract.GET_SESSION:
                none = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, none, none)
            session = session_pb2.Session()
            session.metadata.id = "ses-1"
            return session

        return answer

    monkeypatch.setattr(devserver.ask, "_call", call)
    channel: Any = None
    agent = agent_pb2.Agent()
    agent.metadata.org = "acme"
    agent.status.default_instance_id = "ins-1"
    assert asyncio.run(find_session(channel, [], "mine", agent)) == "ses-1"
    created = sent[-1]
    assert (created.metadata.name, created.metadata.org) == ("mine", "acme")
    assert created.spec.agent_instance_id == "ins-1"

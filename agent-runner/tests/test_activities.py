from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from stigmer_stubs.agentexecution_pb2 import EXECUTION_FAILED, AgentExecution
from worker.activities import Activities
from worker.convert import CONVERTER
from worker.settings import Settings


@pytest.fixture
def activities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Activities:
    monkeypatch.setenv("SANDBOX_ROOT_DIR", str(tmp_path))
    monkeypatch.setenv("STIGMER_BACKEND_ENDPOINT", "127.0.0.1:1")
    return Activities(Settings.load())


async def test_a_session_has_one_thread(activities: Activities) -> None:
    thread = await ActivityEnvironment().run(activities.ensure_thread, "s1", "a1")
    assert thread == "thread-s1"


async def test_without_a_session_each_thread_is_new(activities: Activities) -> None:
    run = ActivityEnvironment().run
    first = await run(activities.ensure_thread, "", "a1")
    second = await run(activities.ensure_thread, "", "a1")
    assert first.startswith("ephemeral-a1-")
    assert first != second


async def test_an_unavailable_server_is_reported_in_the_status(
    activities: Activities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "worker.backend.Backend.call.__kwdefaults__", {"retry_for": 0.2, "attempt_timeout": 1}
    )
    monkeypatch.setattr("worker.execution.FINAL_STATUS_RETRY_SECONDS", 0.5)
    execution = AgentExecution()
    execution.metadata.id, execution.spec.agent_id = "e1", "a1"
    status = await ActivityEnvironment().run(activities.execute_graphton, execution, "t")
    assert status.phase == EXECUTION_FAILED
    assert status.error == "stigmer-server at 127.0.0.1:1 cannot be reached: Connection refused"
    assert status.completed_at >= status.started_at > "2020"


async def test_the_workers_own_secrets_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SANDBOX_ROOT_DIR", str(tmp_path))
    monkeypatch.setenv("STIGMER_BACKEND_ENDPOINT", "127.0.0.1:1")
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-model")
    monkeypatch.setattr(
        "worker.backend.Backend.call.__kwdefaults__", {"retry_for": 0.2, "attempt_timeout": 1}
    )
    activities = Activities(Settings.load(), secrets=[("TEMPORAL_API_KEY", "key-of-a-profile")])
    execution = AgentExecution()
    execution.spec.message = "key-of-a-profile key-of-the-model"
    status = await ActivityEnvironment().run(activities.execute_graphton, execution, "t")
    assert [message.content for message in status.messages] == [
        "[secret TEMPORAL_API_KEY] [secret OPENAI_API_KEY]"
    ]


async def test_a_bug_at_the_end_does_not_leave_the_activity(
    activities: Activities, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise AttributeError("s3cret")

    monkeypatch.setattr("worker.execution.Execution._finish", fail)
    status = await ActivityEnvironment().run(activities.execute_graphton, AgentExecution(), "t")
    assert status.phase == EXECUTION_FAILED
    assert status.error == "the agent-runner failed: AttributeError"


def test_unknown_fields_of_a_newer_server_are_ignored() -> None:
    name = b"ai.stigmer.agentic.agentexecution.v1.AgentExecution"
    data = b'{"metadata": {"id": "e1"}, "brandNew": {"x": 1}, "spec": {"message": "m", "new": 2}}'
    metadata = {"encoding": b"json/protobuf", "messageType": name}
    (value,) = CONVERTER.payload_converter.from_payloads(
        [Payload(metadata=metadata, data=data)], [AgentExecution]
    )
    assert (value.metadata.id, value.spec.message) == ("e1", "m")


async def test_a_sandbox_is_removed_and_its_links_are_not_followed(
    activities: Activities, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    sandbox = tmp_path / "s1"
    (sandbox / "deep").mkdir(parents=True)
    (sandbox / "deep/link").symlink_to(outside)
    await ActivityEnvironment().run(activities.cleanup_sandbox, "s1")
    assert not sandbox.exists()
    assert (outside / "kept").exists()
    await ActivityEnvironment().run(activities.cleanup_sandbox, "s1")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", ".git", "a\n", "x" * 129])
async def test_an_invalid_sandbox_id_is_refused(
    activities: Activities, tmp_path: Path, name: str
) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(ApplicationError, match="is not a sandbox id") as caught:
        await ActivityEnvironment().run(activities.cleanup_sandbox, name)
    assert caught.value.non_retryable
    assert (tmp_path / "kept").exists()


async def test_a_link_is_not_a_sandbox(activities: Activities, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "s1").symlink_to(tmp_path / "real")
    with pytest.raises(ApplicationError, match="is not a folder"):
        await ActivityEnvironment().run(activities.cleanup_sandbox, "s1")
    assert (tmp_path / "real").is_dir()

from pathlib import Path

import pytest

from worker.settings import Settings
from worker.unused import describe_unused


def test_unused_variables_are_named_without_their_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SANDBOX_ROOT_DIR", str(tmp_path))
    names = (
        "TASK_QUEUE WORKSPACE_ROOT STIGMER_EXECUTION_MODE STIGMER_SANDBOX_IMAGE REDIS_HOST "
        "REDIS_PASSWORD DAYTONA_API_KEY AUTH0_DOMAIN"
    )
    described = describe_unused(dict.fromkeys(names.split(), "hunter2"), Settings.load())
    assert described == (
        "AUTH0_DOMAIN (Auth0 is not used: STIGMER_API_KEY is the key for "
        "stigmer-server); "
        f"DAYTONA_API_KEY (Daytona is not supported: agents run in the folder `{tmp_path}`); "
        "REDIS_HOST, REDIS_PASSWORD (Redis is not used: sessions are stored in "
        f"`{tmp_path}`); "
        f"STIGMER_EXECUTION_MODE, STIGMER_SANDBOX_IMAGE (agents run in the folder `{tmp_path}`); "
        "TASK_QUEUE (the task queue is `agent_execution_runner`); "
        f"WORKSPACE_ROOT (the workspace is `{tmp_path}`)"
    )


def test_variables_that_are_used_or_empty_are_not_named() -> None:
    names = ("STIGMER_API_KEY", "PATH", "MY_TASK_QUEUE", "STIGMER_LLM_MODEL")
    assert describe_unused(dict.fromkeys(names, "x"), Settings.load()) == ""
    assert describe_unused({"TASK_QUEUE": ""}, Settings.load()) == ""

from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from worker.activities import Activities


@pytest.fixture
def activities(tmp_path: Path) -> Activities:
    return Activities(tmp_path)


async def test_a_session_has_one_thread(activities: Activities) -> None:
    thread = await ActivityEnvironment().run(activities.ensure_thread, "s1", "a1")
    assert thread == "thread-s1"


async def test_without_a_session_each_thread_is_new(activities: Activities) -> None:
    run = ActivityEnvironment().run
    first = await run(activities.ensure_thread, "", "a1")
    second = await run(activities.ensure_thread, "", "a1")
    assert first.startswith("ephemeral-a1-")
    assert first != second


async def test_agents_cannot_be_run_yet(activities: Activities) -> None:
    with pytest.raises(ApplicationError, match="cannot run agents yet") as caught:
        await ActivityEnvironment().run(activities.execute_graphton, RawValue(Payload()), "t")
    assert caught.value.non_retryable


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
async def test_no_sandbox_id(activities: Activities, tmp_path: Path, name: str) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(ApplicationError, match="is no sandbox id") as caught:
        await ActivityEnvironment().run(activities.cleanup_sandbox, name)
    assert caught.value.non_retryable
    assert (tmp_path / "kept").exists()


async def test_a_link_is_no_sandbox(activities: Activities, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "s1").symlink_to(tmp_path / "real")
    with pytest.raises(ApplicationError, match="is not a folder"):
        await ActivityEnvironment().run(activities.cleanup_sandbox, "s1")
    assert (tmp_path / "real").is_dir()

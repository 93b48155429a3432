import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from worker import leftovers, sandbox, service
from worker.health import HealthFile
from worker.leftovers import (
    DAY_SECONDS,
    Leftover,
    SandboxUse,
    decide,
    find_sandboxes,
    remove_leftovers,
)
from worker.settings import Settings

EPHEMERAL = f"ephemeral-agent-1-{'0a' * 16}"
NOW = 1_800_000_000.0


def age(days: float) -> float:
    return NOW - days * DAY_SECONDS


@pytest.mark.parametrize(
    ("name", "days", "has_files", "expected"),
    [
        (EPHEMERAL, 8, True, Leftover.SANDBOX),
        (EPHEMERAL, 8, False, Leftover.SANDBOX),
        (EPHEMERAL, 6.9, True, Leftover.TEMPORARY_FILES),
        (EPHEMERAL, 6.9, False, None),
        (EPHEMERAL, 0.9, True, None),
        ("thread-s1", 400, True, Leftover.TEMPORARY_FILES),
        ("thread-s1", 400, False, None),
        ("thread-s1", 0.9, True, None),
        # A session may have chosen such a name.
        ("ephemeral-box", 400, False, None),
        (f"thread-{EPHEMERAL}", 400, False, None),
        (f"{EPHEMERAL}0", 400, False, None),
        # A clock that was wrong.
        (EPHEMERAL, -400, True, None),
    ],
)
def test_what_is_removed(
    name: str, days: float, has_files: bool, expected: Leftover | None
) -> None:
    found = SandboxUse(name, age(days), has_files)
    assert decide([found], NOW) == ({} if expected is None else {name: expected})


def make(root: Path, name: str, days: float) -> Path:
    """A sandbox that was last used some days ago."""
    sandbox.open_sandbox(root, name).close()
    folder = root / name
    (folder / "file").write_text("x")
    (folder / ".tmp/nested").mkdir()
    (folder / ".tmp/nested/file").write_text("x")
    lock = sandbox.lock_file(root, name)
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    then = time.time() - days * DAY_SECONDS
    os.utime(lock, (then, then))
    return folder


def files(root: Path) -> dict[str, float]:
    return {str(path): path.lstat().st_mtime for path in sorted(root.rglob("*"))}


def test_a_look_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path, EPHEMERAL, 8)
    (tmp_path / "thread-never-locked/.tmp/file").mkdir(parents=True)
    (tmp_path / "a file").write_text("x")
    (tmp_path / "not a sandbox").mkdir()
    before = files(tmp_path)
    found = {one.name: one for one in find_sandboxes(tmp_path)}
    assert set(found) == {EPHEMERAL}
    assert found[EPHEMERAL].has_temporary_files
    assert time.time() - found[EPHEMERAL].used > 7.9 * DAY_SECONDS
    assert files(tmp_path) == before


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    old, used, session = (
        make(tmp_path, EPHEMERAL, 8),
        make(tmp_path, EPHEMERAL.replace("agent", "other"), 0),
        make(tmp_path, "thread-s1", 30),
    )
    assert remove_leftovers(tmp_path) == {
        EPHEMERAL: Leftover.SANDBOX,
        "thread-s1": Leftover.TEMPORARY_FILES,
    }
    assert not old.exists()
    assert not (tmp_path / ".private" / EPHEMERAL).exists()
    assert not sandbox.lock_file(tmp_path, EPHEMERAL).exists()
    assert (used / ".tmp/nested/file").exists()
    assert (session / "file").read_text() == "x"
    assert not (session / ".tmp").exists()
    assert (tmp_path / ".private/thread-s1").is_dir()
    # This was no use of it, and the next execution gets the folder back.
    assert time.time() - sandbox.lock_file(tmp_path, "thread-s1").stat().st_mtime > DAY_SECONDS
    assert remove_leftovers(tmp_path) == {}
    sandbox.open_sandbox(tmp_path, "thread-s1").close()
    assert (session / ".tmp").is_dir()


def test_a_folder_of_the_user_stays_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "project/.tmp/file"
    own.mkdir(parents=True)
    later = time.time() + 400 * DAY_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    assert remove_leftovers(tmp_path) == {}
    assert own.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


def test_a_stop_ends_it_between_two_sandboxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"ephemeral-a-{n:032x}" for n in range(3)]
    for name in names:
        make(tmp_path, name, 8)
    stop, remove = threading.Event(), sandbox.remove_locked

    def remove_and_stop(root: Path, name: str) -> None:
        remove(root, name)
        stop.set()

    monkeypatch.setattr(sandbox, "remove_locked", remove_and_stop)
    assert remove_leftovers(tmp_path, stop) == {names[0]: Leftover.SANDBOX}


async def test_what_is_in_use_stays(tmp_path: Path) -> None:
    folder = make(tmp_path, EPHEMERAL, 8)
    async with sandbox.locked(tmp_path, EPHEMERAL):
        lock = sandbox.lock_file(tmp_path, EPHEMERAL)
        os.utime(lock, (1, 1))
        assert remove_leftovers(tmp_path) == {}
        waiting = asyncio.create_task(use(tmp_path))
        await asyncio.sleep(0.1)
    assert remove_leftovers(tmp_path) == {}  # it has just been used
    await waiting
    assert remove_leftovers(tmp_path) == {}
    assert (folder / "file").exists()
    os.utime(lock, (1, 1))
    assert remove_leftovers(tmp_path) == {EPHEMERAL: Leftover.SANDBOX}


async def use(root: Path) -> None:
    async with sandbox.locked(root, EPHEMERAL):
        await asyncio.sleep(0.1)


def test_a_use_between_looking_and_locking_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, EPHEMERAL, 8)

    def look_then_use(root: Path) -> list[SandboxUse]:
        found = find_sandboxes(root)
        sandbox.lock_file(root, EPHEMERAL).touch()
        return found

    monkeypatch.setattr(leftovers, "find_sandboxes", look_then_use)
    assert remove_leftovers(tmp_path) == {}
    assert folder.exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "workspace", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "file").write_text("x")
    (root / EPHEMERAL).symlink_to(outside)
    session = make(root, "thread-s1", 30)
    for path in (session / ".tmp/nested/file", session / ".tmp/nested"):
        path.rmdir() if path.is_dir() else path.unlink()
    (session / ".tmp").rmdir()
    (session / ".tmp").symlink_to(outside)
    linked = make(root, "thread-s2", 30)
    (linked / ".tmp/link").symlink_to(outside)
    assert remove_leftovers(root) == {"thread-s2": Leftover.TEMPORARY_FILES}
    assert (outside / "file").read_text() == "x"
    assert (root / EPHEMERAL).is_symlink()


async def test_several_workers_do_not_disturb_each_other(tmp_path: Path) -> None:
    names = [f"ephemeral-a-{n:032x}" for n in range(20)]
    for name in names:
        make(tmp_path, name, 8)
    removed = await asyncio.gather(
        *(asyncio.to_thread(remove_leftovers, tmp_path) for _ in range(4))
    )
    assert sorted(name for one in removed for name in one) == sorted(names)
    assert find_sandboxes(tmp_path) == []
    assert list((tmp_path / ".locks").glob("*.lock")) == []


def test_a_sandbox_that_cannot_be_read_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command may have removed the rights of the sandbox's folder. Root would see all."""
    for name in ("thread-a", "thread-b"):
        make(tmp_path, name, 2)
    is_dir = Path.is_dir

    def fail(path: Path) -> bool:
        if path == tmp_path / "thread-a/.tmp":
            raise PermissionError
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", fail)
    assert set(remove_leftovers(tmp_path)) == {"thread-a", "thread-b"}
    assert not (tmp_path / "thread-a/.tmp").exists()


async def test_the_worker_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path, EPHEMERAL, 8)
    monkeypatch.setenv("SANDBOX_ROOT_DIR", str(tmp_path))
    monkeypatch.setattr(service, "LEFTOVERS_SECONDS", 0.05)

    async def nothing(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(service, "_connect_and_poll", nothing)
    settings = Settings.load()
    health = HealthFile.publish(settings, {}, "")
    serving = asyncio.create_task(service.serve(settings, None, health, asyncio.Event()))  # type: ignore[arg-type] # nothing connects
    while folder.exists():  # noqa: ASYNC110 (a thread removes it)
        await asyncio.sleep(0.01)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def test_a_stop_does_not_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, end = threading.Event(), threading.Event()

    def remove(root: Path, stop: threading.Event) -> dict[str, Leftover]:
        began.set()
        end.wait(20)
        return {}

    async def until_it_begins(*_: object) -> None:
        while not began.is_set():  # noqa: ASYNC110 (a thread sets it)
            await asyncio.sleep(0.01)

    monkeypatch.setenv("SANDBOX_ROOT_DIR", str(tmp_path))
    monkeypatch.setattr(service, "LEFTOVERS_SECONDS", 0.05)
    monkeypatch.setattr(service, "_connect_and_poll", until_it_begins)
    monkeypatch.setattr(leftovers, "remove_leftovers", remove)
    settings = Settings.load()
    health = HealthFile.publish(settings, {}, "")
    started = time.monotonic()
    asyncio.run(service.serve(settings, None, health, asyncio.Event()))  # type: ignore[arg-type] # nothing connects
    assert time.monotonic() - started < 10
    end.set()

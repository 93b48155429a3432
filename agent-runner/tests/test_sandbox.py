import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphton.files import FilesError
from tests.runners import until
from worker import sandbox

HOLDER = """
import asyncio, sys
from pathlib import Path
from worker import sandbox

async def main():
    async with sandbox.locked(Path(sys.argv[1]), "s1"):
        print("locked", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_lock_is_released_when_its_process_ends(tmp_path: Path) -> None:
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, str(tmp_path)),
        cwd=Path(sandbox.__file__).parent.parent,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdout
    assert await holder.stdout.readline() == b"locked\n"

    async def lock(name: str) -> None:
        async with sandbox.locked(tmp_path, name):
            pass

    await asyncio.wait_for(lock("s2"), 20)
    waiting = asyncio.create_task(lock("s1"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    holder.kill()  # the kernel releases its lock
    await asyncio.wait_for(waiting, 20)
    await holder.wait()


WAITING = """
import asyncio, sys
from pathlib import Path
from worker import sandbox

async def main():
    async with sandbox.locked(Path(sys.argv[1]), "s1", int(sys.argv[2])):
        print("locked", flush=True)
        await asyncio.sleep(0.2)

asyncio.run(main())
"""


async def test_a_lock_is_given_in_order_to_several_processes(tmp_path: Path) -> None:
    order = []

    async def lock(number: int) -> None:
        async with sandbox.locked(tmp_path, "s1", number):
            order.append(number)

    async def lock_elsewhere(number: int) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WAITING, str(tmp_path), str(number)),
            cwd=Path(sandbox.__file__).parent.parent,
            stdout=asyncio.subprocess.PIPE,
        )
        processes[number] = process
        assert process.stdout
        if await process.stdout.readline():
            order.append(number)
        await process.wait()

    def count_tickets() -> int:
        return len(list((tmp_path / ".locks/s1.lock.queue").glob("[0-9]*")))

    processes: dict[int, asyncio.subprocess.Process] = {}
    async with sandbox.locked(tmp_path, "s1", 1):
        tasks = [asyncio.create_task(lock(number)) for number in (8, 4, 6, 2)]
        tasks += [asyncio.create_task(lock_elsewhere(number)) for number in (7, 5, 3)]
        await until(lambda: count_tickets() == 7)
        processes[5].kill()
        tasks[2].cancel()
    await asyncio.wait(tasks, timeout=20)
    assert order == [2, 3, 4, 7, 8]
    assert [path.name for path in (tmp_path / ".locks").iterdir()] == ["s1.lock"]


async def test_a_lock_that_is_free_needs_no_queue(tmp_path: Path) -> None:
    waited = []

    @contextlib.contextmanager
    def while_waiting() -> Iterator[None]:
        waited.append("begin")
        yield
        waited.append("end")

    async with sandbox.locked(tmp_path, "s1", 1, while_waiting):
        assert waited == []
        task = asyncio.create_task(sandbox.remove_sandbox(tmp_path, "s1"))
        async with sandbox.locked(tmp_path, "s2", 1, while_waiting):
            assert waited == []
    await task


async def test_a_lock_is_not_used_after_its_sandbox_was_removed(tmp_path: Path) -> None:
    """Removing a sandbox removes its lock file, which a waiting task must then create again."""
    sandbox.open_sandbox(tmp_path, "s1").close()
    inside = 0

    async def work(n: int) -> None:
        nonlocal inside
        async with sandbox.locked(tmp_path, "s1"):
            inside += 1
            assert inside == 1
            sandbox.open_sandbox(tmp_path, "s1").close()
            await asyncio.sleep(0.01)
            inside -= 1

    jobs = [work(n) for n in range(10)]
    removals = [sandbox.remove_sandbox(tmp_path, "s1") for _ in range(5)]
    await asyncio.gather(*(job for pair in zip(jobs[:5], removals, strict=True) for job in pair))
    await asyncio.gather(*jobs[5:])


def test_the_sandbox_of_a_thread() -> None:
    assert sandbox.sandbox_id("chosen", "thread-1") == "chosen"
    assert sandbox.sandbox_id("", "thread-1") == "thread-1"
    for wrong in ("../x", ".locks", "a/b", ""):
        assert sandbox.sandbox_id(wrong, "thread-1") == "thread-1"
    odd = sandbox.sandbox_id("", "thread-ä/../b")
    assert odd == sandbox.sandbox_id("", "thread-ä/../b") != sandbox.sandbox_id("", "thread-ä")
    assert odd.startswith("thread-")
    assert "/" not in odd


def test_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    partial = tmp_path / ".private/s1/partial"
    partial.mkdir(parents=True)
    (partial / "half").write_text("x")
    with sandbox.open_sandbox(tmp_path, "s1") as folder:
        assert not partial.exists()
        assert [entry.name for entry in folder.list_entries()] == [".tmp"]


def test_a_conversation_of_an_earlier_version_is_moved_once(tmp_path: Path) -> None:
    threads = tmp_path / "s1/.graphton/threads"
    threads.mkdir(parents=True)
    (threads / "t.json").write_text("said")
    with sandbox.open_sandbox(tmp_path, "s1") as folder:
        assert folder.read(".graphton/threads/t.json", 9, private=True) == b"said"
    # What a command writes there later is not read.
    threads.mkdir()
    (threads / "t.json").write_text("forged")
    with sandbox.open_sandbox(tmp_path, "s1") as folder:
        assert folder.read(".graphton/threads/t.json", 9, private=True) == b"said"


async def test_a_conversation_is_removed_with_its_sandbox(tmp_path: Path) -> None:
    with sandbox.open_sandbox(tmp_path, "s1") as folder:
        folder.write(".graphton/threads/t.json", b"said", private=True)
    assert (tmp_path / ".private/s1/threads/t.json").exists()
    assert await sandbox.remove_sandbox(tmp_path, "s1")
    assert list((tmp_path / ".private").iterdir()) == []


def make_deep(folder: Path, depth: int) -> None:
    folder.mkdir(parents=True)
    top = Path.cwd()
    try:
        os.chdir(folder)
        for _ in range(depth):
            Path("d" * 20).mkdir()
            os.chdir("d" * 20)
    finally:
        os.chdir(top)


async def test_a_deep_folder_keeps_no_sandbox_from_being_used_or_removed(tmp_path: Path) -> None:
    make_deep(tmp_path / ".private/s1/partial/deep", 1500)
    make_deep(tmp_path / "s1/deep", 1500)
    with sandbox.open_sandbox(tmp_path, "s1") as folder:
        assert [entry.name for entry in folder.list_entries()] == [".tmp", "deep"]
    assert not (tmp_path / ".private/s1/partial").exists()
    assert await sandbox.remove_sandbox(tmp_path, "s1")
    assert not (tmp_path / "s1").exists()


def test_a_link_is_not_a_sandbox(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "s1").symlink_to("real")
    with pytest.raises(FilesError, match="is not a folder"):
        sandbox.open_sandbox(tmp_path, "s1")

"""Sandboxes: the folders with agents' files, directly under SANDBOX_ROOT_DIR."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from graphton.access import with_access
from graphton.backoff import backoff
from graphton.blocking import run_blocking
from graphton.files import PRIVATE_FOLDER as OLD_PRIVATE_FOLDER
from graphton.files import Folder
from graphton.trees import remove_tree
from worker.workspace import LOCKS_FOLDER, PRIVATE_FOLDER

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS = 0.02, 0.5
_NEXT_POLL_SECONDS: Final = 0.05
"""Seconds between two attempts to lock a sandbox. The last value is for the first in the queue."""


def sandbox_dir(root: Path, sandbox_id: str) -> Path:
    """The folder of a sandbox. It need not exist.

    Raises:
        ValueError: if the id is invalid, and might lead out of `root`.
    """
    if not _ID.fullmatch(sandbox_id):
        raise ValueError(
            f"`{sandbox_id}` is not a sandbox id: use at most 128 letters, digits, `.`, `_` and `-`"
        )
    return root / sandbox_id


def sandbox_id(session_sandbox_id: str, thread_id: str) -> str:
    """Choose the sandbox of a thread: the session's if it has a valid one, else the thread's own.

    If the thread's id is not a valid sandbox id, the sandbox id is a hash of it.
    """
    for name in (session_sandbox_id, thread_id):
        if _ID.fullmatch(name):
            return name
    return f"thread-{hashlib.sha256(thread_id.encode()).hexdigest()[:40]}"


@contextlib.asynccontextmanager
async def locked(
    root: Path,
    name: str,
    order: int = 0,
    while_waiting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> AsyncIterator[None]:
    """Lock a sandbox during the `with` block, also against other workers on the same folder.

    The time of modification of the lock file is that of the last use.

    Callers that wait get the lock in the order of their numbers, also across workers.

    Args:
        root: The folder with all sandboxes.
        name: The id of the sandbox.
        order: A number that is not negative, such as a time.
        while_waiting: Makes a context that is open as long as the sandbox is in use.

    Raises:
        ValueError: if the id is invalid.
        OSError: if the lock file cannot be created.
    """
    path = lock_file(root, name)
    queue = _queue(path)
    fd = None if _waiting(queue) else _lock(path)
    if fd is None:
        with while_waiting():
            fd = await _wait_in_line(path, queue, order)
    try:
        _record_use(fd)
        yield
    finally:
        _record_use(fd)
        os.close(fd)


@contextlib.contextmanager
def locked_if_free(root: Path, name: str) -> Iterator[bool]:
    """Lock a sandbox during the `with` block if nobody uses it or waits for it.

    If the sandbox has a lock file, this does not count as a use. Yields whether it is locked.

    Raises:
        ValueError: if the id is invalid.
        OSError: if the lock file cannot be created.
    """
    path = lock_file(root, name)
    fd = None if _waiting(_queue(path)) else _lock(path)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


def lock_file(root: Path, name: str) -> Path:
    """The file whose lock is that of a sandbox. It need not exist.

    Raises:
        ValueError: if the id is invalid.
    """
    return root / LOCKS_FOLDER / f"{sandbox_dir(root, name).name}.lock"


def _queue(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.queue")


def _record_use(fd: int) -> None:
    with contextlib.suppress(OSError):  # a full disk, for example
        os.utime(fd)


async def _wait_in_line(path: Path, queue: Path, order: int) -> int:
    """Wait until all callers with a smaller number have had the lock `path`, and lock it.

    Each caller that waits has a file in the folder `queue`, and keeps it locked. The kernel
    releases the lock of a worker that was killed, so others recognise its file and remove it.
    """
    ticket, held = _draw_ticket(queue, order)
    try:
        pauses = backoff(_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS, factor=1.5)
        while True:
            if _waiting(queue, before=ticket.name):
                await asyncio.sleep(next(pauses))
            elif (fd := _lock(path)) is not None:
                return fd
            else:
                await asyncio.sleep(_NEXT_POLL_SECONDS)
    finally:
        os.close(held)  # others remove a ticket that is not locked
        with contextlib.suppress(OSError):
            with_access(_used(queue), ticket.unlink, missing_ok=True)
            queue.rmdir()  # fails if others still wait


def _used(path: Path) -> tuple[Path, ...]:
    """A path in the folder of locks, and the folders that it is in, parents first."""
    locks = next(parent for parent in path.parents if parent.name == LOCKS_FOLDER)
    between = [parent for parent in reversed(path.parents) if locks in parent.parents]
    return (locks.parent, locks, *between, path)


def _draw_ticket(queue: Path, order: int) -> tuple[Path, int]:
    """Create a file in the queue. Returns its path, and the descriptor that locks it."""
    name = f"{order:020d}-{uuid.uuid4().hex}"
    used = _used(queue)
    while True:
        # Not `exist_ok`, which fails if another worker removes the folder at the same moment.
        with contextlib.suppress(FileExistsError):
            with_access(used, queue.mkdir, parents=True)
        # The file has another name until it is locked: others remove tickets that are not locked.
        new = queue / f".{name}"
        try:
            fd = with_access(used, os.open, new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the last one that waited has just removed the folder
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return with_access(used, new.rename, queue / name), fd
        except BaseException:
            os.close(fd)
            raise


def _waiting(queue: Path, before: str = "~") -> bool:
    """Whether somebody waits whose ticket sorts before this name."""
    try:
        paths = with_access(_used(queue), lambda: list(queue.iterdir()))
    except FileNotFoundError:
        return False
    tickets = sorted(path for path in paths if path.name[0] != ".")
    return any(_is_locked(ticket) for ticket in tickets if ticket.name < before)


def _is_locked(ticket: Path) -> bool:
    """Whether the owner of a ticket still waits. If not, the ticket is removed."""
    try:
        fd = with_access(_used(ticket), os.open, ticket, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with_access(_used(ticket), ticket.unlink, missing_ok=True)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _lock(path: Path) -> int | None:
    used = _used(path)
    with_access(used, path.parent.mkdir, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = with_access(used, os.open, path, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # `remove_sandbox` may have removed the lock file meanwhile. Its lock is then worthless.
        if os.fstat(fd).st_ino == with_access(used, path.stat).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def open_sandbox(root: Path, name: str) -> Folder:
    """Open a sandbox, and create it if it does not exist.

    Temporary files of writers that were killed are removed. The sandbox must be locked. Close it
    after use. This can take seconds if there is much to remove.

    Raises:
        ValueError: if the id is invalid.
        OSError: if the folder cannot be created.
        FilesError: if the path is not a folder.
    """
    path, private = sandbox_dir(root, name), root / PRIVATE_FOLDER / name
    used = (root, private.parent, private, path, path / ".tmp")
    with_access(used, path.mkdir, exist_ok=True)
    with_access(used, private.parent.mkdir, mode=0o700, exist_ok=True)
    if not with_access(used, private.exists):
        with_access(used, _adopt_old_files, path, private)
    folder = with_access(used, Folder, path, private)
    try:
        with_access(used, folder.remove_partial_files)
        with_access(used, folder.make_folder, ".tmp")
    except BaseException:
        folder.close()
        raise
    return folder


def _adopt_old_files(path: Path, private: Path) -> None:
    """Create the private folder. Earlier versions kept its files inside the sandbox.

    They are moved only once: a command could have written what appears there later.
    """
    old, new = path / OLD_PRIVATE_FOLDER, private.with_name(f".{private.name}.new")
    new.mkdir(mode=0o700, exist_ok=True)  # it exists if a worker was killed here
    threads = old / "threads"
    if not old.is_symlink() and not threads.is_symlink() and threads.is_dir():
        threads.rename(new / "threads")
    new.rename(private)


async def remove_sandbox(root: Path, name: str) -> bool:
    """Remove a sandbox and everything in it, when it is not in use. Links are not followed.

    Returns:
        False if the sandbox does not exist.

    Raises:
        ValueError: if the id is invalid, or the path is a link or a file.
        OSError: if something cannot be removed.
    """
    folder = sandbox_dir(root, name)
    if not os.path.lexists(folder):
        return False
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"`{folder}` is not a folder")
    # After all executions that wait now.
    async with locked(root, name, order=time.time_ns() // 1000):
        await run_blocking(remove_locked, root, name)
    return True


def remove_locked(root: Path, name: str) -> None:
    """Remove a sandbox that the caller has locked, its private folder and its lock file.

    Raises:
        OSError: if something cannot be removed.
    """
    folder = sandbox_dir(root, name)
    for path in (root / PRIVATE_FOLDER / name, folder):
        with contextlib.suppress(FileNotFoundError):
            with_access((root, path.parent), remove_tree, path)
    lock = lock_file(root, name)
    with_access(_used(lock), lock.unlink, missing_ok=True)

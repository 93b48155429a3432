"""Sandboxes: the folders with agents' files, directly under SANDBOX_ROOT_DIR."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from graphton.backoff import backoff
from graphton.blocking import run_blocking
from graphton.files import Folder

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

LOCKS_FOLDER: Final = ".locks"
"""The folder for lock files, next to the sandboxes. A sandbox id cannot begin with a dot."""

_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS = 0.02, 0.5
"""Seconds between two attempts to lock a sandbox."""


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
async def locked(root: Path, name: str) -> AsyncIterator[None]:
    """Lock a sandbox during the `with` block, also against other workers on the same folder.

    Raises:
        ValueError: if the id is invalid.
        OSError: if the lock file cannot be created.
    """
    path = root / LOCKS_FOLDER / f"{sandbox_dir(root, name).name}.lock"
    pauses = backoff(_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS, factor=1.5)
    while (fd := _try_lock(path)) is None:  # noqa: ASYNC110 (another process may hold the lock)
        await asyncio.sleep(next(pauses))
    try:
        yield
    finally:
        os.close(fd)


def _try_lock(path: Path) -> int | None:
    path.parent.mkdir(exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # `remove_sandbox` may have removed the lock file meanwhile. Its lock is then worthless.
        if os.fstat(fd).st_ino == path.stat().st_ino:
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
    after use.

    Raises:
        ValueError: if the id is invalid.
        OSError: if the folder cannot be created.
        FilesError: if the path is not a folder.
    """
    path = sandbox_dir(root, name)
    path.mkdir(exist_ok=True)
    folder = Folder(path)
    try:
        folder.remove_partial_files()
        folder.make_folder(".tmp")
    except BaseException:
        folder.close()
        raise
    return folder


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
    async with locked(root, name):
        with contextlib.suppress(FileNotFoundError):
            await run_blocking(shutil.rmtree, folder)
        (root / LOCKS_FOLDER / f"{name}.lock").unlink(missing_ok=True)
    return True

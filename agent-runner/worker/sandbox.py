"""Where an agent's files live: one folder a sandbox, directly under SANDBOX_ROOT_DIR."""

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

from graphton.files import Folder
from graphton.threads import in_thread

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

LOCKS: Final = ".locks"
"""The folder beside the sandboxes for what says that one is in use. No sandbox id begins so."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks whether a sandbox is free."""


def sandbox_dir(root: Path, sandbox_id: str) -> Path:
    """The folder of a sandbox. It need not exist.

    Raises:
        ValueError: if the id could name anything else than a folder directly under `root`.
    """
    if not _ID.fullmatch(sandbox_id):
        raise ValueError(
            f"`{sandbox_id}` is no sandbox id: letters, digits, `.`, `_`, `-`, at most 128"
        )
    return root / sandbox_id


def sandbox_id(session_sandbox_id: str, thread_id: str) -> str:
    """Which sandbox a thread works in: the session's, if it names one, else one of its own.

    A thread whose name is no sandbox id gets one that is made from it, always the same.
    """
    for name in (session_sandbox_id, thread_id):
        if _ID.fullmatch(name):
            return name
    return f"thread-{hashlib.sha256(thread_id.encode()).hexdigest()[:40]}"


@contextlib.asynccontextmanager
async def locked(root: Path, name: str) -> AsyncIterator[None]:
    """Have a sandbox for oneself: also against other workers with the same folder.

    Raises:
        ValueError: if the id is none.
        OSError: if the lock cannot be made.
    """
    path = root / LOCKS / f"{sandbox_dir(root, name).name}.lock"
    pause = _FIRST_PAUSE
    while (fd := _try_lock(path)) is None:
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    try:
        yield
    finally:
        os.close(fd)


def _try_lock(path: Path) -> int | None:
    path.parent.mkdir(exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever removes a sandbox removes its lock: then this one locks nothing any more.
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
    """Make a sandbox, or take the one that is there; what killed writers left is removed.

    It must be locked. Close it after use.

    Raises:
        ValueError: if the id is none.
        OSError: if the folder cannot be made.
        FilesError: if there is something else than a folder.
    """
    path = sandbox_dir(root, name)
    path.mkdir(exist_ok=True)
    folder = Folder(path)
    try:
        folder.clear_temporary()
        folder.make_folder(".tmp")
    except BaseException:
        folder.close()
        raise
    return folder


async def remove_sandbox(root: Path, name: str) -> bool:
    """Remove a sandbox and all in it, once nobody works in it. Links in it are not followed.

    Returns:
        False if there was none.

    Raises:
        ValueError: if the id is none, or names a link or a file.
        OSError: if something in it cannot be removed.
    """
    folder = sandbox_dir(root, name)
    if not os.path.lexists(folder):
        return False
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"`{folder}` is not a folder")
    async with locked(root, name):
        with contextlib.suppress(FileNotFoundError):
            await in_thread(shutil.rmtree, folder)
        (root / LOCKS / f"{name}.lock").unlink(missing_ok=True)
    return True

"""Removes from the workspace what nobody needs any more.

That is the sandboxes of executions without a session, and the temporary files of all sandboxes. A
sandbox is a folder with a lock file, which the worker makes before the first use; other folders are
the user's.
Several workers can do this in one workspace: each sandbox is locked meanwhile.
"""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from graphton.access import with_access
from graphton.trees import remove_tree
from worker import sandbox

_log = logging.getLogger(__name__)

DAY_SECONDS: Final = 24 * 3600.0

EPHEMERAL_SECONDS: Final = 7 * DAY_SECONDS
"""How long the sandbox of an execution without a session is kept after its last use."""

TEMPORARY_SECONDS: Final = DAY_SECONDS
"""How long the temporary files of a sandbox are kept after its last use."""

_EPHEMERAL: Final = re.compile(r"ephemeral-.*-[0-9a-f]{32}")
"""The sandboxes of the threads that the activity `EnsureThread` names if there is no session."""

_TEMPORARY_FOLDER: Final = ".tmp"


class Leftover(Enum):
    """What to remove."""

    SANDBOX = "sandbox"
    TEMPORARY_FILES = "temporary files"


@dataclass(frozen=True, slots=True)
class SandboxUse:
    """A sandbox, and when it was last used.

    Attributes:
        name: Its id.
        used: When it was last used, in seconds since 1970.
        has_temporary_files: Whether it has a folder for temporary files that is not empty.
    """

    name: str
    used: float
    has_temporary_files: bool


def decide(found: Iterable[SandboxUse], now: float) -> dict[str, Leftover]:
    """Decide what to remove of each sandbox."""
    decided = {}
    for one in found:
        if now - one.used > EPHEMERAL_SECONDS and _EPHEMERAL.fullmatch(one.name):
            decided[one.name] = Leftover.SANDBOX
        elif now - one.used > TEMPORARY_SECONDS and one.has_temporary_files:
            decided[one.name] = Leftover.TEMPORARY_FILES
    return decided


def find_sandboxes(root: Path) -> list[SandboxUse]:
    """Find the sandboxes in a workspace. Nothing is changed, and links are not followed.

    A folder without a lock file is none: the user may have made it.

    Raises:
        OSError: if the workspace cannot be read.
    """
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    found = []
    for name in sorted(names):
        with contextlib.suppress(ValueError, FileNotFoundError):  # no sandbox, or it has gone
            found.append(_find_sandbox(root, name))
    return found


def _find_sandbox(root: Path, name: str) -> SandboxUse:
    used = sandbox.lock_file(root, name).stat().st_mtime  # see `sandbox.locked`
    temporary = sandbox.sandbox_dir(root, name) / _TEMPORARY_FOLDER
    has_files = False
    try:
        if temporary.is_dir() and not temporary.is_symlink():
            with os.scandir(temporary) as entries:
                has_files = next(entries, None) is not None
    except PermissionError:
        has_files = True  # perhaps: a command has removed the rights, and `_remove` restores them
    except NotADirectoryError:
        pass  # a command has just replaced it
    return SandboxUse(name, used, has_files)


def remove_leftovers(root: Path, stop: threading.Event | None = None) -> dict[str, Leftover]:
    """Remove what nobody needs any more. A sandbox that is in use is left alone.

    This can take minutes if there is much to remove.

    Args:
        root: The workspace.
        stop: If it is set, no other sandbox is begun.

    Returns:
        What was removed.

    Raises:
        OSError: if the workspace cannot be read.
    """
    removed = {}
    for name in decide(find_sandboxes(root), time.time()):
        if stop is not None and stop.is_set():
            break
        try:
            with sandbox.locked_if_free(root, name) as is_locked:
                if not is_locked:
                    continue
                if not os.path.lexists(root / name):
                    # Another worker has removed it, and this one has created the lock file anew.
                    sandbox.lock_file(root, name).unlink(missing_ok=True)
                    continue
                # It may have been used since.
                leftover = decide([_find_sandbox(root, name)], time.time()).get(name)
                if leftover is not None:
                    _remove(root, name, leftover)
                    removed[name] = leftover
        except FileNotFoundError:
            continue  # another worker was faster
        except OSError as error:
            _log.warning("leftovers in sandbox `%s` cannot be removed: %s", name, error)
    return removed


def _remove(root: Path, name: str, leftover: Leftover) -> None:
    folder = sandbox.sandbox_dir(root, name)
    match leftover:
        case Leftover.SANDBOX:
            sandbox.remove_locked(root, name)
        case Leftover.TEMPORARY_FILES:
            with_access((root, folder), remove_tree, folder / _TEMPORARY_FOLDER)

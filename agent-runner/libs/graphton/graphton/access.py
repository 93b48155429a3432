"""Keeps this user's own files and folders usable.

An agent's commands run as the same user, and Landlock does not restrict `chmod`: a command can take
the owner's rights from a file that it cannot open. The owner can always give them back.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MAX_ATTEMPTS: Final = 10_000
"""A command may take the rights away again and again, so many attempts can fail by chance."""

MAX_ATTEMPTS_WITHOUT_EFFECT: Final = 100
"""Give up after this many attempts in a row in which no right was missing."""


def restore_access(path: Path) -> bool:
    """Give the owner's rights back: to read and write a file, and also to enter a folder.

    Nothing changes if the path does not exist, is a link, or belongs to another user.

    Returns:
        Whether a right was missing.
    """
    try:
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        needed = {stat.S_IFDIR: 0o700, stat.S_IFREG: 0o600}.get(kind, 0)
        if status.st_uid != os.geteuid() or status.st_mode & needed == needed:
            return False
        path.chmod(stat.S_IMODE(status.st_mode) | needed)
    except OSError:
        return False
    return True


def with_access(
    paths: Iterable[Path], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run `work`. If permission is denied, restore the access to `paths` and try again.

    Args:
        paths: Files and folders of this user, parents first.
        work: What to run. It may run several times. If a command takes the rights away all the
            time, only short work succeeds, such as one system call.
        args: The arguments of `work`.
        kwargs: Its keyword arguments.

    Returns:
        The result of `work`.

    Raises:
        PermissionError: if permission is still denied.
    """
    paths = tuple(paths)
    without_effect = 0
    for _ in range(MAX_ATTEMPTS):
        try:
            return work(*args, **kwargs)
        except PermissionError:
            without_effect += 1
            if without_effect > MAX_ATTEMPTS_WITHOUT_EFFECT:
                raise
        for path in paths:
            if restore_access(path):
                without_effect = 0
                # At once, before a command takes it away again.
                with contextlib.suppress(PermissionError):
                    return work(*args, **kwargs)
    return work(*args, **kwargs)

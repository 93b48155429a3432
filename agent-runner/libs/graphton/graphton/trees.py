"""Removes folders of any depth and size."""

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove a folder and everything in it. Links are not followed.

    Raises:
        OSError: if something cannot be removed, or the path is a link or a file.
    """
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree_at(parent, path.name)
    finally:
        os.close(parent)


def remove_tree_at(parent: int, name: str) -> None:
    """The same, for an entry of the folder that is open as `parent`.

    The folders inside are moved to the top before they are removed. So neither paths nor the call
    stack grow with the depth, and at most two folders are open. `shutil.rmtree` fails at a depth of
    about 1000.
    """
    top = _open(parent, name)
    try:
        while entries := _list(top):
            for entry, is_folder in entries:
                if is_folder:
                    _empty(top, entry)
                    # If the folder has entries again, the next round removes them.
                    with contextlib.suppress(OSError):
                        os.rmdir(entry, dir_fd=top)
                else:
                    _unlink(entry, top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _empty(top: int, name: str) -> None:
    """Remove the files of a folder in `top`, and move its folders to `top`."""
    folder = _open(top, name)
    try:
        for entry, is_folder in _list(folder):
            if not is_folder:
                _unlink(entry, folder)
                continue
            target = f".{secrets.token_hex(8)}"
            try:
                os.rename(entry, target, src_dir_fd=folder, dst_dir_fd=top)
            except PermissionError:  # moving a folder changes the `..` in it
                os.chmod(entry, stat.S_IRWXU, dir_fd=folder)
                os.rename(entry, target, src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)


def _open(parent: int, name: str) -> int:
    try:
        folder = os.open(name, _OPEN_FOLDER, dir_fd=parent)
    except PermissionError:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
        folder = os.open(name, _OPEN_FOLDER, dir_fd=parent)
    with contextlib.suppress(PermissionError):  # the folder of another user
        os.fchmod(folder, stat.S_IRWXU)
    return folder


def _list(folder: int) -> list[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]


def _unlink(name: str, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)

"""A folder that paths cannot leave, whatever they are and whatever changes meanwhile.

Every path is walked one component at a time, each opened relative to the one before and never
through a link: links are read and walked in their turn. So `..`, absolute paths, links out, and
links that appear between two looks end in an error, not outside.

A file is written beside and renamed: whoever is killed leaves the old one or the new one.
"""

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

PRIVATE: Final = ".graphton"
"""The folder inside for what is not the agent's: no path of the agent's leads there."""

_MAX_LINKS: Final = 40
_MAX_DEPTH: Final = 100
"""Components of a path: each on the way is an open file."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FilesError(Exception):
    """A path that cannot be used. The message says why, for people and models."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is in a folder.

    Attributes:
        name: Without the folder.
        kind: `file`, `folder`, `link` or `other`.
        size: In bytes.
    """

    name: str
    kind: str
    size: int


class Folder:
    """A folder and all in it. Close it after use, or use `with`.

    Args:
        root: The folder, absolute. It must be there, and be no link.

    Raises:
        FilesError: if it is not there, or is a link or a file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self._fd = os.open(root, _DIRECTORY)
        except OSError as error:
            raise FilesError(f"`{root}` is no folder: {error.strerror}") from None

    def __enter__(self) -> Self:
        """The folder itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._fd)

    def read(self, path: str, limit: int, *, private: bool = False) -> bytes:
        """The first `limit` bytes of a file.

        Raises:
            FilesError: if there is no such file in here.
        """
        with self._at(path, private=private) as (parent, name):
            # A pipe without a writer would be waited for; it is none of our files anyway.
            fd = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent
            )
            with os.fdopen(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise FilesError(f"`{path}` is no regular file")
                return file.read(limit)

    def write(
        self, path: str, content: bytes, *, mode: int | None = None, private: bool = False
    ) -> bool:
        """Write a file, all of it or nothing; folders on the way are made.

        Args:
            path: Where. A link in here is followed.
            content: What.
            mode: The file's permissions; None keeps those of the file before, or takes 0o644.
            private: Whether the path may lead into the private folder.

        Returns:
            Whether the file is a new one.

        Raises:
            FilesError: if it cannot be written.
        """
        with self._at(path, create=True, private=private) as (parent, name):
            before = _mode(parent, name)
            if before is not None and not stat.S_ISREG(before):
                what = "a folder" if stat.S_ISDIR(before) else "no regular file"
                raise FilesError(f"`{path}` is {what}")
            if mode is None:
                mode = stat.S_IMODE(before) & 0o777 if before is not None else 0o644
            with self._temporary(path) as (folder, temporary):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(temporary, flags, 0o600, dir_fd=folder)
                with os.fdopen(fd, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fchmod(fd, mode)
                    os.fsync(fd)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=parent)
            os.fsync(parent)
            return before is None

    def entries(self, path: str = ".") -> list[Entry]:
        """What is in a folder, sorted by name, without the private folder.

        Raises:
            FilesError: if there is no such folder in here.
        """
        with self._at(path) as (parent, name):
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                found_here = []
                with os.scandir(fd) as found:
                    for item in found:
                        if item.name == PRIVATE and os.path.sameopenfile(fd, self._fd):
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            status = item.stat(follow_symlinks=False)
                            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "other")
                            found_here.append(Entry(item.name, kind, status.st_size))
            finally:
                os.close(fd)
        return sorted(found_here, key=lambda entry: entry.name)

    def is_folder(self, path: str, *, private: bool = False) -> bool:
        """Whether a path leads to a folder in here."""
        try:
            with self._at(path, private=private) as (parent, name):
                mode = _mode(parent, name)
                return mode is not None and stat.S_ISDIR(mode)
        except FilesError:
            return False

    def make_folder(self, path: str, *, private: bool = False) -> None:
        """Make a folder and those on the way. One that is there is fine.

        Raises:
            FilesError: if it cannot be made.
        """
        with (
            self._at(path, create=True, private=private) as (parent, name),
            contextlib.suppress(FileExistsError),
        ):
            os.mkdir(name, 0o755, dir_fd=parent)

    def link(self, path: str, target: str, *, private: bool = False) -> None:
        """Make a symbolic link. Where it leads is its maker's to know.

        Raises:
            FilesError: if something is there already.
        """
        with self._at(path, create=True, private=private) as (parent, name):
            os.symlink(target, name, dir_fd=parent)

    def move(self, source: str, target: str) -> None:
        """Rename a folder of the private ones to where none is, folders on the way are made.

        Raises:
            FilesError: if it cannot be moved.
        """
        with (
            self._at(source, private=True) as (old_parent, old),
            self._at(target, create=True) as (new_parent, new),
        ):
            os.rename(old, new, src_dir_fd=old_parent, dst_dir_fd=new_parent)
            os.fsync(new_parent)

    def remove(self, path: str, *, private: bool = False) -> None:
        """Remove a folder and all in it, links not followed; or a file. No such one is fine.

        Raises:
            FilesError: if something cannot be removed.
        """
        with self._at(path, private=private) as (parent, name):
            mode = _mode(parent, name)
            if mode is None:
                return
            if stat.S_ISDIR(mode):
                shutil.rmtree(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)

    def clear_temporary(self) -> None:
        """Remove what killed writers left. Nobody may be writing."""
        if self.is_folder(f"{PRIVATE}/partial", private=True):
            self.remove(f"{PRIVATE}/partial", private=True)

    def relative(self, path: str) -> str:
        """A path as seen from the folder: `./a/b`, or `.` for the folder itself.

        Raises:
            FilesError: if it leads out, or to nothing.
        """
        with self._at(path) as (parent, name):
            os.lstat(name, dir_fd=parent)
        return "/".join([".", *self._parts(path)])

    def _parts(self, path: str) -> list[str]:
        if "\0" in path:
            raise FilesError("a path has no NUL in it")
        if path.startswith("/"):
            root = str(self.root)
            if path != root and not path.startswith(f"{root}/"):
                raise FilesError(f"`{path}` is outside of the working folder")
            path = path[len(root) :]
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if len(parts) > _MAX_DEPTH:
            raise FilesError(f"`{path[:100]}…` has more than {_MAX_DEPTH} components")
        return parts

    @contextlib.contextmanager
    def _at(  # noqa: PLR0912 (one walk: what may happen to a component stands in one place)
        self, path: str, *, create: bool = False, private: bool = False, said: str = ""
    ) -> Iterator[tuple[int, str]]:
        """The open folder that holds what a path leads to, and its name in there.

        The name is no link's at the time of looking; it may be nothing's yet, and is `.` for the
        folder itself. All errors of the file system in the block are told as FilesError, of
        the path `said`.
        """
        todo, here, links = self._parts(path), [os.dup(self._fd)], 0
        name = "."
        try:
            while todo:
                part, todo = todo[0], todo[1:]
                name = "."
                if part == "..":
                    if len(here) == 1:
                        raise FilesError(f"`{path}` is outside of the working folder")
                    os.close(here.pop())
                    continue
                if part == PRIVATE and len(here) == 1 and not private:
                    raise FilesError(f"`{path}` is not yours")
                mode = _mode(here[-1], part)
                if mode is not None and stat.S_ISLNK(mode):
                    links += 1
                    if links > _MAX_LINKS:
                        raise FilesError(f"`{path}` leads in a circle")
                    target = os.readlink(part, dir_fd=here[-1])
                    todo = [p for p in self._link(target, path) if p not in ("", ".")] + todo
                    if len(todo) > _MAX_DEPTH:
                        raise FilesError(f"`{path}` is too deep")
                    if target.startswith("/"):
                        while len(here) > 1:
                            os.close(here.pop())
                    continue
                if not todo:
                    name = part
                    break
                if mode is None and create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=here[-1])
                here.append(os.open(part, _DIRECTORY, dir_fd=here[-1]))
            yield here[-1], name
        except OSError as error:
            raise FilesError(f"`{said or path}`: {error.strerror or error}") from None
        finally:
            for fd in here:
                os.close(fd)

    def _link(self, target: str, path: str) -> list[str]:
        try:
            return self._parts(target) if target.startswith("/") else target.split("/")
        except FilesError:
            raise FilesError(f"`{path}` leads out of the working folder") from None

    @contextlib.contextmanager
    def _temporary(self, path: str) -> Iterator[tuple[int, str]]:
        """A folder, open, on the same file system as `path`, and a name in it that nobody has."""
        name = secrets.token_hex(8)
        beside = f"{PRIVATE}/partial/{name}"
        with self._at(beside, create=True, private=True, said=path) as (folder, _):
            try:
                yield folder, name
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
                raise


_KINDS: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


def _mode(parent: int, name: str) -> int | None:
    """The type and permissions of what has this name, links not followed; None for nothing."""
    try:
        return os.lstat(name, dir_fd=parent).st_mode
    except FileNotFoundError:
        return None

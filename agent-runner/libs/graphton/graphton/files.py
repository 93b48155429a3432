"""File access that cannot leave a given folder.

A path is resolved one component at a time. Each component is opened relative to the one before it,
without following links; a link is read, and its target is resolved in the same way. Therefore
`..`, absolute paths and links that lead out of the folder end in an error, even if another process
replaces a component with a link during the access.

A file is written under a temporary name and then renamed. If the writer is killed, either the old
or the new file is there.
"""

import contextlib
import functools
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

from graphton.access import with_access
from graphton.trees import remove_tree_at

P = ParamSpec("P")
T = TypeVar("T")

PRIVATE_FOLDER: Final = ".graphton"
"""The first component of the paths of the worker's own files. The agent's tools cannot use it."""

_MAX_LINKS: Final = 40
_MAX_DEPTH: Final = 100
"""The maximum number of components of a path. Each of them is kept open during the access."""
_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FilesError(Exception):
    """A path cannot be used. The message says why, for people and models."""


class DeniedError(FilesError, PermissionError):
    """The permissions of a file or folder do not allow the access."""


def _restoring(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method on a private path restore the owner's rights if they are missing.

    The first argument after `self` is the path.
    """

    @functools.wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        folder = args[0]
        assert isinstance(folder, Folder)  # noqa: S101 (for the type checker)
        if not kwargs.get("private"):
            return method(*args, **kwargs)
        return with_access(folder._private_chain(str(args[1])), method, *args, **kwargs)

    return run


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a folder.

    Attributes:
        name: The name, without the folder.
        kind: `file`, `folder`, `link` or `other`.
        size: The size in bytes.
    """

    name: str
    kind: str
    size: int


class Folder:
    """A folder and everything in it. Close it after use, or use `with`.

    Args:
        root: The absolute path of an existing folder.
        private: An existing folder on the same file system for what is in PRIVATE_FOLDER. An
            agent's commands cannot change it if it is outside of `root`. None means that it is in
            `root`.

    Raises:
        PermissionError: if a folder may not be opened.
        FilesError: if a folder does not exist, or is a link or a file.
    """

    def __init__(self, root: Path, private: Path | None = None) -> None:
        self.root = root
        self._private = private
        self._fd = _open_folder(root)
        try:
            self._private_fd = None if private is None else _open_folder(private)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        """Return the folder itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the folder."""
        self.close()

    def close(self) -> None:
        """Close the folder."""
        os.close(self._fd)
        if self._private_fd is not None:
            os.close(self._private_fd)

    @_restoring
    def read(self, path: str, limit: int, *, private: bool = False) -> bytes:
        """Return the first `limit` bytes of a file.

        Raises:
            FilesError: if there is no such file in this folder.
        """
        with self._open_parent(path, private=private) as (parent, name):
            # O_NONBLOCK: opening a named pipe would otherwise wait for a writer.
            fd = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent
            )
            with os.fdopen(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise FilesError(f"`{path}` is not a regular file")
                return file.read(limit)

    @_restoring
    def write(
        self, path: str, content: bytes, *, mode: int | None = None, private: bool = False
    ) -> bool:
        """Write a file atomically. Missing folders are created.

        Args:
            path: The path of the file. Links inside this folder are followed.
            content: The new content.
            mode: The permissions. None keeps those of an existing file and means 0o644 for a new
                one.
            private: Whether the path may be in PRIVATE_FOLDER.

        Returns:
            Whether the file is new.

        Raises:
            FilesError: if the file cannot be written.
        """
        with self._open_parent(path, create=True, private=private) as (parent, name):
            before = _mode(parent, name)
            if before is not None and not stat.S_ISREG(before):
                what = "a folder" if stat.S_ISDIR(before) else "not a regular file"
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

    def list_entries(self, path: str = ".") -> list[Entry]:
        """Return the entries of a folder, sorted by name and without PRIVATE_FOLDER.

        Raises:
            FilesError: if there is no such folder in this folder.
        """
        with self._open_parent(path) as (parent, name):
            fd = os.open(name, _OPEN_FOLDER, dir_fd=parent)
            try:
                entries = []
                with os.scandir(fd) as found:
                    for item in found:
                        if item.name == PRIVATE_FOLDER and os.path.sameopenfile(fd, self._fd):
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            status = item.stat(follow_symlinks=False)
                            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "other")
                            entries.append(Entry(item.name, kind, status.st_size))
            finally:
                os.close(fd)
        return sorted(entries, key=lambda entry: entry.name)

    @_restoring
    def is_folder(self, path: str, *, private: bool = False) -> bool:
        """Whether a path leads to a folder inside this folder."""
        try:
            with self._open_parent(path, private=private) as (parent, name):
                mode = _mode(parent, name)
                return mode is not None and stat.S_ISDIR(mode)
        except FilesError:
            return False

    @_restoring
    def make_folder(self, path: str, *, private: bool = False) -> None:
        """Create a folder and its parents. It may exist already.

        Raises:
            FilesError: if the folder cannot be created.
        """
        with (
            self._open_parent(path, create=True, private=private) as (parent, name),
            contextlib.suppress(FileExistsError),
        ):
            os.mkdir(name, 0o755, dir_fd=parent)

    @_restoring
    def make_link(self, path: str, target: str, *, private: bool = False) -> None:
        """Create a symbolic link. The target is not checked.

        Raises:
            FilesError: if the path exists already.
        """
        with self._open_parent(path, create=True, private=private) as (parent, name):
            os.symlink(target, name, dir_fd=parent)

    def move(self, source: str, target: str) -> None:
        """Move a folder out of PRIVATE_FOLDER to a path that does not exist yet.

        The parents of the new path are created.

        Raises:
            FilesError: if the folder cannot be moved.
        """
        with (
            self._open_parent(source, private=True) as (old_parent, old),
            self._open_parent(target, create=True) as (new_parent, new),
        ):
            os.rename(old, new, src_dir_fd=old_parent, dst_dir_fd=new_parent)
            os.fsync(new_parent)

    @_restoring
    def remove(self, path: str, *, private: bool = False) -> None:
        """Remove a file, or a folder and everything in it. Links in it are not followed.

        The path need not exist.

        Raises:
            FilesError: if something cannot be removed.
        """
        with self._open_parent(path, private=private) as (parent, name):
            mode = _mode(parent, name)
            if mode is None:
                return
            if stat.S_ISDIR(mode):
                remove_tree_at(parent, name)
            else:
                os.unlink(name, dir_fd=parent)

    def remove_partial_files(self) -> None:
        """Remove the temporary files of writers that were killed. No write may be in progress."""
        if self.is_folder(f"{PRIVATE_FOLDER}/partial", private=True):
            self.remove(f"{PRIVATE_FOLDER}/partial", private=True)

    def relative_path(self, path: str) -> str:
        """Return a path relative to this folder: `./a/b`, or `.` for the folder itself.

        Raises:
            FilesError: if the path leads out of the folder or does not exist.
        """
        with self._open_parent(path) as (parent, name):
            os.lstat(name, dir_fd=parent)
        return "/".join([".", *self._components(path)])

    def _private_chain(self, path: str) -> list[Path]:
        """A private path and the folders that it is in, parents first."""
        if self._private is None:
            return []
        inside = PurePosixPath(path).relative_to(PRIVATE_FOLDER)
        parents = [self._private / parent for parent in reversed(inside.parents)]
        folders = [self._private.parent.parent, self._private.parent, *parents]
        return [*folders, self._private / "partial", self._private / inside]

    def _components(self, path: str) -> list[str]:
        if "\0" in path:
            raise FilesError("the path contains a NUL character")
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
    def _open_parent(
        self, path: str, *, create: bool = False, private: bool = False, reported_path: str = ""
    ) -> Iterator[tuple[int, str]]:
        """Resolve a path, and open the folder that its last component is in.

        Yields the file descriptor of that folder and the name of the last component. The name is
        not a link, need not exist, and is `.` for this folder itself. An OSError inside the `with`
        block is raised as FilesError; its message names `reported_path`, or else `path`.
        """
        components, start = self._components(path), self._fd
        reserved = "" if private else PRIVATE_FOLDER
        absolute: Callable[[str], list[str]] | None = self._components
        if private and self._private_fd is not None and components[:1] == [PRIVATE_FOLDER]:
            components, start, absolute = components[1:], self._private_fd, None
        walk = _Walk(path, start, components, absolute, reserved)
        try:
            name = walk.resolve(create=create)
            yield walk.folder, name
        except FilesError:
            raise
        except OSError as error:
            kind = DeniedError if isinstance(error, PermissionError) else FilesError
            raise kind(f"`{reported_path or path}`: {error.strerror or error}") from None
        finally:
            walk.close()

    @contextlib.contextmanager
    def _temporary(self, path: str) -> Iterator[tuple[int, str]]:
        """Open a folder for temporary files, and yield its file descriptor and an unused name."""
        name = secrets.token_hex(8)
        private_path = f"{PRIVATE_FOLDER}/partial/{name}"
        with self._open_parent(private_path, create=True, private=True, reported_path=path) as (
            folder,
            _,
        ):
            try:
                yield folder, name
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
                raise


class _Walk:
    """Resolves a path one component at a time, and keeps the folders on the way open.

    Args:
        path: The path, for messages.
        start: An open folder, which the way does not leave. It stays open after `close`.
        components: What is to be resolved, without empty components and `.`.
        absolute: Returns the components of the absolute target of a link, relative to `start`. It
            raises FilesError if the target is somewhere else. None if absolute targets are not
            allowed.
        reserved: The name of an entry of `start` that may not be used; empty if there is none.

    Attributes:
        folder: The folder that the way has reached, open.
    """

    def __init__(
        self,
        path: str,
        start: int,
        components: list[str],
        absolute: Callable[[str], list[str]] | None,
        reserved: str,
    ) -> None:
        self._path = path
        self._remaining = components
        self._absolute = absolute
        self._reserved = reserved
        self._links = 0
        self._opened = [os.dup(start)]

    @property
    def folder(self) -> int:
        return self._opened[-1]

    def close(self) -> None:
        """Close the folders of the way."""
        for fd in self._opened:
            os.close(fd)

    def resolve(self, *, create: bool) -> str:
        """Go to the folder of the last component, and return the component's name.

        The name is `.` if the path leads to the first folder or ends with `..`.

        Args:
            create: Whether to make folders that are missing.

        Raises:
            FilesError: if the path may not be used.
            OSError: if a folder cannot be opened.
        """
        while self._remaining:
            part, *self._remaining = self._remaining
            if part == "..":
                self._go_up()
                continue
            if part == self._reserved and len(self._opened) == 1:
                raise FilesError(f"`{self._path}` is reserved for the worker")
            mode = _mode(self.folder, part)
            if mode is not None and stat.S_ISLNK(mode):
                self._follow(part)
            elif self._remaining:
                self._enter(part, create=create and mode is None)
            else:
                return part
        return "."

    def _go_up(self) -> None:
        if len(self._opened) == 1:
            raise FilesError(f"`{self._path}` is outside of the working folder")
        os.close(self._opened.pop())

    def _enter(self, part: str, *, create: bool) -> None:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=self.folder)
        self._opened.append(os.open(part, _OPEN_FOLDER, dir_fd=self.folder))

    def _follow(self, link: str) -> None:
        """Put the target of a link before what remains."""
        self._links += 1
        if self._links > _MAX_LINKS:
            raise FilesError(f"`{self._path}` contains a loop of links")
        target = os.readlink(link, dir_fd=self.folder)
        if target.startswith("/"):
            self._remaining = self._absolute_target(target) + self._remaining
            while len(self._opened) > 1:
                os.close(self._opened.pop())
        else:
            parts = [part for part in target.split("/") if part not in ("", ".")]
            self._remaining = parts + self._remaining
        if len(self._remaining) > _MAX_DEPTH:
            raise FilesError(f"`{self._path}` is too deep")

    def _absolute_target(self, target: str) -> list[str]:
        if self._absolute is None:
            raise FilesError(f"`{self._path}` leads out of the worker's own files")
        try:
            return self._absolute(target)
        except FilesError:
            raise FilesError(f"`{self._path}` leads out of the working folder") from None


def _open_folder(path: Path) -> int:
    try:
        return os.open(path, _OPEN_FOLDER)
    except PermissionError:
        raise
    except OSError as error:
        raise FilesError(f"`{path}` is not a folder: {error.strerror}") from None


_KINDS: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


def _mode(parent: int, name: str) -> int | None:
    """The type and permissions of an entry, links not followed; None if there is no such entry."""
    try:
        return os.lstat(name, dir_fd=parent).st_mode
    except FileNotFoundError:
        return None

"""Installs skills in a sandbox. A skill is a page for the agent, with other files next to it.

The archive of a skill is untrusted. It cannot write outside of the skill's folder, and cannot fill
the disk.
"""

import gzip
import hashlib
import io
import re
import secrets
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Final, Protocol, TypeVar, cast

from graphton.files import PRIVATE_FOLDER, FilesError, Folder

T = TypeVar("T")

SKILLS_FOLDER: Final = "bin/skills"
PAGE_FILE: Final = "SKILL.md"

MAX_ENTRIES: Final = 5000
MAX_BYTES: Final = 100_000_000
"""The maximum size of an unpacked skill."""

MAX_HEADER_BYTES: Final = 1 << 17
"""The maximum size of what describes one entry of a tar archive: long names, PAX records."""

MAX_DIRECTORY_BYTES: Final = 2_000_000
"""The maximum size of a zip archive's directory, which is read before the first entry."""

_HASH: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CHUNK: Final = 1 << 20


class SkillError(Exception):
    """A skill cannot be used. The message says why."""


@dataclass(frozen=True, slots=True)
class Skill:
    """A skill in the sandbox.

    Attributes:
        name: The name.
        description: A description of one line; may be empty.
        page: The path of the page in the sandbox.
    """

    name: str
    description: str
    page: str


class _Readable(Protocol):
    """The content of an entry."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    mode: int
    link: str | None = None
    folder: bool = False
    content: _Readable | None = None


def skill_folder(version_hash: str, content: str) -> str:
    """The folder of a skill, relative to the sandbox.

    Args:
        version_hash: The hash that the server assigns to a version of the skill; may be empty.
        content: Identifies the skill if there is no hash.

    Raises:
        SkillError: if the hash is not a valid name of a folder.
    """
    name = version_hash or hashlib.sha256(content.encode(errors="replace")).hexdigest()
    if not _HASH.fullmatch(name):
        raise SkillError(f"the version hash `{name[:100]}` is invalid")
    return f"{SKILLS_FOLDER}/{name}"


def install(folder: Folder, name: str, target: str, page: str, artifact: bytes) -> Skill:
    """Install a skill atomically, unless it is already installed.

    Args:
        folder: The sandbox.
        name: The name of the skill.
        target: The skill's folder, from `skill_folder`.
        page: The text of SKILL.md. If it is empty, the archive must contain that file.
        artifact: A zip or tar.gz archive; may be empty.

    Raises:
        SkillError: if the archive is invalid, contains something forbidden, or there is no page.
        FilesError: if a file cannot be written.
    """
    if not folder.is_folder(target):
        partial = f"{PRIVATE_FOLDER}/partial/{secrets.token_hex(8)}"
        try:
            folder.make_folder(partial, private=True)
            if artifact:
                _unpack(folder, partial, artifact)
            folder.move(partial, target)
        finally:
            folder.remove(partial, private=True)
    path = f"{target}/{PAGE_FILE}"
    if page:
        folder.write(path, page.encode(errors="replace"))
    else:
        try:
            page = folder.read(path, _CHUNK).decode(errors="replace")
        except FilesError as error:
            raise SkillError(f"it has no page: {error}") from None
    return Skill(name, _description(page), path)


def _description(page: str) -> str:
    """The description of a skill: `description:` in the page's front matter, or its first line."""
    page = page.removeprefix("\ufeff").replace("\r\n", "\n")
    if match := re.match(r"---\n(.*?)\n---", page, re.S):
        line = re.search(r"^description:\s*(.+)$", match[1], re.M)
        return line[1].strip().strip("\"'")[:500] if line else ""
    first = next((line for line in page.splitlines() if line.strip()), "")
    return first.strip("# ").strip()[:500]


def _unpack(folder: Folder, target: str, artifact: bytes) -> None:
    left, count = MAX_BYTES, 0
    try:
        for entry in _entries(artifact):
            count += 1
            if count > MAX_ENTRIES:
                raise SkillError(f"the archive has more than {MAX_ENTRIES} entries")
            parts = _path_components(entry.name)
            if not parts:
                continue
            path = "/".join([target, *parts])
            if entry.folder:
                folder.make_folder(path, private=True)
            elif entry.link is not None:
                _check_link(entry.name, entry.link, len(parts) - 1)
                folder.make_link(path, entry.link, private=True)
            elif entry.content is not None:
                data = _read_limited(entry.content, left, entry.name)
                left -= len(data)
                mode = 0o755 if entry.mode & 0o111 else 0o644
                folder.write(path, data, mode=mode, private=True)
    except (SkillError, FilesError):
        raise
    except Exception as error:  # a broken archive can raise almost any exception
        raise SkillError(f"the archive cannot be read: {error}") from None


def _read_limited(content: _Readable, left: int, name: str) -> bytes:
    """Read at most `left` bytes. The size in an entry's header cannot be trusted."""
    chunks, size = [], 0
    while chunk := content.read(_CHUNK):
        size += len(chunk)
        if size > left:
            raise SkillError(
                f"`{name}`: the archive is larger than {MAX_BYTES // 1_000_000} MB, unpacked"
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _path_components(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise SkillError(f"the archive contains `{name}`, which leads out of it")
    return parts


def _check_link(name: str, target: str, depth: int) -> None:
    """Check that a link stays within the archive.

    `..` is allowed only at the beginning of the target: after the name of another link, it would
    go up from the target of that link.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    if target.startswith("/") or ".." in parts[ups:] or ups > depth or "\\" in target:
        raise SkillError(f"the archive contains the link `{name}`, which leads out of it")


def _entries(artifact: bytes) -> Iterator[_Entry]:
    if artifact.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _zip_entries(artifact)
    elif artifact.startswith(b"\x1f\x8b"):
        yield from _tar_entries(artifact)
    else:
        raise SkillError("the archive is neither zip nor tar.gz")


def _zip_entries(artifact: bytes) -> Iterator[_Entry]:
    end = artifact.rfind(b"PK\x05\x06")
    if int.from_bytes(artifact[end + 12 : end + 16], "little") > MAX_DIRECTORY_BYTES:
        raise SkillError("the archive's directory is larger than 2 MB")
    with zipfile.ZipFile(io.BytesIO(artifact)) as archive:
        for item in archive.infolist():
            mode = item.external_attr >> 16
            if item.is_dir():
                yield _Entry(item.filename, mode, folder=True)
                continue
            with archive.open(item) as content:
                if stat.S_ISLNK(mode):
                    target = _read_limited(content, 4096, item.filename).decode()
                    yield _Entry(item.filename, mode, link=target)
                elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                    yield _Entry(item.filename, mode, content=content)
                else:
                    raise SkillError(f"the archive contains `{item.filename}`, which is not a file")


class _Unpacking:
    """Unpacks gzip, and limits how much is read at a time.

    A small archive can have a header of gigabytes, which `tarfile` reads into memory.
    """

    def __init__(self, artifact: bytes) -> None:
        self._file = gzip.GzipFile(fileobj=io.BytesIO(artifact))
        self._left = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes."""
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise SkillError(f"an entry has a header of more than {MAX_HEADER_BYTES >> 10} KiB")
        return data

    def allow(self, size: int, work: Callable[[], T]) -> T:
        """Run `work`, which may read a header and `size` bytes of content."""
        self._left = size + MAX_HEADER_BYTES
        return work()


class _Content:
    """The content of an entry in an archive that is being unpacked."""

    def __init__(self, source: _Unpacking, content: _Readable) -> None:
        self._source, self._content = source, content

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        return self._source.allow(size, lambda: self._content.read(size))


def _tar_entries(artifact: bytes) -> Iterator[_Entry]:
    source = _Unpacking(artifact)
    with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|") as archive:
        while (item := source.allow(0, archive.next)) is not None:
            if item.isdir():
                yield _Entry(item.name, item.mode, folder=True)
            elif item.issym():
                yield _Entry(item.name, item.mode, link=item.linkname)
            elif item.isreg():
                content = archive.extractfile(item)
                yield _Entry(item.name, item.mode, content=content and _Content(source, content))
            else:
                raise SkillError(f"the archive contains `{item.name}`, which is not a file")

"""Reads an ELF file's architecture and libraries, and removes what the loader does not need."""

import struct
from dataclasses import dataclass
from pathlib import Path

MACHINES = {"amd64": 62, "arm64": 183}
"""The value of `e_machine` for each supported architecture, by its name in TARGETARCH."""

_MAGIC = b"\x7fELF\x02\x01"  # 64-bit, little-endian
_ET_EXEC, _ET_DYN = 2, 3
_PT_DYNAMIC, _PT_INTERP, _PT_LOAD = 2, 3, 1
_SHT_NOBITS = 8
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 15, 29
_DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF


@dataclass(frozen=True, slots=True)
class Elf:
    """The properties of a program or shared library.

    Attributes:
        machine: The value of `e_machine`.
        interpreter: The path of its dynamic loader, or None.
        needed: The names of the shared libraries that it is linked with.
        search: The folders to search before the system's. `$ORIGIN` is the file's own folder.
    """

    machine: int
    interpreter: str | None
    needed: tuple[str, ...]
    search: tuple[str, ...]


def is_elf(path: Path) -> bool:
    """Whether a file begins like an ELF file."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def read(path: Path) -> Elf:
    """Read an ELF file's header and dynamic section.

    Raises:
        ValueError: if it is not a 64-bit little-endian ELF file, or is broken.
    """
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise ValueError(f"`{path}` is not a 64-bit little-endian ELF file")
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError, StopIteration) as error:
        raise ValueError(f"`{path}` is a broken ELF file: {error!r}") from None


def _read(data: bytes) -> Elf:
    (machine,) = struct.unpack_from("<H", data, 18)
    headers = _segments(data)
    interpreter = None
    dynamic: list[tuple[int, int]] = []
    for kind, _, offset, _, _, length in headers:
        if kind == _PT_INTERP:
            interpreter = _string(data, offset)
        elif kind == _PT_DYNAMIC:
            dynamic = list(struct.iter_unpack("<QQ", data[offset : offset + length]))
    strings = _file_offset(headers, next((v for tag, v in dynamic if tag == _DT_STRTAB), 0))

    def values(*tags: int) -> tuple[str, ...]:
        return tuple(_string(data, strings + value) for tag, value in dynamic if tag in tags)

    search = ":".join(values(_DT_RPATH, _DT_RUNPATH)).split(":")
    return Elf(machine, interpreter, values(_DT_NEEDED), tuple(p for p in search if p))


def _segments(data: bytes) -> list[tuple[int, ...]]:
    """The program headers: type, flags, offset, address, physical address, size in the file."""
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return [struct.unpack_from("<IIQQQQ", data, start + i * size) for i in range(count)]


def _string(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()


def _file_offset(headers: list[tuple[int, ...]], address: int) -> int:
    """The offset in the file of the data that is loaded at `address`."""
    for kind, _, offset, start, _, length in headers:
        if kind == _PT_LOAD and start <= address < start + length:
            return offset + address - start
    return 0


def remove_unused_library(data: bytes, name: str) -> bytes:
    """Remove a library from those that the loader must find, if the file uses nothing of it.

    Compilers link every C++ file with libstdc++, even if it uses only C. All symbols of libstdc++
    have versions, so a file that uses one lists libstdc++ among its required versions.

    Args:
        data: A program or shared library.
        name: The name of a library whose symbols all have versions.

    Returns:
        The changed data, or all of it unchanged if the library is used or not needed, or if the
        file lists no versions at all.
    """
    try:
        headers = _segments(data)
        _, _, start, _, _, length = next(h for h in headers if h[0] == _PT_DYNAMIC)
        entries = list(struct.iter_unpack("<QQ", data[start : start + length]))
        value = dict(entries)
        strings = _file_offset(headers, value[_DT_STRTAB])
        versions = _file_offset(headers, value[_DT_VERNEED])
        for _ in range(value[_DT_VERNEEDNUM]):
            # struct Elf64_Verneed: version, count, file, first auxiliary entry, next.
            _, _, file, _, following = struct.unpack_from("<HHIII", data, versions)
            if _string(data, strings + file) == name:
                return data
            versions += following
        kept = [
            entry
            for entry in entries
            if entry[0] != _DT_NEEDED or _string(data, strings + entry[1]) != name
        ]
    except (struct.error, KeyError, ValueError, StopIteration):
        return data
    kept += [(_DT_NULL, 0)] * (len(entries) - len(kept))
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in kept)
    return data[:start] + dynamic + data[start + length :]


def strip_sections(data: bytes) -> bytes:
    """Remove the parts of a program or shared library that are not in any segment.

    The loader uses the segments (program headers) only, on every architecture. So do thread-local
    storage, read-only relocations, and unwinding for panics and exceptions (GNU_EH_FRAME). The
    symbol table, the debug information and the section headers are outside of the segments, at the
    end of the file, so removing them moves nothing else.

    Debuggers, profilers and Rust backtraces then show no names of native functions. The message of
    a panic still shows the file and the line.

    Returns:
        The remaining data, or all of it if the file has an unexpected structure.
    """
    try:
        end = _end_of_segments(data)
    except (struct.error, ValueError):
        return data
    kept = bytearray(data[:end])
    struct.pack_into("<Q", kept, 40, 0)  # e_shoff
    struct.pack_into("<HH", kept, 60, 0, 0)  # e_shnum, e_shstrndx
    return bytes(kept)


def _end_of_segments(data: bytes) -> int:
    """The offset of the end of the last segment.

    Raises:
        ValueError: if the file has no segments or sections, is broken, or has other data than
            sections after the segments.
    """
    if not data.startswith(_MAGIC):
        raise ValueError("not a 64-bit little-endian ELF file")
    (kind,) = struct.unpack_from("<H", data, 16)
    program_headers, section_headers = struct.unpack_from("<QQ", data, 32)
    size, count, section_size, section_count = struct.unpack_from("<HHHH", data, 54)
    # A count of 0xffff or 0 means that the real one is in a section header. That is not supported.
    if kind not in (_ET_EXEC, _ET_DYN) or size != 56 or count in (0, 0xFFFF):
        raise ValueError("not a program or shared library")
    after = section_headers + section_count * section_size
    if section_size != 64 or section_count == 0 or after > len(data):
        raise ValueError("no sections")

    segments = _segments(data)
    ends = [offset + length for _, _, offset, _, _, length in segments if length]
    end = max([program_headers + count * size, *ends])
    if end > len(data) or _PT_LOAD not in (segment[0] for segment in segments):
        raise ValueError("broken")

    for i in range(section_count):
        # type, flags, address, offset, size
        section, _, _, offset, length = struct.unpack_from(
            "<IQQQQ", data, section_headers + i * section_size + 4
        )
        if section != _SHT_NOBITS:
            after = max(after, offset + length)
    if data[after:].strip(b"\0"):
        raise ValueError("other data is appended, which the program may read itself")
    return int(end)

"""Reads an ELF file's architecture and libraries, and removes the parts that no loader reads."""

import struct
from dataclasses import dataclass
from pathlib import Path

MACHINES = {"amd64": 62, "arm64": 183}
"""The value of `e_machine` for each supported architecture, by its name in TARGETARCH."""

_MAGIC = b"\x7fELF\x02\x01"  # 64-bit, little-endian
_ET_EXEC, _ET_DYN = 2, 3
_PT_DYNAMIC, _PT_INTERP, _PT_LOAD = 2, 3, 1
_SHT_NOBITS = 8
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29


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
    (header_offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    # Each program header: type, flags, offset, address, physical address, size in the file.
    headers = [struct.unpack_from("<IIQQQQ", data, header_offset + i * size) for i in range(count)]
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


def _string(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()


def _file_offset(headers: list[tuple[int, ...]], address: int) -> int:
    """The offset in the file of the data that is loaded at `address`."""
    for kind, _, offset, start, _, length in headers:
        if kind == _PT_LOAD and start <= address < start + length:
            return offset + address - start
    return 0


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

    segments = [
        struct.unpack_from("<IIQQQQ", data, program_headers + i * size) for i in range(count)
    ]
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

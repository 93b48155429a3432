"""The few fields of an ELF file that say where it runs and what it loads; and the rest, removed."""

import struct
from dataclasses import dataclass
from pathlib import Path

MACHINES = {"amd64": 62, "arm64": 183}
"""`e_machine` of each architecture an image can be built for, by its name in TARGETARCH."""

_MAGIC = b"\x7fELF\x02\x01"  # 64-bit, little-endian
_ET_EXEC, _ET_DYN = 2, 3
_PT_DYNAMIC, _PT_INTERP, _PT_LOAD = 2, 3, 1
_SHT_NOBITS = 8
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29


@dataclass(frozen=True, slots=True)
class Elf:
    """What a program or shared library says about itself.

    Attributes:
        machine: Its `e_machine`.
        interpreter: The dynamic loader it asks for, or None.
        needed: The names of the shared libraries it is linked with.
        search: Folders to look in before the system's; `$ORIGIN` is the file's own.
    """

    machine: int
    interpreter: str | None
    needed: tuple[str, ...]
    search: tuple[str, ...]


def is_elf(path: Path) -> bool:
    """Whether a regular file begins like an ELF file."""
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
    """Where in the file that is which is loaded at `address`."""
    for kind, _, offset, start, _, length in headers:
        if kind == _PT_LOAD and start <= address < start + length:
            return offset + address - start
    return 0


def strip_sections(data: bytes) -> bytes:
    """A program or shared library without what only linkers, debuggers and profilers read.

    A loader goes by the program headers, on every architecture; so do threads (TLS), read-only
    relocations and the unwinding of panics and exceptions (GNU_EH_FRAME). What no segment holds
    are the symbol table, debug information and the section headers, and they stand at the end of
    a file: what is kept stays where it is. Lost are the names of native functions in a debugger,
    a profiler, or a Rust backtrace; the message of a panic, with its file and line, is not.

    Returns:
        The data as it was, if there is anything in it that this does not understand.
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
    """Where in a file the last byte is that a loader may ask for.

    Raises:
        ValueError: if sections are not all that comes after it, or if it cannot be said.
    """
    if not data.startswith(_MAGIC):
        raise ValueError("not a 64-bit little-endian ELF file")
    (kind,) = struct.unpack_from("<H", data, 16)
    program_headers, section_headers = struct.unpack_from("<QQ", data, 32)
    size, count, section_size, section_count = struct.unpack_from("<HHHH", data, 54)
    # 0xffff and 0 are escapes: the true numbers would be in a section header.
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
        raise ValueError("something is appended, which the program may read itself")
    return int(end)

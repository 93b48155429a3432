"""The few fields of an ELF file that say where it runs and what it loads."""

import struct
from dataclasses import dataclass
from pathlib import Path

MACHINES = {"amd64": 62, "arm64": 183}
"""`e_machine` of each architecture an image can be built for, by its name in TARGETARCH."""

_PT_DYNAMIC, _PT_INTERP, _PT_LOAD = 2, 3, 1
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
    if data[:6] != b"\x7fELF\x02\x01":
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

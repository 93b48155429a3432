"""Assembles programs of classic BPF, the language of seccomp filters.

A program runs for each system call. It sees the number of the call, the architecture and six
arguments of 64 bits, but not what the arguments point to.
https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000

NUMBER_OFFSET, ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
"""The offsets of fields in `struct seccomp_data`."""

MAX_INSTRUCTIONS: Final = 4096

_LOAD_WORD, _RETURN, _JUMP = 0x20, 0x06, 0x05
_JUMP_EQUAL, _JUMP_GREATER_OR_EQUAL, _JUMP_ANY_BIT, _AND = 0x15, 0x35, 0x45, 0x54


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: `struct sock_filter`.

    Attributes:
        code: The operation.
        value: Its constant.
        then: How many instructions a conditional jump skips if its condition holds.
        otherwise: How many it skips if not.
    """

    code: int
    value: int
    then: int = 0
    otherwise: int = 0


Code = list[Instruction]


def load(offset: int) -> Instruction:
    """Load 32 bits of `struct seccomp_data` into the accumulator."""
    return Instruction(_LOAD_WORD, offset)


def load_argument(index: int) -> Instruction:
    """Load the lower 32 bits of an argument, on a little-endian machine."""
    return load(_ARGUMENTS_OFFSET + 8 * index)


def mask(bits: int) -> Instruction:
    """Keep only these bits of the accumulator."""
    return Instruction(_AND, bits)


def allow() -> Instruction:
    """Let the system call run."""
    return Instruction(_RETURN, ALLOW)


def fail(error: int) -> Instruction:
    """Let the system call fail with this errno, without running it."""
    return Instruction(_RETURN, _ERRNO | error)


def when_equal(values: Sequence[int], block: Sequence[Instruction]) -> Code:
    """Run a block if the accumulator has one of these values. It keeps its value."""
    code: Code = []
    for number, value in enumerate(values):
        # Jump over the remaining tests and the jump past the block.
        code += _far(_JUMP_EQUAL, value, 2 * (len(values) - 1 - number) + 1)
    return [*code, Instruction(_JUMP, len(block)), *block]


def unless_equal(values: Sequence[int], block: Sequence[Instruction]) -> Code:
    """Run a block if the accumulator has none of these values."""
    code: Code = []
    for number, value in enumerate(values):
        code += _far(_JUMP_EQUAL, value, 2 * (len(values) - 1 - number) + len(block))
    return [*code, *block]


def when_any_bit(bits: int, block: Sequence[Instruction]) -> Code:
    """Run a block if the accumulator has one of these bits."""
    return [*_far(_JUMP_ANY_BIT, bits, 1), Instruction(_JUMP, len(block)), *block]


def when_at_least(value: int, block: Sequence[Instruction]) -> Code:
    """Run a block if the accumulator, without a sign, is not smaller than this."""
    return [*_far(_JUMP_GREATER_OR_EQUAL, value, 1), Instruction(_JUMP, len(block)), *block]


def _far(code: int, value: int, distance: int) -> Code:
    """Skip `distance` instructions if a condition holds.

    The distance of a conditional jump has only 8 bits, so it skips an unconditional one, which
    has 32.
    """
    return [Instruction(code, value & 0xFFFFFFFF, 0, 1), Instruction(_JUMP, distance)]


def encode(code: Sequence[Instruction]) -> bytes:
    """The program as the kernel reads it.

    Raises:
        ValueError: if it is too long.
    """
    if len(code) > MAX_INSTRUCTIONS:
        raise ValueError(f"the filter has {len(code)} instructions, of at most {MAX_INSTRUCTIONS}")
    return b"".join(struct.pack("=HBBI", i.code, i.then, i.otherwise, i.value) for i in code)

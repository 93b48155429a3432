"""Reads streams of JSON objects: server-sent events, and JSON lines.

The lines are those of the formats. Python's `str.splitlines`, and with it httpx, also splits at
characters that may be inside of a JSON string, such as U+2028 and U+0085.
"""

import json
import re
from collections.abc import AsyncIterator
from typing import Final

END: Final = "[DONE]"
"""The data of the event that ends a stream of some services."""

_MAX_GUESSED_LINES: Final = 20
"""How many lines of data without an empty line may be events of their own.

Each of them is read again with the next one, so without a limit the time would be quadratic."""

_SSE_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_JSON_LINE_END: Final = re.compile(rb"\n")


async def json_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the lines that are not empty. Only a newline ends one."""
    async for line in _lines(chunks, _JSON_LINE_END):
        if line.strip():
            yield line


async def sse_data(chunks: AsyncIterator[bytes], *, lenient: bool = True) -> AsyncIterator[str]:
    """Yield the data of server-sent events.

    https://html.spec.whatwg.org/multipage/server-sent-events.html is the format. The last event
    need not have an empty line after it.

    Args:
        chunks: The stream.
        lenient: Whether to read also what some model services send: events without an empty line
            between them, which are recognised because each is a whole JSON value, and errors
            without a field name.
    """
    data: list[str] = []
    async for line in _lines(chunks, _SSE_LINE_END):
        name, _, value = line.partition(":")
        if name == "data":
            if lenient and 0 < len(data) <= _MAX_GUESSED_LINES and _is_whole("\n".join(data)):
                yield "\n".join(data)
                data = []
            data.append(value.removeprefix(" "))
        elif lenient and line.startswith("{"):
            yield line
        elif not line and data:
            yield "\n".join(data)
            data = []
    if data:
        yield "\n".join(data)


def _is_whole(text: str) -> bool:
    if text.strip() == END:
        return True
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


async def _lines(chunks: AsyncIterator[bytes], line_end: re.Pattern[bytes]) -> AsyncIterator[str]:
    """Yield lines without their ends. The last one need not have an end."""
    rest = bytearray()
    after_cr = False
    async for received in chunks:
        # After a \r, a \n is the second half of one line end.
        chunk = received.removeprefix(b"\n") if after_cr else received
        after_cr = False
        start = 0
        for match in line_end.finditer(chunk):
            rest += chunk[start : match.start()]
            yield rest.decode(errors="replace")
            rest.clear()
            start = match.end()
        after_cr = start == len(chunk) and chunk.endswith(b"\r")
        rest += chunk[start:]
    if rest:
        yield rest.decode(errors="replace")

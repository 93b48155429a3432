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

_SSE_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_JSON_LINE_END: Final = re.compile(rb"\n")


async def json_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the lines that are not empty. Only a newline ends one."""
    async for line in _lines(chunks, _JSON_LINE_END):
        if line.strip():
            yield line


async def sse_data(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the data of server-sent events.

    https://html.spec.whatwg.org/multipage/server-sent-events.html is the format. Some services
    leave out the empty line between events, and some the one after the last event; their events are
    recognised because each is a whole JSON object.
    """
    data: list[str] = []
    async for line in _lines(chunks, _SSE_LINE_END):
        name, _, value = line.partition(":")
        if name == "data":
            if data and _is_whole("\n".join(data)):
                yield "\n".join(data)
                data = []
            data.append(value.removeprefix(" "))
        elif line.startswith("{"):  # a line without a field name, as some services send errors
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
    except ValueError:
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

"""Tests the reading of streams, with every way to cut them into chunks."""

from collections.abc import AsyncIterator

import pytest

from graphton.providers.events import json_lines, sse_data


async def chunks(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "events"),
    [
        ('data: {"a":1}\n\ndata: [DONE]\n\n', ['{"a":1}', "[DONE]"]),
        ('event: x\r\ndata:{"a":1}\r\n\r\n: comment\r\n\r\ndata: 2\r\n\r\n', ['{"a":1}', "2"]),
        ('data: {"a":\rdata: 1}\r\rdata: 2\r\r', ['{"a":\n1}', "2"]),
        ('data: "one\u2028two\u2029three\u0085four\x0b\x0c\x1c"\n\n',
         ['"one\u2028two\u2029three\u0085four\x0b\x0c\x1c"']),
        ('data: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n', ['{"a":1}', '{"b":2}', "[DONE]"]),
        ('data: {"end":"missing"}', ['{"end":"missing"}']),
        ('{"error":"x"}\n', ['{"error":"x"}']),
        ("data:  two spaces\nid: 1\nretry: 5\n\n", [" two spaces"]),
        ("data\n\n", [""]),
        ("\n\n\n", []),
    ],
)  # fmt: skip
async def test_server_sent_events(text: str, events: list[str], size: int) -> None:
    assert [data async for data in sse_data(chunks(text.encode(), size))] == events


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_json_lines(size: int) -> None:
    text = '{"a":"one\u2028two\u0085three"}\r\n\n{"b":"\r"}\n{"c":3}'
    found = [line async for line in json_lines(chunks(text.encode(), size))]
    assert [line.strip("\r") for line in found] == [
        '{"a":"one\u2028two\u0085three"}',
        '{"b":"\r"}',
        '{"c":3}',
    ]

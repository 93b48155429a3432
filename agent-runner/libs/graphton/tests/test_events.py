"""Tests the reading of streams, with every way to cut them into chunks."""

import time
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


async def test_without_guesses_only_an_empty_line_ends_an_event() -> None:
    text = 'data: {"a":1}\ndata: 2\n{"error":"x"}\n\ndata: 3'
    found = [data async for data in sse_data(chunks(text.encode(), 7), lenient=False)]
    assert found == ['{"a":1}\n2', "3"]


@pytest.mark.parametrize("lenient", [True, False])
@pytest.mark.parametrize("line", ["data: [", "data: {", 'data: "' + "x" * 100])
async def test_many_lines_of_one_event_are_read_quickly(line: str, lenient: bool) -> None:
    text = f"{line}\n" * 20_000
    began = time.process_time()
    found = [data async for data in sse_data(chunks(text.encode(), 65536), lenient=lenient)]
    assert time.process_time() - began < 2
    assert found == ["\n".join([line.removeprefix("data: ")] * 20_000)]


async def test_a_value_that_is_nested_too_deeply_is_not_whole() -> None:
    text = "data: " + "[" * 100_000
    found = [data async for data in sse_data(chunks(f"{text}\n{text}".encode(), 65536))]
    assert found == ["\n".join(["[" * 100_000] * 2)]


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_json_lines(size: int) -> None:
    text = '{"a":"one\u2028two\u0085three"}\r\n\n{"b":"\r"}\n{"c":3}'
    found = [line async for line in json_lines(chunks(text.encode(), size))]
    assert [line.strip("\r") for line in found] == [
        '{"a":"one\u2028two\u0085three"}',
        '{"b":"\r"}',
        '{"c":3}',
    ]

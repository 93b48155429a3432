import pytest

from graphton.network import Target
from graphton.proxy_request import Request, RequestError, chunk_size, parse


def read(*lines: str) -> Request:
    return parse("\r\n".join([*lines, "", ""]).encode("latin-1"))


def test_a_tunnel() -> None:
    request = read("CONNECT PyPI.org:443 HTTP/1.1", "Host: other", "User-Agent: x")
    assert (request.is_tunnel, request.target) == (True, Target("pypi.org", 443))


def test_a_request_is_sent_on_without_what_is_for_the_proxy() -> None:
    request = read(
        "POST http://Example.com/a?b HTTP/1.1",
        *("Host: evil.example", "Accept: */*", "Proxy-Authorization: Basic eA==", "X-One: 1"),
        *("Connection: close, X-One", "Proxy-Connection: keep-alive", "Upgrade: h2c"),
        *("Max-Forwards: 0",),
        *("Content-Length: 3", "Cookie: \xe9"),
    )
    assert (request.target, request.length) == (Target("example.com", 80), 3)
    assert request.render().decode("latin-1").split("\r\n") == [
        *("POST /a?b HTTP/1.1", "Host: example.com", "Accept: */*"),
        *("Content-Length: 3", "Cookie: \xe9", "Connection: close", "", ""),
    ]
    to_proxy = request.render(credentials="Basic b3du", to_proxy=True).decode("latin-1")
    assert to_proxy.startswith("POST http://example.com/a?b HTTP/1.1\r\nHost: example.com\r\n")
    assert to_proxy.endswith("\r\nProxy-Authorization: Basic b3du\r\n\r\n")


@pytest.mark.parametrize(
    ("address", "line", "host"),
    [
        ("http://example.com", "GET / HTTP/1.0", "example.com"),
        ("HTTP://example.com:8080?x", "GET /?x HTTP/1.0", "example.com:8080"),
        ("http://[::1]:8080//x", "GET //x HTTP/1.0", "[::1]:8080"),
    ],
)
def test_addresses(address: str, line: str, host: str) -> None:
    request = read(f"GET {address} HTTP/1.0")
    assert request.render().decode().split("\r\n")[:2] == [line, f"Host: {host}"]


@pytest.mark.parametrize(
    "first",
    [
        *(
            "",
            "GET",
            "GET /",
            "GET / HTTP/1.1",
            "GET http://a/ HTTP/2.0",
            "GET  http://a/ HTTP/1.1",
        ),
        *("GET http://a/ HTTP/1.1 x", "GET https://a/ HTTP/1.1", "GET ftp://a/ HTTP/1.1"),
        *("GET http:///x HTTP/1.1", "GET http://u@a/ HTTP/1.1", "GET http://u:p@a/ HTTP/1.1"),
        *("GET http://a:80@b/ HTTP/1.1", "GET http://a\\@b/ HTTP/1.1", "GET http://a#@b/ HTTP/1.1"),
        *("GET http://a/\tb HTTP/1.1", "GET http://a/#f HTTP/1.1", "GET http://a\xe9/ HTTP/1.1"),
        *("CONNECT a HTTP/1.1", "CONNECT u@a:443 HTTP/1.1", "CONNECT http://a:443 HTTP/1.1"),
        *("CONNECT a:443\nb HTTP/1.1", "CONNECT a:443\0 HTTP/1.1", "CONNECT a:443 b:443 HTTP/1.1"),
        *(
            "CONNECT 2130706433:443 HTTP/1.1",
            "CONNECT a%2eb:443 HTTP/1.1",
            "TRACE http://a/ HTTP/1.1",
            "TRACK http://a/ HTTP/1.1",
            "trace http://a/ HTTP/1.1",
            "G(T http://a/ HTTP/1.1",
        ),
    ],
)
def test_first_lines_that_are_refused(first: str) -> None:
    with pytest.raises(RequestError):
        read(first)


@pytest.mark.parametrize(
    "fields",
    [
        ["no colon"], [": x"], [" folded: x"], ["a: b", " c"], ["a b: c"], ["a : b"],
        ["a: b\nc: d"], ["a: b\rc: d"], ["a: \0"], ["Content-Length: 1", "Content-Length: 1"],
        ["Content-Length: 1, 1"], ["Content-Length: +1"], ["Content-Length: -1"],
        ["Content-Length: ٣".encode().decode("latin-1")], ["Content-Length: "],
        ["Content-Length: 1", "Transfer-Encoding: chunked"], ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], ["Transfer-Encoding: x"],
        ["Content-Length: 1", "Connection: Content-Length"],
    ],
)  # fmt: skip
def test_fields_that_are_refused(fields: list[str]) -> None:
    with pytest.raises(RequestError):
        read("POST http://a/ HTTP/1.1", *fields)


def test_chunks_are_refused_with_version_1_0() -> None:
    with pytest.raises(RequestError, match="ambiguous"):
        read("POST http://a/ HTTP/1.0", "Transfer-Encoding: chunked")


def test_the_length_of_the_body() -> None:
    assert read("GET http://a/ HTTP/1.1").length == 0
    assert read("POST http://a/ HTTP/1.1", "transfer-encoding: Chunked").length is None


def test_chunks() -> None:
    assert chunk_size(b"1f\r\n") == 31
    assert chunk_size(b'0;name="x"\r\n') == 0
    for line in (b"\r\n", b"0x1\r\n", b"-1\r\n", b"1 2\r\n", b"g\r\n", b"1\n", b"1" * 20 + b"\r\n"):
        with pytest.raises(RequestError):
            chunk_size(line)

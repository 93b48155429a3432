"""Reads the requests that commands send to the proxy, and writes those that it sends on.

Everything here is pure. What is ambiguous is refused, because the proxy and the next server could
understand it differently. https://www.rfc-editor.org/rfc/rfc9112.html
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from graphton.network import Target

MAX_HEAD_BYTES: Final = 1 << 16
"""The maximum size of a request without its body."""

_MAX_DIGITS: Final = 18

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rf"({_NAME}) ([\x21-\x7e]+) HTTP/1\.([01])")
_FIELD: Final = re.compile(rf"({_NAME}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_URL: Final = re.compile(r"[Hh][Tt][Tt][Pp]://([^/?#]*)([/?][^#]*)?")

_NOT_SENT_ON: Final = frozenset(
    {
        *("connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("max-forwards", "proxy-connection", "te", "upgrade"),
    }
)
"""Fields for the proxy itself, and the one that the address replaces.

`Max-Forwards` lets another proxy answer with the request that it gets."""

_NOT_ALLOWED: Final = frozenset({"TRACE", "TRACK"})
"""The answer repeats the request, with what the worker adds for its own proxy."""


class RequestError(ValueError):
    """A request is invalid. The message says why, and has nothing of the request."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request.

    Attributes:
        method: The method.
        target: The server.
        path: The path and the query; empty for a tunnel.
        version: The digit after `HTTP/1.`.
        fields: The header fields to send on.
        length: The length of the body in bytes; None if the body is sent in chunks.
    """

    method: str
    target: Target
    path: str
    version: str
    fields: Sequence[tuple[str, str]]
    length: int | None

    @property
    def is_tunnel(self) -> bool:
        """Whether the command asks for a connection, and not for an answer."""
        return self.method == "CONNECT"

    def render(self, *, credentials: str = "", to_proxy: bool = False) -> bytes:
        """The head of the request for the next server.

        The `Host` comes from the address of the request, whatever the command has sent as one.

        Args:
            credentials: The value of `Proxy-Authorization`, if any.
            to_proxy: Whether the next server is a proxy.
        """
        host = str(self.target).removesuffix(":80")
        path = f"http://{host}{self.path}" if to_proxy else self.path
        fields = [("Host", host), *self.fields, ("Connection", "close")]
        if credentials:
            fields.append(("Proxy-Authorization", credentials))
        lines = [f"{self.method} {path} HTTP/1.{self.version}", *(f"{n}: {v}" for n, v in fields)]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def parse(head: bytes) -> Request:
    """Read a request up to the empty line after its fields.

    Raises:
        RequestError: if it is invalid, or asks for something that the proxy does not do.
    """
    first, *lines = head.removesuffix(b"\r\n\r\n").decode("latin-1").split("\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if not match:
        raise RequestError("the first line is invalid")
    fields = [_FIELD.fullmatch(line) for line in lines]
    if not all(fields):
        raise RequestError("a header field is invalid")
    pairs = [(field[1], field[2]) for field in fields if field]
    method, address, version = match[1], match[2], match[3]
    if method.upper() in _NOT_ALLOWED:
        raise RequestError("the method is not allowed")
    try:
        if method == "CONNECT":
            return Request(method, Target.parse(address), "", version, (), 0)
        url = _URL.fullmatch(address)
        if not url:
            raise RequestError("the address should be http://host/path; https needs CONNECT")
        target = Target.parse(url[1], default_port=80)
    except RequestError:
        raise
    except ValueError:
        raise RequestError("the address should have a valid host and port, and no user") from None
    path = url[2] or "/"
    path = path if path.startswith("/") else f"/{path}"
    return Request(method, target, path, version, _sent_on(pairs), _body_length(pairs, version))


def _values(fields: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [value.strip().lower() for known, value in fields if known.lower() == name]


def _sent_on(fields: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    named = {word.strip() for value in _values(fields, "connection") for word in value.split(",")}
    if named & {"content-length", "transfer-encoding"}:
        raise RequestError("`Connection` names a field that describes the body")
    return [(n, v) for n, v in fields if n.lower() not in _NOT_SENT_ON | named]


def _body_length(fields: Sequence[tuple[str, str]], version: str) -> int | None:
    lengths, codings = _values(fields, "content-length"), _values(fields, "transfer-encoding")
    if codings:
        # A server of HTTP/1.0 may not know `Transfer-Encoding`.
        if lengths or codings != ["chunked"] or version == "0":
            raise RequestError("the length of the body is ambiguous")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not re.fullmatch(rf"[0-9]{{1,{_MAX_DIGITS}}}", lengths[0], re.ASCII):
        raise RequestError("the length of the body is ambiguous")
    return int(lengths[0])


def chunk_size(line: bytes) -> int:
    """The size of a chunk of a body, from the line before it.

    Raises:
        RequestError: if the line is invalid.
    """
    match = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e]*)?\r\n", line)
    if not match:
        raise RequestError("a chunk of the body is invalid")
    return int(match[1], 16)

"""The address of stigmer-server, as in STIGMER_BACKEND_ENDPOINT."""

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of stigmer-server.

    Attributes:
        host: A name or an IP address. An IPv6 address has no brackets.
        port: The TCP port.
        tls: Whether to use TLS.
    """

    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Parse `host:port`, `http://host[:port]` or `https://host[:port]`.

        Without a scheme, port 443 means TLS.

        Raises:
            ValueError: if the text has another form.
        """
        url = urlsplit(text if "://" in text else f"//{text}")
        if (
            url.scheme not in {"", "http", "https"}
            or not url.hostname
            or url.username is not None
            or url.path not in {"", "/"}
            or url.query
            or url.fragment
        ):
            raise ValueError("should be host:port, http://host:port or https://host")
        port = url.port  # raises ValueError if it is not a valid port
        if port is None:
            port = {"http": 80, "https": 443}.get(url.scheme)
        if not port:
            raise ValueError("should be host:port, such as localhost:7234")
        tls = url.scheme == "https" or (not url.scheme and port == 443)
        return cls(url.hostname, port, tls=tls)

    def __str__(self) -> str:
        """Return a form that `parse` accepts."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https://' if self.tls else ''}{host}:{self.port}"

"""Where stigmer-server listens, as STIGMER_BACKEND_ENDPOINT says it."""

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where stigmer-server listens.

    Attributes:
        host: A name or an address, IPv6 without its brackets.
        port: The TCP port.
        tls: Whether to speak TLS.
    """

    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Read `host:port`, `http://host[:port]` or `https://host[:port]`.

        Raises:
            ValueError: if it is none of these.
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
        port = url.port  # ValueError, if it is no port
        if port is None:
            port = {"http": 80, "https": 443}.get(url.scheme)
        if not port:
            raise ValueError("should be host:port, such as localhost:7234")
        return cls(url.hostname, port, tls=url.scheme == "https")

    def __str__(self) -> str:
        """As `parse` reads it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https://' if self.tls else ''}{host}:{self.port}"

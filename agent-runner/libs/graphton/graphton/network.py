"""Which hosts an agent's commands may reach. Everything here is pure, and importing it is fast."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address

DEFAULT_PORTS: Final = frozenset({80, 443})
"""The ports of a host that is listed without one."""

MAX_NAME_CHARACTERS: Final = 253
"""The longest name that DNS allows."""

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAT64: Final = ip_network("64:ff9b::/96")


class Network(StrEnum):
    """What commands reach outside of the sandbox."""

    OPEN = "open"  # what the worker reaches, apart from some ports
    NONE = "none"
    ALLOWLIST = "allowlist"  # listed hosts, through a proxy in the worker


@dataclass(frozen=True, slots=True)
class Target:
    """A host and a port to connect to.

    Attributes:
        host: A name in lower case without a dot at its end, or an IP address without brackets.
        port: The TCP port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """The target as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def address(self) -> Address | None:
        """The IP address; None if the host is a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> "Target":
        """Read `host:port`. An IPv6 address has brackets.

        A number that only some programs take for an address, such as `0x7f.1`, is no valid host.

        Raises:
            ValueError: if the text is something else, for example has a user name.
        """
        host, port = _split(text)
        port = default_port if port is None else port
        if port is None:
            raise ValueError("should have a port, such as example.com:443")
        return cls(host, port)


def _split(text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?", text)
    if not match:
        raise ValueError("should be a host, or a host and a port, such as example.com:443")
    port = int(match[2]) if match[2] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError("should have a port from 1 to 65535")
    return _host(match[1].lower()), port


def _host(text: str) -> str:
    if text.startswith("["):
        return str(IPv6Address(text[1:-1]))
    text = text.removesuffix(".")
    labels = text.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        return str(IPv4Address(text))
    if len(text) > MAX_NAME_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("should have a valid host name")
    return text


@dataclass(frozen=True, slots=True)
class Rule:
    """An entry of the list of hosts.

    Attributes:
        host: As that of `Target`.
        subdomains: Whether the entry means the subdomains of the host, and not the host itself.
        ports: The ports.
    """

    host: str
    subdomains: bool
    ports: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Read an entry: `pypi.org`, `.github.com` or `*.github.com`, `example.com:8443`.

        Raises:
            ValueError: if the entry is invalid.
        """
        bare = text.removeprefix("*")
        subdomains = bare.startswith(".")
        if bare != text and not subdomains:
            raise ValueError("`*` can only be at the beginning, with a dot after it")
        host, port = _split(bare.removeprefix("."))
        if subdomains and Target(host, 1).address:
            raise ValueError("an IP address has no subdomains")
        return cls(host, subdomains, DEFAULT_PORTS if port is None else frozenset({port}))

    def allows(self, target: Target) -> bool:
        """Whether the entry allows a target."""
        if target.port not in self.ports:
            return False
        if self.subdomains:
            return target.host.endswith(f".{self.host}")
        return target.host == self.host


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Read a list of hosts, with commas between them.

    Raises:
        ValueError: if an entry is invalid. The message has the entry.
    """
    rules = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            rules.append(Rule.parse(entry))
        except ValueError as error:
            raise ValueError(f"`{entry[:100]}`: {error}") from None
    return tuple(rules)


def allows(rules: Iterable[Rule], target: Target) -> bool:
    """Whether one of the entries allows a target."""
    return any(rule.allows(target) for rule in rules)


def allowed_addresses(
    rules: Iterable[Rule], found: Sequence[Address], port: int, denied: Iterable[Address]
) -> list[Address]:
    """Which of the addresses of an allowed name may be connected to.

    Whoever owns a name decides to which address it leads. So a name must not lead to this machine
    or to Temporal or stigmer-server, unless the list has the address itself.

    Args:
        rules: The list of hosts.
        found: The addresses of the name.
        port: The port.
        denied: Addresses to which a name must not lead: those of Temporal and stigmer-server, and
            those of this machine's network devices.
    """
    rules, others = tuple(rules), {unwrapped(address) for address in denied}
    return [
        address
        for address in found
        if allows(rules, Target(str(address), port))
        or not (_is_local(unwrapped(address)) or unwrapped(address) in others)
    ]


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, or else the address itself."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and int(address) >> 32 == 0 and int(address) > 1:  # deprecated ::1.2.3.4
            inner = IPv4Address(int(address))
        # Without the zone, which is a part of the text `fe80::1%eth0`.
        return inner or IPv6Address(int(address))
    return address


def _is_local(address: Address) -> bool:
    """Whether an address means this machine or its link."""
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or (isinstance(address, IPv4Address) and address in ip_network("0.0.0.0/8"))
        or address == IPv4Address("255.255.255.255")
    )

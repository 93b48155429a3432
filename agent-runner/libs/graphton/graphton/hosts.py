"""Which host names and addresses mean this machine."""

import contextlib
import socket
from ipaddress import IPv4Address, ip_address
from typing import Final

from graphton.network import Address, unwrapped

_NAMES: Final = frozenset({"localhost", "host.docker.internal", "host.containers.internal"})


def is_this_machine(host: str) -> bool:
    """Whether a name or an IP address, without brackets or a port, is this machine's own.

    The names by which a container reaches its own host count too.
    """
    if host.lower() in _NAMES:
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def is_own_address(address: Address) -> bool:
    """Whether one of this machine's network devices has this address.

    Connecting a UDP socket sends nothing. For an address of its own, the kernel chooses the same
    address as the sender's.
    """
    inner = unwrapped(address)
    family = socket.AF_INET if isinstance(inner, IPv4Address) else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as one:
        one.connect((str(inner), 9))
        return unwrapped(ip_address(one.getsockname()[0])) == inner
    return False

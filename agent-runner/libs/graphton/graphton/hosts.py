"""Which host names mean this machine."""

from ipaddress import ip_address
from typing import Final

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

"""Configures the walls between agents' commands and the worker."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from graphton import commands
from graphton.hosts import is_this_machine
from graphton.network import Network
from worker.connection import Connection
from worker.endpoint import Endpoint
from worker.settings import Settings

_SHARED_PORTS = frozenset({22, 80, 443})
"""Ports that are never denied, even if Temporal or stigmer-server uses them.

Too many other servers have them too."""


def configure_commands(
    settings: Settings, connection: Connection, environment: Mapping[str, str]
) -> None:
    """Tell `graphton.commands` how commands run.

    Args:
        settings: The worker's settings.
        connection: How the worker connects to Temporal.
        environment: The worker's environment, for its own proxies.
    """
    allowlist = None
    if settings.agent_network is Network.ALLOWLIST:
        from graphton.proxy import Allowlist

        allowlist = Allowlist(
            rules=settings.network_rules,
            own_servers=own_servers(settings, connection),
            proxies=own_proxies(environment),
        )
    commands.configure(
        commands.Configuration(
            isolation=settings.sandbox_isolation,
            denied_ports=denied_ports(settings, connection),
            network=settings.agent_network,
            allowlist=allowlist,
        )
    )


def own_servers(settings: Settings, connection: Connection) -> tuple[str, ...]:
    """The hosts of Temporal and stigmer-server, without brackets."""
    temporal = connection.address.rpartition(":")[0].strip("[]")
    return tuple(sorted({temporal, Endpoint.parse(settings.stigmer_backend_endpoint).host}))


def own_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The worker's own proxies by `http`, `https` and `all`, and `no`."""
    found = {}
    for kind in ("http", "https", "all", "no"):
        lower = f"{kind}_proxy"
        if value := environment.get(lower) or environment.get(lower.upper()):
            found[kind] = value
    return found


def denied_ports(settings: Settings, connection: Connection) -> frozenset[int]:
    """The TCP ports to which commands may not connect, on any machine.

    They are those of Temporal and of stigmer-server, of a model on this machine, and of the
    worker's metrics. With the first two, a command could end or answer other executions.
    """
    temporal = connection.address.rpartition(":")[2]
    ports = {int(temporal), Endpoint.parse(settings.stigmer_backend_endpoint).port}
    model = urlsplit(settings.llm.base_url)
    if is_this_machine(model.hostname or ""):
        ports.add(model.port or {"https": 443}.get(model.scheme, 80))
    if settings.metrics_address:
        ports.add(int(settings.metrics_address.rpartition(":")[2]))
    return frozenset(ports - _SHARED_PORTS)

"""Configures the walls between agents' commands and the worker."""

from urllib.parse import urlsplit

from graphton import commands
from graphton.hosts import is_this_machine
from worker.connection import Connection
from worker.endpoint import Endpoint
from worker.settings import Settings

_SHARED_PORTS = frozenset({22, 80, 443})
"""Ports that are never denied, even if Temporal or stigmer-server uses them.

Too many other servers have them too."""


def configure_commands(settings: Settings, connection: Connection) -> None:
    """Tell `graphton.commands` how commands run."""
    commands.configure(
        commands.Configuration(
            isolation=settings.sandbox_isolation, denied_ports=denied_ports(settings, connection)
        )
    )


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

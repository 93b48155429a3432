"""How a command reaches the network, by the policy that is set."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from graphton import confine
from graphton.network import Network
from graphton.wall import Wall, allow_port

if TYPE_CHECKING:  # importing it takes a moment, and few workers need it
    from graphton.proxy import Allowlist, Proxy

_VARIABLES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_OWN_LOOPBACK: Final = "localhost,127.0.0.1,::1"
"""Behind a network namespace, this is the command's own: its servers need no proxy."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """What a command needs for the network.

    Attributes:
        network: The policy.
        ports: A ruleset of Landlock for its ports, or None.
        channel: A socket for its supervisor, or None. See `graphton.wall.Wall.plan`.
        variables: Environment variables for it.
    """

    network: Network
    ports: int | None = None
    channel: socket.socket | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that the supervisor inherits."""
        channel = [] if self.channel is None else [self.channel.fileno()]
        return [*channel, *([] if self.ports is None else [self.ports])]


@contextlib.asynccontextmanager
async def open_gateway(
    network: Network, wall: Wall, allowlist: "Allowlist | None", ports: int | None
) -> AsyncIterator[Gateway]:
    """Start the proxy of a command if the policy needs one, and stop it after the `with` block.

    Args:
        network: The policy.
        wall: The command's wall. It has what the policy needs.
        allowlist: What the proxy allows; None for no host.
        ports: The ruleset for Network.OPEN.

    Raises:
        OSError: if something cannot be made.
    """
    if network is not Network.ALLOWLIST:
        yield Gateway(network, ports if network is Network.OPEN else None)
        return
    from graphton.proxy import Allowlist, Proxy

    proxy = Proxy(allowlist or Allowlist())
    async with contextlib.AsyncExitStack() as exits:
        if wall.own_network:
            own, theirs = socket.socketpair()
            exits.callback(own.close)
            exits.callback(theirs.close)
            serving = asyncio.create_task(_serve_received(own, proxy))
            exits.push_async_callback(_cancel, serving)
            yield Gateway(
                network, channel=theirs, variables=_variables(confine.PROXY_PORT, _OWN_LOOPBACK)
            )
            return
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        port = listener.getsockname()[1]
        await exits.enter_async_context(proxy.serving(listener))
        ruleset = allow_port(port)
        if ruleset is None:
            raise OSError("Landlock does not restrict ports")
        exits.callback(os.close, ruleset)
        yield Gateway(network, ports=ruleset, variables=_variables(port, ""))


def _variables(port: int, no_proxy: str) -> dict[str, str]:
    address = f"http://127.0.0.1:{port}"
    upper = dict.fromkeys(_VARIABLES, address) | {"NO_PROXY": no_proxy}
    return upper | {name.lower(): value for name, value in upper.items()}


async def _serve_received(channel: socket.socket, proxy: "Proxy") -> None:
    """Serve on the socket that a command's supervisor sends."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(channel, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(channel)
    _, received, _, _ = socket.recv_fds(channel, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if received:
        async with proxy.serving(socket.socket(fileno=received[0])):
            await asyncio.Event().wait()


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

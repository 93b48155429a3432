"""stigmer-server, as the runner sees it: a few gRPC calls.

On grpclib: grpcio's native library is 18 MB in the image, as much as Python; grpclib and what it
stands on are 1 MB of Python, and the runner makes a few small calls a second.
"""

import asyncio
import logging
import os
import random
import socket
import ssl
import time
from typing import Final

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from stigmer_stubs.backend import Method, ReplyT, RequestT
from worker.endpoint import Endpoint

_log = logging.getLogger(__name__)

CALL_SECONDS: Final = 10.0
"""How long one attempt may take, if nothing else is said."""

PATIENCE_SECONDS: Final = 30.0
"""How long a server that is away is waited for."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two attempts: doubled each time, up to the longest, each shortened by chance."""

_TRANSIENT: Final = frozenset({Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED})


class BackendError(Exception):
    """A call that failed for good. The message is for people.

    Attributes:
        code: The gRPC status; UNAVAILABLE also for a server that cannot be reached.
    """

    def __init__(self, code: Status, message: str) -> None:
        super().__init__(message)
        self.code = code


class Backend:
    """A connection to stigmer-server. It is made at the first call, and again when it is lost.

    Args:
        endpoint: Where it listens.
        api_key: Sent with each call, as a bearer token.
    """

    def __init__(self, endpoint: Endpoint, api_key: str | None = None) -> None:
        self._endpoint = endpoint
        self._metadata = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._channel: Channel | None = None

    async def call(
        self,
        method: Method[RequestT, ReplyT],
        request: RequestT,
        *,
        patience: float = PATIENCE_SECONDS,
        seconds: float = CALL_SECONDS,
    ) -> ReplyT:
        """Call a method that may be called again: all that the runner calls.

        Args:
            method: The method.
            request: What to send.
            patience: How many seconds to wait for a server that is away. One attempt is always
                made.
            seconds: How long one attempt may take.

        Raises:
            BackendError: if the server refuses, or is away for longer.
        """
        until = time.monotonic() + patience
        pause = FIRST_PAUSE
        while True:
            left = until - time.monotonic()
            try:
                return await self._attempt(method, request, min(seconds, max(left, 1.0)))
            except BackendError as error:
                rest = pause * random.uniform(0.5, 1)  # noqa: S311 (so that not all come at once)
                if error.code not in _TRANSIENT or time.monotonic() + rest >= until:
                    raise
                _log.debug("%s; again in %.1f s", error, rest)
            await asyncio.sleep(rest)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _attempt(
        self, method: Method[RequestT, ReplyT], request: RequestT, seconds: float
    ) -> ReplyT:
        channel = self._connected()
        stub = UnaryUnaryMethod(channel, method.path, method.request, method.reply)
        where, what = f"stigmer-server at {self._endpoint}", method.path.rpartition(".")[2]
        try:
            # grpclib's own timeout goes to the server too, but does not cover connecting.
            async with asyncio.timeout(seconds + 0.5):
                reply: ReplyT = await stub(request, timeout=seconds, metadata=self._metadata)
                return reply
        except GRPCError as error:
            raise BackendError(error.status, _refused(where, what, error)) from None
        except TimeoutError:
            # A connection whose other end vanished looks like this too: take a new one next time.
            self._drop(channel)
            raise BackendError(
                Status.DEADLINE_EXCEEDED, f"{where} did not answer {what} within {seconds:.0f} s"
            ) from None
        except (OSError, StreamTerminatedError, ProtocolError) as error:
            self._drop(channel)
            reason = f"{where} cannot be reached: {_reason(error)}"
            raise BackendError(Status.UNAVAILABLE, reason) from None

    def _connected(self) -> Channel:
        if self._channel is None:
            self._channel = Channel(
                self._endpoint.host,
                self._endpoint.port,
                ssl=_tls() if self._endpoint.tls else None,
            )
        return self._channel

    def _drop(self, channel: Channel) -> None:
        channel.close()
        if self._channel is channel:
            self._channel = None

    def close(self) -> None:
        """End the connection."""
        if self._channel is not None:
            self._drop(self._channel)


def _tls() -> ssl.SSLContext:
    """Trusts what the system trusts, or SSL_CERT_FILE."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    return context


def _reason(error: Exception) -> str:
    """What the system says, where it said something: asyncio's own words name the address again."""
    if isinstance(error, ssl.SSLError) or not isinstance(error, OSError) or not error.errno:
        return str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _refused(where: str, what: str, error: GRPCError) -> str:
    text = f"{where} refused {what}: {error.status.name}"
    if error.message:
        text += f": {error.message}"
    if error.status in {Status.UNAUTHENTICATED, Status.PERMISSION_DENIED}:
        text += " (is STIGMER_API_KEY right?)"
    return text

"""The gRPC client for stigmer-server.

It uses grpclib instead of grpcio. grpcio's native library would add 18 MB to the image, as much as
Python itself; grpclib and its dependencies are 1 MB of Python. The runner makes only a few small
calls a second.
"""

import asyncio
import logging
import os
import socket
import ssl
import time
from typing import Final

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from graphton.backoff import backoff, jitter
from stigmer_stubs.backend import Method, ReplyT, RequestT
from worker.endpoint import Endpoint

_log = logging.getLogger(__name__)

ATTEMPT_TIMEOUT_SECONDS: Final = 10.0
"""The default time limit of one attempt."""

RETRY_SECONDS: Final = 30.0
"""How long a call is retried by default if the server is unavailable."""

FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.2, 5.0
"""Seconds between two attempts. See `graphton.backoff`."""

_TRANSIENT: Final = frozenset({Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED})


class BackendError(Exception):
    """A call failed, after retries if there were any. The message is for people.

    Attributes:
        code: The gRPC status. It is UNAVAILABLE if the server cannot be reached.
    """

    def __init__(self, code: Status, message: str) -> None:
        super().__init__(message)
        self.code = code


class Backend:
    """A client for stigmer-server. It connects at the first call, and again after a failure.

    Args:
        endpoint: The server's address.
        api_key: The key, sent with each call as a bearer token.
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
        retry_for: float = RETRY_SECONDS,
        attempt_timeout: float = ATTEMPT_TIMEOUT_SECONDS,
    ) -> ReplyT:
        """Call a method, with retries while the server is unavailable.

        The method must be safe to repeat. All methods that the runner calls are.

        Args:
            method: The method.
            request: The request.
            retry_for: Seconds after which the call is not retried any more. With 0, one attempt is
                made, which may take all of `attempt_timeout`.
            attempt_timeout: Seconds after which one attempt fails.

        Raises:
            BackendError: if the server refuses the call, or stays unavailable.
        """
        deadline = time.monotonic() + retry_for
        for pause in map(jitter, backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)):
            left = max(deadline - time.monotonic(), 1.0) if retry_for else attempt_timeout
            try:
                return await self._attempt(method, request, min(attempt_timeout, left))
            except BackendError as error:
                if error.code not in _TRANSIENT or time.monotonic() + pause >= deadline:
                    raise
                _log.debug("%s; trying again in %.1f s", error, pause)
            await asyncio.sleep(pause)
        raise AssertionError  # `backoff` does not end

    async def _attempt(
        self, method: Method[RequestT, ReplyT], request: RequestT, seconds: float
    ) -> ReplyT:
        channel = self._get_channel()
        server, call = f"stigmer-server at {self._endpoint}", method.path.rpartition(".")[2]
        try:
            stub = UnaryUnaryMethod(channel, method.path, method.request, method.reply)
            # grpclib's own timeout is sent to the server too, but does not include connecting.
            async with asyncio.timeout(seconds + 0.5):
                reply: ReplyT = await stub(request, timeout=seconds, metadata=self._metadata)
                return reply
        except GRPCError as error:
            raise BackendError(error.status, _describe_refusal(server, call, error)) from None
        except TimeoutError:
            # The connection may be dead without having been closed. Use a new one next time.
            self._discard(channel)
            raise BackendError(
                Status.DEADLINE_EXCEEDED, f"{server} did not answer {call} within {seconds:.0f} s"
            ) from None
        except (OSError, StreamTerminatedError, ProtocolError) as error:
            self._discard(channel)
            reason = f"{server} cannot be reached: {_describe_os_error(error)}"
            raise BackendError(Status.UNAVAILABLE, reason) from None
        except Exception as error:
            # grpclib and h2 have more errors than they document. The connection may be unusable.
            self._discard(channel)
            _log.debug("%s: %s failed", server, call, exc_info=True)
            raise BackendError(
                Status.UNKNOWN, f"the call of {call} to {server} failed: {type(error).__name__}"
            ) from None

    def _get_channel(self) -> Channel:
        if self._channel is None:
            self._channel = Channel(
                self._endpoint.host,
                self._endpoint.port,
                ssl=_tls() if self._endpoint.tls else None,
            )
        return self._channel

    def _discard(self, channel: Channel) -> None:
        channel.close()
        if self._channel is channel:
            self._channel = None

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._discard(self._channel)


def _tls() -> ssl.SSLContext:
    """Trust the system's certificates, or SSL_CERT_FILE."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    return context


def _describe_os_error(error: Exception) -> str:
    """Describe a connection error without the address, which asyncio's own messages repeat."""
    if isinstance(error, ssl.SSLError) or not isinstance(error, OSError) or not error.errno:
        return str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _describe_refusal(server: str, call: str, error: GRPCError) -> str:
    text = f"{server} refused {call}: {error.status.name}"
    if error.message:
        text += f": {error.message}"
    if error.status in {Status.UNAUTHENTICATED, Status.PERMISSION_DENIED}:
        text += " (is STIGMER_API_KEY correct?)"
    return text

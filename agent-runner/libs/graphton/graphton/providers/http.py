"""An HTTP client for model services. All failures are raised as ModelError."""

import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from graphton.chat import ModelError
from graphton.hosts import is_this_machine
from graphton.model import ModelConfig

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS: Final = 10.0
READ_TIMEOUT_SECONDS: Final = 180.0
"""The maximum time between two parts of a response. A local model is first loaded from disk."""

_TRANSIENT: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@cache
def _tls() -> ssl.SSLContext:
    """Trust the system's certificates, or SSL_CERT_FILE. Cached: loading them takes 20 ms."""
    return ssl.create_default_context()


class ModelHttpClient:
    """A client for a service that responds with a JSON object or with a stream of them.

    Args:
        config: The model and the URL of its service.
        headers: Headers for every request.
    """

    def __init__(self, config: ModelConfig, headers: Mapping[str, str]) -> None:
        self._config = config
        url = urlsplit(config.base_url)
        host = url.hostname or ""
        port = f":{url.port}" if url.port else ""
        # For messages: without the user and password that a URL can contain.
        self._display_url = f"{url.scheme}://{host}{port}{url.path}"
        self._client = httpx.AsyncClient(
            headers=dict(headers),
            timeout=httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            verify=_tls() if url.scheme == "https" else False,
            # A proxy cannot resolve the names by which this machine knows itself.
            trust_env=not is_this_machine(host),
        )

    @property
    def name(self) -> str:
        """The provider and its URL, for messages."""
        return f"{self._config.provider} at {self._display_url}"

    @contextlib.asynccontextmanager
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncIterator["ModelResponse"]:
        """Send a request, and yield the response.

        Errors inside the `with` block that come from an unexpected response are raised as
        ModelError too.

        Raises:
            ModelError: if there is no response, or its status is not 200.
        """
        try:
            async with self._client.stream(
                "POST", f"{self._config.base_url}{path}", json=body
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise self._status_error(response)
                yield ModelResponse(response, self.name)
        except httpx.TimeoutException as error:
            seconds = READ_TIMEOUT_SECONDS
            if isinstance(error, httpx.ConnectTimeout):
                seconds = CONNECT_TIMEOUT_SECONDS
            raise ModelError(
                f"{self.name} did not respond for {seconds:.0f} s", transient=True
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(f"{self.name} cannot be reached: {reason}", transient=True) from None
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # Raised inside the `with` block: the response does not have the expected structure.
            _log.debug("%s: unexpected response", self.name, exc_info=True)
            raise ModelError(
                f"{self.name} sent an unexpected response ({type(error).__name__})"
            ) from None

    def _status_error(self, response: httpx.Response) -> ModelError:
        code = response.status_code
        reason = error_text(response.text) or response.reason_phrase
        text = f"{self.name} refused the request for model {self._config.model}: {code} {reason}"
        if code in {401, 403}:
            text += " (is its API key set and correct?)"
        retry_after = None
        with contextlib.suppress(ValueError):  # the header is missing or is a date
            retry_after = max(0.0, float(response.headers.get("retry-after", "")))
        return ModelError(text, transient=code in _TRANSIENT, retry_after=retry_after, status=code)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class ModelResponse:
    """The response to a request: one JSON object or a stream of them.

    Attributes:
        end_seen: Whether the stream contained its end marker, `[DONE]`.
    """

    def __init__(self, response: httpx.Response, name: str) -> None:
        self.end_seen = False
        self._response = response
        self._name = name

    @property
    def is_stream(self) -> bool:
        """Whether the response is a stream. Some services do not stream although asked to."""
        kind = self._response.headers.get("content-type", "")
        return "event-stream" in kind or "ndjson" in kind

    async def read_object(self) -> dict[str, Any]:
        """Read the response as one object.

        Raises:
            ModelError: if the response is not a JSON object.
        """
        return self._parse_object((await self._response.aread()).decode(errors="replace"))

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the objects of a stream. Each is one line, with or without `data:` before it.

        Raises:
            ModelError: if a line is not a JSON object, or reports an error.
        """
        async for line in self._response.aiter_lines():
            text = line.removeprefix("data:").strip()
            if not text or line.startswith((":", "event:", "id:", "retry:")):
                continue
            if text == "[DONE]":
                self.end_seen = True
                return
            event = self._parse_object(text)
            if event.get("error"):
                # The service found the error only after it had sent status 200.
                raise ModelError(
                    f"{self._name} reported an error: {error_text(text) or text[:300]}",
                    transient=True,
                )
            yield event

    def _parse_object(self, text: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ModelError(f"{self._name} did not send a JSON object: {text[:100]!r}")
        return value

    def incomplete_error(self) -> ModelError:
        """The error to raise if a stream ended too early."""
        return ModelError(f"{self._name} ended its response too early", transient=True)


def error_text(body: str) -> str:
    """The error message in a response body, as one line of at most 500 characters."""
    try:
        value = json.loads(body)
    except ValueError:
        value = body if "<html" not in body.lower() else ""
    if isinstance(value, dict):
        value = value.get("error") or value.get("message") or value.get("detail") or body
    if isinstance(value, dict):
        value = value.get("message") or json.dumps(value)
    return " ".join(str(value).split())[:500]

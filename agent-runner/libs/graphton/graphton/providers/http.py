"""Requests to a model's service, and what goes wrong with them."""

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
from graphton.model import ModelConfig

_log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 180.0
"""How long a service may say nothing: a local model is read from disk first."""

_THIS_MACHINE: Final = frozenset(
    {"localhost", "127.0.0.1", "::1", "host.docker.internal", "host.containers.internal"}
)

_TRANSIENT: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@cache
def _tls() -> ssl.SSLContext:
    """Trusts what the system trusts, or SSL_CERT_FILE. Reading it takes 20 ms: once is enough."""
    return ssl.create_default_context()


class Service:
    """An HTTP service that answers with JSON, or with a stream of it.

    Args:
        config: The model, and where it is served.
        headers: Sent with each request.
    """

    def __init__(self, config: ModelConfig, headers: Mapping[str, str]) -> None:
        self._config = config
        url = urlsplit(config.base_url)
        host = url.hostname or ""
        port = f":{url.port}" if url.port else ""
        # Without a user and password, which a URL can hold.
        self._where = f"{url.scheme}://{host}{port}{url.path}"
        self._client = httpx.AsyncClient(
            headers=dict(headers),
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            verify=_tls() if url.scheme == "https" else False,
            # A proxy cannot know what this machine calls itself.
            trust_env=host not in _THIS_MACHINE,
        )

    @property
    def name(self) -> str:
        """The service and where it is, for messages."""
        return f"{self._config.provider} at {self._where}"

    @contextlib.asynccontextmanager
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncIterator["Answer"]:
        """Send a request. What goes wrong inside the block is told as ModelError too.

        Raises:
            ModelError: if there is no answer, or none with status 200.
        """
        try:
            async with self._client.stream(
                "POST", f"{self._config.base_url}{path}", json=body
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise self._refusal(response)
                yield Answer(response, self.name)
        except httpx.TimeoutException as error:
            seconds = SILENCE_SECONDS
            if isinstance(error, httpx.ConnectTimeout):
                seconds = CONNECT_SECONDS
            raise ModelError(
                f"{self.name} said nothing for {seconds:.0f} s", transient=True
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(f"{self.name} cannot be reached: {reason}", transient=True) from None
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # From the block: it took the answer for something else than it is.
            _log.debug("%s: an answer that is not understood", self.name, exc_info=True)
            raise ModelError(
                f"{self.name} answered what is not understood ({type(error).__name__})"
            ) from None

    def _refusal(self, response: httpx.Response) -> ModelError:
        code = response.status_code
        reason = error_text(response.text) or response.reason_phrase
        text = f"{self.name} refused the request for model {self._config.model}: {code} {reason}"
        if code in {401, 403}:
            text += " (is its API key set, and right?)"
        retry_after = None
        with contextlib.suppress(ValueError):  # not there, or a date
            retry_after = max(0.0, float(response.headers.get("retry-after", "")))
        return ModelError(text, transient=code in _TRANSIENT, retry_after=retry_after, status=code)

    async def close(self) -> None:
        """End the connections."""
        await self._client.aclose()


class Answer:
    """The answer to a request: one JSON object, or a stream of them.

    Attributes:
        done: Whether the stream said that this was its end.
    """

    def __init__(self, response: httpx.Response, name: str) -> None:
        self.done = False
        self._response = response
        self._name = name

    @property
    def streams(self) -> bool:
        """Whether there will be several objects. Not every service does as it is asked."""
        kind = self._response.headers.get("content-type", "")
        return "event-stream" in kind or "ndjson" in kind

    async def whole(self) -> dict[str, Any]:
        """The one object.

        Raises:
            ModelError: if it is none.
        """
        return self._object((await self._response.aread()).decode(errors="replace"))

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The objects of a stream: a line each, with or without `data:` before it.

        Raises:
            ModelError: for a line that is none, or one that tells of an error.
        """
        async for line in self._response.aiter_lines():
            text = line.removeprefix("data:").strip()
            if not text or line.startswith((":", "event:", "id:", "retry:")):
                continue
            if text == "[DONE]":
                self.done = True
                return
            event = self._object(text)
            if event.get("error"):
                # It came with status 200: what was wrong was noticed only later.
                raise ModelError(
                    f"{self._name} broke off: {error_text(text) or text[:300]}", transient=True
                )
            yield event

    def _object(self, text: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ModelError(f"{self._name} answered what is no JSON object: {text[:100]!r}")
        return value

    def broken_off(self) -> ModelError:
        """What to raise if a stream ended too early."""
        return ModelError(f"{self._name} ended its answer in the middle", transient=True)


def error_text(body: str) -> str:
    """What a body says of the error, in one line of at most 500 characters."""
    try:
        value = json.loads(body)
    except ValueError:
        value = body if "<html" not in body.lower() else ""
    if isinstance(value, dict):
        value = value.get("error") or value.get("message") or value.get("detail") or body
    if isinstance(value, dict):
        value = value.get("message") or json.dumps(value)
    return " ".join(str(value).split())[:500]

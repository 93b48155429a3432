"""An HTTP client for model services. All failures are raised as ModelError."""

import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from graphton.chat import ModelError
from graphton.hosts import is_this_machine
from graphton.model import ModelConfig, Provider
from graphton.providers.errors import TRANSIENT_STATUSES, ServiceError
from graphton.providers.events import END, json_lines, sse_data
from graphton.tls import tls_context

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS: Final = 10.0
READ_TIMEOUT_SECONDS: Final = 180.0
"""The maximum time between two parts of a response."""

SLOW_READ_TIMEOUT_SECONDS: Final = 540.0
"""The same for Ollama and for a model on this machine: it is first loaded from disk, and then reads
the request, which takes minutes without a GPU. Temporal usually gives an execution ten minutes."""

MAX_SILENCES: Final = 2
"""How often a request is sent to a hosted model that does not respond to it."""


class ModelHttpClient:
    """A client for a service that responds with a JSON object or with a stream of them.

    Args:
        config: The model and the URL of its service.
        headers: Headers for every request.

    Attributes:
        is_slow: Whether the model runs on this machine, or with Ollama.
    """

    def __init__(self, config: ModelConfig, headers: Mapping[str, str]) -> None:
        self._config = config
        url = urlsplit(config.base_url)
        host = url.hostname or ""
        port = f":{url.port}" if url.port else ""
        # For messages: without the user and password that a URL can contain.
        self._display_url = f"{url.scheme}://{host}{port}{url.path}"
        is_local = is_this_machine(host)
        self.is_slow = is_local or config.provider is Provider.OLLAMA
        self._silence = SLOW_READ_TIMEOUT_SECONDS if self.is_slow else READ_TIMEOUT_SECONDS
        self._client = httpx.AsyncClient(
            headers=dict(headers),
            timeout=httpx.Timeout(self._silence, connect=CONNECT_TIMEOUT_SECONDS),
            verify=tls_context() if url.scheme == "https" else False,
            # A proxy cannot resolve the names by which this machine knows itself.
            trust_env=not is_local,
        )

    @property
    def name(self) -> str:
        """The provider and its URL, for messages."""
        return f"{self._config.provider} at {self._display_url}"

    @property
    def identity(self) -> str:
        """The provider, its URL and the model."""
        return f"{self.name} {self._config.model}"

    async def read(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a GET request, or a POST request with a body, and return the whole response.

        Raises:
            ModelError: see `post`.
        """
        method = "GET" if body is None else "POST"
        async with self.post(path, body, method=method) as response:
            return await response.read_object()

    @contextlib.asynccontextmanager
    async def post(
        self, path: str, body: Mapping[str, Any] | None, *, method: str = "POST"
    ) -> AsyncIterator["ModelResponse"]:
        """Send a request, and yield the response.

        Errors inside the `with` block that come from an unexpected response are raised as
        ModelError too.

        Raises:
            ModelError: if there is no response, or its status is not 200.
        """
        try:
            async with self._client.stream(
                method, f"{self._config.base_url}{path}", json=body
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise self._status_error(response)
                yield ModelResponse(response, self.name)
        except httpx.ConnectTimeout:
            raise ModelError(
                f"{self.name} did not accept a connection for {CONNECT_TIMEOUT_SECONDS:.0f} s",
                transient=True,
            ) from None
        except httpx.TimeoutException:
            raise self._silence_error() from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(f"{self.name} cannot be reached: {reason}", transient=True) from None
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # Raised inside the `with` block: the response does not have the expected structure.
            _log.debug("%s: unexpected response", self.name, exc_info=True)
            raise ModelError(
                f"{self.name} sent an unexpected response ({type(error).__name__})"
            ) from None

    def _silence_error(self) -> ModelError:
        """The error if a response, or its next part, does not come.

        A slow model would begin anew with the same request, and need as long again.
        """
        text = f"{self.name} did not respond for {self._silence:.0f} s"
        if self.is_slow:
            return ModelError(
                f"{text}: use a smaller or faster model, or lower "
                "STIGMER_LLM_CONTEXT_TOKENS, so that it has less to read"
            )
        return ModelError(text, transient=True, max_attempts=MAX_SILENCES)

    def _status_error(self, response: httpx.Response) -> ModelError:
        code = response.status_code
        problem = ServiceError.parse(response.text)
        reason = problem.text or response.reason_phrase
        text = f"{self.name} refused the request for model {self._config.model}: {code} {reason}"
        if hint := _hint(code, problem, self._config.provider):
            text += f" ({hint})"
        return ModelError(
            text,
            transient=code in TRANSIENT_STATUSES and "insufficient_quota" not in problem.kinds,
            retry_after=_retry_after(response.headers),
            status=code,
            field=problem.field,
            too_long=code in {400, 413, 422} and problem.is_too_long,
            stale_reasoning=code == 400 and problem.is_about_reasoning,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait before the next attempt; None if the service does not say."""
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError):  # neither a number nor a date
        until = parsedate_to_datetime(value)
        # By the service's clock: this machine's may be wrong.
        now = parsedate_to_datetime(headers.get("date") or format_datetime(datetime.now(UTC)))
        return max(0.0, until.timestamp() - now.timestamp())
    return None


def _hint(code: int, problem: ServiceError, provider: Provider) -> str:
    """What the user can do about a refused request; empty if the service says enough."""
    about = f"{problem.field} {problem.text}".lower()
    if code in {401, 403}:
        return "is its API key set and correct?"
    if code == 404 and "model" in about:
        return f"this runner asks {provider} for every model; STIGMER_LLM_PROVIDER changes that"
    if code in {400, 422} and "effort" in about:
        return "STIGMER_LLM_EFFORT is how much the model reasons"
    if code in {400, 422} and re.search(r"max_(output_|completion_)?tokens", about):
        return "STIGMER_LLM_MAX_TOKENS is how long a reply may be"
    return ""


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
            ModelError: if the response is not a JSON object, or reports an error.
        """
        return self._parse((await self._response.aread()).decode(errors="replace"))

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the objects of a stream.

        Raises:
            ModelError: if one is not a JSON object, or reports an error.
        """
        is_sse = "event-stream" in self._response.headers.get("content-type", "")
        async for text in (sse_data if is_sse else json_lines)(self._response.aiter_bytes()):
            if text.strip() == END:
                self.end_seen = True
                return
            if text.strip():
                yield self._parse(text)

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise ModelError(f"{self._name} did not send a JSON object: {text[:100]!r}")
        if value.get("error") or value.get("type") == "error":
            # The service found the error only after it had sent status 200.
            raise self.reported_error(value)
        return value

    def reported_error(self, value: dict[str, Any]) -> ModelError:
        """The error to raise for one that a response contains."""
        problem = ServiceError.parse(json.dumps(value))
        return ModelError(
            f"{self._name} reported an error: {problem.text}",
            transient=problem.is_transient,
            too_long=problem.is_too_long,
        )

    def incomplete_error(self) -> ModelError:
        """The error to raise if a stream ended too early."""
        return ModelError(f"{self._name} ended its response too early", transient=True)

    def filtered_error(self, reason: str = "") -> ModelError:
        """The error to raise if the service did not let the model finish its answer."""
        detail = f": {' '.join(reason.split())[:500]}" if reason.strip() else ""
        return ModelError(
            f"{self._name}: the content filter stopped the answer{detail} "
            "(ask in other words, or use another model)"
        )

    def refusal_error(self, reason: str = "") -> ModelError:
        """The error to raise if the model refuses to answer."""
        detail = f": {' '.join(reason.split())[:500]}" if reason.strip() else ""
        return ModelError(
            f"{self._name}: the model refused to answer{detail} "
            "(ask in other words, or use another model)"
        )

    def too_long_error(self) -> ModelError:
        """The error to raise if the model's context was full before its answer was complete."""
        return ModelError(
            f"{self._name}: the conversation is too long for the model", too_long=True
        )

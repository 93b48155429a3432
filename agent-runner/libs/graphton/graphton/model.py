"""The configuration of a language model: provider, name, URL and key."""

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit


class Provider(StrEnum):
    """A service that answers chat requests."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"

    @property
    def default_model(self) -> str:
        """The model used if none is configured."""
        match self:
            case Provider.OPENAI:
                return "gpt-5.4"
            case Provider.ANTHROPIC:
                return "claude-sonnet-5-5"
            case Provider.OLLAMA:
                return "qwen3:8b"

    @property
    def default_base_url(self) -> str:
        """The URL of the service if none is configured."""
        match self:
            case Provider.OPENAI:
                return "https://api.openai.com/v1"
            case Provider.ANTHROPIC:
                return "https://api.anthropic.com"
            case Provider.OLLAMA:
                return "http://localhost:11434"

    @property
    def needs_api_key(self) -> bool:
        """Whether the service refuses requests without a key. Ollama usually runs locally."""
        return self is not Provider.OLLAMA


class Effort(StrEnum):
    """How much a model reasons before it answers. Each model knows only some of these."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The complete configuration of a model, with defaults filled in.

    Attributes:
        provider: The service.
        model: The name of the model.
        base_url: The URL of the service, without a slash at the end.
        api_key: The key, or None. It is left out of `repr`.
        max_tokens: The maximum length of one reply in tokens; None for the provider's default.
        temperature: How random a reply is, from 0; None for the provider's default. Models that
            refuse it do not get it.
        effort: How much the model reasons; None for the model's default.
        context_tokens: The maximum length of a request and its reply together in tokens; None for
            the provider's default.
    """

    provider: Provider
    model: str
    base_url: str
    api_key: str | None = field(default=None, repr=False)
    max_tokens: int | None = None
    temperature: float | None = None
    effort: Effort | None = None
    context_tokens: int | None = None

    @classmethod
    def resolve(
        cls,
        provider: Provider,
        *,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> "ModelConfig":
        """Fill in the provider's defaults for arguments that are None or empty."""
        return cls(
            provider=provider,
            model=model or provider.default_model,
            base_url=(base_url or provider.default_base_url).rstrip("/"),
            api_key=api_key or None,
        )

    @property
    def uses_default_url(self) -> bool:
        """Whether the URL is the provider's own, and not that of a compatible service."""
        return self.base_url == self.provider.default_base_url

    @property
    def uses_own_host(self) -> bool:
        """Whether the URL leads to the provider itself, also to one of its regions."""
        own, given = urlsplit(self.provider.default_base_url).netloc, urlsplit(self.base_url).netloc
        return given == own or given.endswith(f".{own}")

    @property
    def missing_api_key(self) -> bool:
        """Whether the service needs a key and none is set. False for a URL that is not its own."""
        return self.provider.needs_api_key and self.uses_default_url and self.api_key is None

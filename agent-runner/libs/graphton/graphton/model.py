"""The configuration of a language model: provider, name, URL and key."""

import re
from dataclasses import dataclass, field
from enum import StrEnum


class Provider(StrEnum):
    """A service that answers chat requests."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"

    @classmethod
    def from_model_name(cls, name: str) -> "Provider | None":
        """The provider of a model, if the model's name tells it."""
        if name.startswith("claude-"):
            return cls.ANTHROPIC
        if name.startswith(("gpt-", "chatgpt-")) or re.match(r"o[1-9](-|$)", name):
            return cls.OPENAI
        return None

    @property
    def default_model(self) -> str:
        """The model used if none is configured."""
        match self:
            case Provider.OPENAI:
                return "gpt-4.1"
            case Provider.ANTHROPIC:
                return "claude-sonnet-4-5"
            case Provider.OLLAMA:
                return "qwen2.5-coder:7b"

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The complete configuration of a model, with defaults filled in.

    Attributes:
        provider: The service.
        model: The name of the model.
        base_url: The URL of the service, without a slash at the end.
        api_key: The key, or None. It is left out of `repr`.
        max_tokens: The maximum length of one reply in tokens; None for the provider's default.
        temperature: How random a reply is, from 0; None for the provider's default.
    """

    provider: Provider
    model: str
    base_url: str
    api_key: str | None = field(default=None, repr=False)
    max_tokens: int | None = None
    temperature: float | None = None

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
    def missing_api_key(self) -> bool:
        """Whether the service needs a key and none is set. False for a URL that is not its own."""
        return self.provider.needs_api_key and self.uses_default_url and self.api_key is None

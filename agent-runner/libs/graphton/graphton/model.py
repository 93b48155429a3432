"""The provider of a language model and what is needed to call it."""

import re
from dataclasses import dataclass, field
from enum import StrEnum


class Provider(StrEnum):
    """A service that answers chat requests."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"

    @classmethod
    def of_model(cls, name: str) -> "Provider | None":
        """Whose model this is, if its name says so."""
        if name.startswith("claude-"):
            return cls.ANTHROPIC
        if name.startswith(("gpt-", "chatgpt-")) or re.match(r"o[1-9](-|$)", name):
            return cls.OPENAI
        return None

    @property
    def default_model(self) -> str:
        """The model used where the configuration names none."""
        match self:
            case Provider.OPENAI:
                return "gpt-4.1"
            case Provider.ANTHROPIC:
                return "claude-sonnet-4-5"
            case Provider.OLLAMA:
                return "qwen2.5-coder:7b"

    @property
    def default_base_url(self) -> str:
        """Where the service listens when nothing else is said."""
        match self:
            case Provider.OPENAI:
                return "https://api.openai.com/v1"
            case Provider.ANTHROPIC:
                return "https://api.anthropic.com"
            case Provider.OLLAMA:
                return "http://localhost:11434"

    @property
    def needs_api_key(self) -> bool:
        """Whether the service refuses calls without a key. Ollama runs on one's own machine."""
        return self is not Provider.OLLAMA


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A model that can be called: nothing in here is still to be decided.

    Attributes:
        provider: The service.
        model: The model's name as the service knows it.
        base_url: The service's URL, without a slash at the end.
        api_key: The key, or None. It is left out of `repr`.
    """

    provider: Provider
    model: str
    base_url: str
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def resolve(
        cls,
        provider: Provider,
        *,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> "ModelConfig":
        """Fill in the provider's defaults for what is None or empty."""
        return cls(
            provider=provider,
            model=model or provider.default_model,
            base_url=(base_url or provider.default_base_url).rstrip("/"),
            api_key=api_key or None,
        )

    @property
    def missing_api_key(self) -> bool:
        """Whether calls will be refused for want of a key. At another URL nobody can know."""
        own_url = self.base_url == self.provider.default_base_url
        return self.provider.needs_api_key and own_url and self.api_key is None

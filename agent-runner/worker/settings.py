"""Everything the environment can say, checked at once.

`load` is the only reader of the environment. Each field is the variable of the same name in
capitals; `.env.example` describes them for people.
"""

import hashlib
import os
import re
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from graphton import ModelConfig, Provider
from stigmer_stubs import backend, temporal
from worker.endpoint import Endpoint

SHORTEST_KEY: Final = 8
"""Characters of a key that is worth hiding."""

_PROJECT = Path(__file__).resolve().parent.parent
_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


class Mode(StrEnum):
    """Where the runner serves."""

    LOCAL = "local"  # beside a stigmer-server on the same machine, no keys needed
    CLOUD = "cloud"


class SandboxType(StrEnum):
    """Where an agent's files and commands live."""

    FILESYSTEM = "filesystem"


class LogFormat(StrEnum):
    """How a log record is written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important records that are still written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class SettingsError(Exception):
    """The environment cannot be used.

    Attributes:
        problems: One line each, naming the variable. No secret is in them.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _host_port(value: str) -> str:
    match = _HOST_PORT.fullmatch(value)
    if not match or not 0 < int(match["port"]) < 65536:
        raise ValueError("should be host:port, such as localhost:7233")
    return value


def _endpoint(value: str) -> str:
    Endpoint.parse(value)
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("should be an http:// or https:// URL")
    return value


HostPort = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_host_port)]
EndpointText = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_endpoint)]
HttpUrl = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_http_url)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class Settings(BaseSettings):
    """The resolved configuration. With an empty environment it is a valid local one.

    Order matters: a check that looks at other fields can only see those above it.
    """

    model_config = SettingsConfigDict(
        # The working directory does not decide which file is read.
        env_file=_PROJECT / ".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    mode: Mode = Mode.LOCAL
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT

    sandbox_type: SandboxType = SandboxType.FILESYSTEM
    sandbox_root_dir: Path = Path("~/.stigmer/data/workspace")

    temporal_service_address: HostPort = temporal.DEFAULT_ADDRESS
    temporal_namespace: Name = temporal.DEFAULT_NAMESPACE
    temporal_agent_execution_runner_task_queue: Name = temporal.RUNNER_TASK_QUEUE
    temporal_max_concurrency: int = Field(default=10, ge=1, le=1000)
    """Activities that run at the same time."""

    agent_max_rounds: int = Field(default=100, ge=1, le=10_000)
    """How often one execution may ask the model."""

    agent_max_tokens: int = Field(default=2_000_000, ge=1)
    """How many tokens, in and out, all replies of one execution may cost together."""

    shutdown_grace_seconds: float = Field(default=8.0, ge=0, le=3600)
    """How long running activities may finish after SIGTERM. Engines kill after 10 s."""

    stigmer_backend_endpoint: EndpointText = backend.DEFAULT_ENDPOINT
    stigmer_api_key: SecretStr | None = None

    openai_api_key: SecretStr | None = None
    anthropic_api_key: SecretStr | None = None
    stigmer_llm_provider: Provider = Provider.OLLAMA
    stigmer_llm_model: Name | None = None
    stigmer_llm_base_url: HttpUrl | None = None
    stigmer_llm_api_key: SecretStr | None = None

    @field_validator("mode", "log_level", "log_format", "sandbox_type", "stigmer_llm_provider",
                     mode="before")  # fmt: skip
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("sandbox_root_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            return Path(os.path.abspath(value.expanduser()))  # noqa: PTH100 (keeps symlinks)
        except RuntimeError as error:  # no home folder to put in place of `~`
            raise ValueError(str(error)) from None

    @field_validator("stigmer_api_key")
    @classmethod
    def _cloud_needs_a_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and info.data.get("mode") is Mode.CLOUD:
            raise ValueError("is needed in MODE=cloud")
        return value

    @field_validator("stigmer_llm_api_key")
    @classmethod
    def _cloud_needs_a_model_key(
        cls, value: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        provider = info.data.get("stigmer_llm_provider")
        if (
            info.data.get("mode") is Mode.CLOUD
            and isinstance(provider, Provider)
            and provider.needs_api_key
            and value is None
            and info.data.get(f"{provider}_api_key") is None
        ):
            raise ValueError(f"or {provider.upper()}_API_KEY is needed in MODE=cloud")
        return value

    @classmethod
    def load(cls) -> Self:
        """Read the environment, and `.env` beneath it.

        Raises:
            SettingsError: with every problem there is, not only the first.
        """
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError([_describe(item) for item in error.errors()]) from None

    @property
    def llm(self) -> ModelConfig:
        """The model to use where an execution names none.

        The key of STIGMER_LLM_API_KEY wins over the provider's own variable.
        """
        key = self.stigmer_llm_api_key or self._own_key(self.stigmer_llm_provider)
        return ModelConfig.resolve(
            self.stigmer_llm_provider,
            model=self.stigmer_llm_model,
            base_url=self.stigmer_llm_base_url,
            api_key=key.get_secret_value() if key else None,
        )

    @property
    def secrets(self) -> dict[str, str]:
        """The keys that are set, by the names of their variables. Nobody gets to see them.

        Without those that are shorter than any real one: where none is needed people set `local`
        or `dummy`, and these are words.
        """
        names = ("stigmer_api_key", "stigmer_llm_api_key", "openai_api_key", "anthropic_api_key")
        keys = {name.upper(): getattr(self, name) for name in names}
        values = {name: key.get_secret_value() for name, key in keys.items() if key is not None}
        return {name: value for name, value in values.items() if len(value) >= SHORTEST_KEY}

    def _own_key(self, provider: Provider) -> SecretStr | None:
        own = {Provider.OPENAI: self.openai_api_key, Provider.ANTHROPIC: self.anthropic_api_key}
        return own.get(provider)

    def llm_for(self, model_name: str) -> ModelConfig:
        """The model of this name, which an execution asks for; the configured one without a name.

        Served by the configured provider, unless the name is clearly another's, whose key is set,
        and no URL is configured: behind one, anything may be served.
        """
        if not model_name:
            return self.llm
        other = Provider.of_model(model_name)
        key = self._own_key(other) if other else None
        if not other or other is self.stigmer_llm_provider or self.stigmer_llm_base_url or not key:
            return replace(self.llm, model=model_name)
        return ModelConfig.resolve(other, model=model_name, api_key=key.get_secret_value())

    @property
    def digest(self) -> str:
        """A short name for this configuration. Secrets count as 'set' or 'not set'."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def prepare_sandbox_root(self) -> None:
        """Make the sandbox folder, and see that it can be written to.

        Raises:
            SettingsError: if it cannot.
        """
        root = self.sandbox_root_dir
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SettingsError([f"SANDBOX_ROOT_DIR cannot make `{root}`: {reason}"]) from None
        if not os.access(root, os.W_OK | os.X_OK):
            raise SettingsError(
                [
                    f"SANDBOX_ROOT_DIR `{root}` is not writable for uid {os.getuid()}: "
                    f"it belongs to uid {root.stat().st_uid}"
                ]
            )


def _describe(error: Any) -> str:
    """One line: the variable and what is wrong. The value stays out: it may be a secret."""
    name = str(error["loc"][0]).upper() if error["loc"] else "environment"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{name} {message[:1].lower()}{message[1:]}"

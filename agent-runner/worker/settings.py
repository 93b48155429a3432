"""The worker's settings, read from the environment and checked together.

Only `Settings.load` reads the environment. Each field is the environment variable of the same name
in capitals. `.env.example` describes them.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from graphton import Effort, ModelConfig, Provider
from graphton.confine import READABLE_PATHS
from graphton.hosts import is_this_machine
from graphton.isolation import Isolation
from graphton.network import Network, Rule, parse_rules
from stigmer_stubs import backend, temporal
from worker.endpoint import Endpoint

MIN_KEY_CHARACTERS: Final = 8
"""Shorter keys are placeholders such as `local`, and are not treated as secrets."""

DEFAULT: Final = "default"
"""The source of a value that no variable sets."""

_DECIDING_KEYS: Final = {
    Provider.OPENAI: "openai_api_key",
    Provider.ANTHROPIC: "anthropic_api_key",
}
"""The keys that decide the provider if none is named. The first one that is set counts."""

_PROJECT = Path(__file__).resolve().parent.parent
_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


class Mode(StrEnum):
    """Where the runner is deployed."""

    LOCAL = "local"  # on the same machine as stigmer-server; no keys are needed
    CLOUD = "cloud"


class SandboxType(StrEnum):
    """Where an agent keeps files and runs commands."""

    FILESYSTEM = "filesystem"


class LogFormat(StrEnum):
    """The format of log records."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The lowest level of log records that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class SettingsError(Exception):
    """The settings are invalid.

    Attributes:
        problems: One line for each problem, with the name of the variable and without its value.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _host_port(value: str) -> str:
    match = _HOST_PORT.fullmatch(value)
    if not match or not 0 < int(match["port"]) < 65536:
        raise ValueError("should be host:port, such as localhost:7233")
    return value


def _host_list(value: str) -> str:
    parse_rules(value)
    return value


def _bind_address(value: str) -> str:
    host, _, _ = _host_port(value).rpartition(":")
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        raise ValueError("should be an IP address and a port, such as 0.0.0.0:9464") from None
    return value


def _endpoint(value: str) -> str:
    Endpoint.parse(value)
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("should be an http:// or https:// URL")
    return value


def _key(value: object) -> object:
    """Remove white space around a key: a file or a Kubernetes secret often ends with a newline."""
    if not isinstance(value, str):
        return value
    if not (stripped := value.strip()):
        return None
    if not (stripped.isascii() and stripped.isprintable()):
        # An HTTP library would refuse it later, with the key in its message.
        raise ValueError("contains a character that a key cannot contain, such as a newline")
    return stripped


def _choose_provider(values: Mapping[str, Any]) -> tuple[Provider, str]:
    """The provider, and the variable that decides it.

    Without STIGMER_LLM_PROVIDER, a provider's own key decides. STIGMER_LLM_API_KEY does not,
    because it may be any provider's.
    """
    if (named := values["stigmer_llm_provider"]) is not None:
        return named, "STIGMER_LLM_PROVIDER"
    for provider, key in _DECIDING_KEYS.items():
        if values.get(key) is not None:
            return provider, key.upper()
    return Provider.OLLAMA, DEFAULT


HostPort = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_host_port)]
BindAddress = Annotated[
    str, StringConstraints(strip_whitespace=True), AfterValidator(_bind_address)
]
EndpointText = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_endpoint)]
HttpUrl = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_http_url)]
HostList = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=100_000), AfterValidator(_host_list)
]
NonEmptyText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)
]


Key = Annotated[SecretStr | None, BeforeValidator(_key)]


class Settings(BaseSettings):
    """The settings. An empty environment is a valid local configuration.

    The order matters: the check of a field can only use the fields above it.
    """

    model_config = SettingsConfigDict(
        # An absolute path, so that the file does not depend on the working directory.
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
    sandbox_isolation: Isolation = Isolation.AUTO

    temporal_service_address: HostPort = temporal.DEFAULT_ADDRESS
    temporal_address: HostPort | None = None
    """Temporal's own name for `temporal_service_address`. See `worker.connection`."""
    temporal_api_key: Key = None
    temporal_tls: bool | None = None
    temporal_namespace: NonEmptyText = temporal.DEFAULT_NAMESPACE
    temporal_agent_execution_runner_task_queue: NonEmptyText = temporal.RUNNER_TASK_QUEUE
    temporal_max_concurrency: int = Field(default=100, ge=1, le=1000)
    """The maximum number of activities that run at the same time.

    Executions that wait for an earlier one of their session do not count.
    """

    agent_max_rounds: int = Field(default=100, ge=1, le=10_000)
    """The maximum number of requests to the model in one execution."""

    agent_max_tokens: int = Field(default=2_000_000, ge=1)
    """The maximum number of tokens of all requests and replies of one execution together."""

    agent_network: Network = Network.OPEN
    """What commands reach outside of their sandbox."""
    agent_network_allow: HostList = ""
    """The hosts that commands reach with `allowlist`. See `network_rules`."""

    metrics_address: BindAddress | None = None
    """The address on which to serve metrics for Prometheus."""

    shutdown_grace_seconds: float = Field(default=8.0, ge=0, le=3600)
    """How long running activities have to finish after SIGTERM. Engines send SIGKILL after 10 s."""

    stigmer_backend_endpoint: EndpointText = backend.DEFAULT_ENDPOINT
    stigmer_api_key: Key = None

    openai_api_key: Key = None
    anthropic_api_key: Key = None
    stigmer_llm_provider: Provider | None = None
    """None to let a key decide. See `provider`."""
    stigmer_llm_model: NonEmptyText | None = None
    stigmer_llm_base_url: HttpUrl | None = None
    ollama_base_url: HttpUrl | None = None
    """The URL for `ollama` if STIGMER_LLM_BASE_URL is not set."""
    stigmer_llm_max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    """The maximum length of one reply in tokens."""
    stigmer_llm_temperature: float | None = Field(default=None, ge=0, le=2)
    stigmer_llm_effort: Effort | None = None
    """How much the model reasons before it answers."""
    stigmer_llm_context_tokens: int | None = Field(default=None, ge=4096, le=10_000_000)
    """The maximum length of a request and its reply together in tokens; Ollama's `num_ctx`."""
    stigmer_llm_api_key: Key = None

    @field_validator("mode", "log_level", "log_format", "sandbox_type", "sandbox_isolation",
                     "agent_network", "stigmer_llm_provider", "stigmer_llm_effort",
                     mode="before")  # fmt: skip
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("ollama_base_url", mode="wrap")
    @classmethod
    def _only_if_used(
        cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> object:
        """A URL that is not used may be invalid: it may be meant for another program."""
        if "stigmer_llm_provider" not in info.data:  # its value is invalid
            return handler(value)
        provider, _ = _choose_provider(info.data)
        is_used = provider is Provider.OLLAMA and not info.data.get("stigmer_llm_base_url")
        return handler(value) if is_used else None

    @field_validator("agent_network_allow")
    @classmethod
    def _hosts_for_allowlist(cls, value: str, info: ValidationInfo) -> str:
        if "agent_network" not in info.data:  # its value is invalid
            return value
        if info.data["agent_network"] is Network.ALLOWLIST and not parse_rules(value):
            raise ValueError("should list hosts, such as pypi.org,.github.com, because "
                             "AGENT_NETWORK is allowlist")  # fmt: skip
        if info.data["agent_network"] is not Network.ALLOWLIST and value:
            raise ValueError("has no effect unless AGENT_NETWORK is allowlist: set that, or remove "
                             "this variable")  # fmt: skip
        return value

    @field_validator("sandbox_root_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            path = Path(os.path.abspath(value.expanduser()))  # noqa: PTH100 (keeps symlinks)
        except RuntimeError as error:  # there is no home folder for `~`
            raise ValueError(str(error)) from None
        for readable in READABLE_PATHS.split():
            if path.is_relative_to(readable):
                raise ValueError(f"is in `{readable}`, where agents' commands could read all "
                                 "sandboxes: choose another folder")  # fmt: skip
        return path

    @field_validator("stigmer_backend_endpoint")
    @classmethod
    def _cloud_needs_tls(cls, value: str, info: ValidationInfo) -> str:
        endpoint = Endpoint.parse(value)
        is_cloud = info.data.get("mode") is Mode.CLOUD
        if is_cloud and not endpoint.tls and not is_this_machine(endpoint.host):
            raise ValueError("should be https://host:port in MODE=cloud: the key must not be "
                             "sent without TLS to another machine")  # fmt: skip
        return value

    @field_validator("stigmer_api_key")
    @classmethod
    def _cloud_needs_a_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and info.data.get("mode") is Mode.CLOUD:
            raise ValueError("is needed in MODE=cloud")
        return value

    @field_validator("stigmer_llm_effort")
    @classmethod
    def _effort_of_provider(cls, value: Effort | None, info: ValidationInfo) -> Effort | None:
        if "stigmer_llm_provider" not in info.data:  # its value is invalid
            return value
        provider, _ = _choose_provider(info.data)
        if provider is Provider.ANTHROPIC and value in {Effort.NONE, Effort.MINIMAL}:
            raise ValueError("should be low, medium, high, xhigh or max for anthropic")
        return value

    @field_validator("stigmer_llm_api_key")
    @classmethod
    def _cloud_needs_a_model_key(
        cls, value: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        if "stigmer_llm_provider" not in info.data:  # its value is invalid
            return value
        provider, _ = _choose_provider(info.data)
        if (
            info.data.get("mode") is Mode.CLOUD
            and provider.needs_api_key
            and value is None
            and info.data.get(f"{provider}_api_key") is None
        ):
            raise ValueError(f"or {provider.upper()}_API_KEY is needed in MODE=cloud")
        return value

    @classmethod
    def load(cls) -> Self:
        """Read the environment and `.env`. The environment takes precedence.

        Raises:
            SettingsError: if settings are invalid. It lists all problems.
        """
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError([_describe(item) for item in error.errors()]) from None

    @property
    def network_rules(self) -> tuple[Rule, ...]:
        """The hosts that commands reach with AGENT_NETWORK=allowlist."""
        return parse_rules(self.agent_network_allow)

    @property
    def provider(self) -> Provider:
        """The provider of the model. If none is named, the first provider whose key is set."""
        return _choose_provider(self.__dict__)[0]

    @property
    def llm(self) -> ModelConfig:
        """The model for executions that do not name one.

        STIGMER_LLM_API_KEY takes precedence over the provider's own variable.
        """
        provider = self.provider
        url = self.stigmer_llm_base_url
        if url is None and provider is Provider.OLLAMA:
            url = self.ollama_base_url
        key = self.stigmer_llm_api_key or self._provider_key(provider)
        return replace(
            ModelConfig.resolve(
                provider,
                model=self.stigmer_llm_model,
                base_url=url,
                api_key=key.get_secret_value() if key else None,
            ),
            max_tokens=self.stigmer_llm_max_tokens,
            temperature=self.stigmer_llm_temperature,
            effort=self.stigmer_llm_effort,
            context_tokens=self.stigmer_llm_context_tokens,
        )

    @property
    def secrets(self) -> dict[str, str]:
        """The keys that are set, by the names of their variables. They must not be shown.

        Keys that are too short to be real are left out. If no key is needed, people set `local` or
        `dummy`, and replacing these words in every text would be confusing.
        """
        names = [name for name in type(self).model_fields if name.endswith("_api_key")]
        keys = {name.upper(): getattr(self, name) for name in names}
        values = {name: key.get_secret_value() for name, key in keys.items() if key is not None}
        return {name: value for name, value in values.items() if len(value) >= MIN_KEY_CHARACTERS}

    @property
    def llm_sources(self) -> dict[str, str]:
        """The variables that the provider, model, URL and key of `llm` come from.

        The source of a value that no variable sets is `default`.
        """
        provider, chosen_by = _choose_provider(self.__dict__)
        named = {
            "model": ["stigmer_llm_model"],
            "url": ["stigmer_llm_base_url", f"{provider}_base_url"],
            "key": ["stigmer_llm_api_key", f"{provider}_api_key"],
        }
        sources = {
            what: next((n.upper() for n in names if getattr(self, n, None) is not None), DEFAULT)
            for what, names in named.items()
        }
        return {"provider": chosen_by, **sources}

    @property
    def is_provider_ambiguous(self) -> bool:
        """Whether no provider is named, and more than one has a key."""
        keys = [getattr(self, key) for key in _DECIDING_KEYS.values()]
        return self.stigmer_llm_provider is None and all(key is not None for key in keys)

    @property
    def is_model_probably_elsewhere(self) -> bool:
        """Whether the default model is on this machine, and stigmer-server on another one.

        The runner was then probably moved to a server where no Ollama runs.
        """
        host = urlsplit(self.llm.base_url).hostname or ""
        return (
            self.llm_sources["provider"] == DEFAULT
            and is_this_machine(host)
            and self.llm.api_key is None
            and not is_this_machine(Endpoint.parse(self.stigmer_backend_endpoint).host)
        )

    def _provider_key(self, provider: Provider) -> SecretStr | None:
        own = {Provider.OPENAI: self.openai_api_key, Provider.ANTHROPIC: self.anthropic_api_key}
        return own.get(provider)

    def llm_for(self, model_name: str) -> ModelConfig:
        """The configuration of the model that an execution asks for.

        An empty name means the configured model. The configured provider serves every model: a name
        never decides to whom data is sent.
        """
        return replace(self.llm, model=model_name) if model_name else self.llm

    @property
    def digest(self) -> str:
        """A hash of this configuration. It covers whether a key is set, but not its value."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def _describe(error: Any) -> str:
    """Describe a problem in one line, without the value, which may be a secret."""
    name = str(error["loc"][0]).upper() if error["loc"] else "environment"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{name} {message[:1].lower()}{message[1:]}"

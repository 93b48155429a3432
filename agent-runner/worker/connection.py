"""How to connect to Temporal: this project's settings, together with Temporal's own.

Temporal's own are the variables TEMPORAL_… and the profiles in a file that all its programs read:
https://docs.temporal.io/develop/environment-configuration
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from temporalio.envconfig import ClientConfigProfile
from temporalio.service import TLSConfig

from graphton.hosts import is_this_machine
from worker.settings import MIN_KEY_CHARACTERS, HostPort, Settings, SettingsError

_CREDENTIAL: Final = re.compile(
    r"(?:.*[-_.])?(?:auth|authorization|cookie|jwt|(?:api|access|private|secret)[-_]?key|(?:token|secret|password|credential)s?)"
    r"(?:[-_.].*)?",
    re.IGNORECASE,
)
"""Names of metadata that is probably a credential, such as `authorization` and `x-api-key`."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where Temporal is, and how to identify the worker.

    Attributes:
        address: The address as host:port.
        namespace: The namespace.
        tls: Whether to use TLS, or its certificates.
        api_key: The key, or None.
        metadata: Metadata for every call.
        warnings: What the user should know about these settings.
    """

    address: str
    namespace: str
    tls: bool | TLSConfig = field(default=False, repr=False)
    api_key: str | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def secrets(self) -> list[tuple[str, str]]:
        """What must not be shown, by names. Some of it may come from a file."""
        found = [("TEMPORAL_API_KEY", self.api_key or "")]
        if isinstance(self.tls, TLSConfig) and self.tls.client_private_key:
            key = self.tls.client_private_key.decode(errors="replace")
            found.append(("TEMPORAL_TLS_CLIENT_KEY", key))
        for name in _find_credentials(self.metadata):
            variable = f"TEMPORAL_GRPC_META_{name.upper().replace('-', '_')}"
            found.append((variable, self.metadata[name]))
        return [(name, value) for name, value in found if len(value) >= MIN_KEY_CHARACTERS]

    def __str__(self) -> str:
        """Describe the connection for the log."""
        tls = " with TLS" if self.tls else ""
        return f"{self.address}{tls}, namespace `{self.namespace}`"


def find_connection(settings: Settings, environment: Mapping[str, str]) -> Connection:
    """Combine the settings with Temporal's own configuration.

    The first of these that is set counts: TEMPORAL_SERVICE_ADDRESS, TEMPORAL_ADDRESS, the profile,
    the default. For everything else, a variable takes precedence over the profile.

    Raises:
        SettingsError: if settings contradict each other or cannot be used.
    """
    profile, tls = _load_profile(settings, environment)
    given = settings.model_fields_set
    address, warnings = profile.address, list[str]()
    source = (
        "TEMPORAL_ADDRESS" if settings.temporal_address else "the address of Temporal's profile"
    )
    if "temporal_service_address" in given or not address:
        own = settings.temporal_service_address
        if settings.temporal_address not in {None, own}:
            raise SettingsError(
                ["TEMPORAL_ADDRESS and TEMPORAL_SERVICE_ADDRESS differ: set only one of them"]
            )
        if address not in {None, own}:
            warnings.append(
                f"TEMPORAL_SERVICE_ADDRESS replaces the address of the profile: using {own}"
            )
        address, source = own, "TEMPORAL_SERVICE_ADDRESS"
    address, host = _check_address(address, source)
    namespace = profile.namespace
    if "temporal_namespace" in given or not namespace:
        namespace = settings.temporal_namespace
    key = profile.api_key.strip() if profile.api_key else None
    local = is_this_machine(host)
    if local and profile.tls is None:
        tls = False  # only the key turned it on, and a development server has no TLS
    if key and not tls and not local:
        raise SettingsError(
            ["TEMPORAL_TLS must not be false: the key for Temporal would be sent without TLS"]
        )
    credentials = _find_credentials(profile.grpc_meta)
    if credentials and not tls and not local:
        raise SettingsError(
            [f"TEMPORAL_TLS must be true: the metadata `{credentials[0]}` for Temporal would be "
             "sent without TLS"]
        )  # fmt: skip
    return Connection(address, namespace, tls, key, profile.grpc_meta, tuple(warnings))


def _check_address(address: str, source: str) -> tuple[str, str]:
    """Return an address without white space around it, and its host without brackets."""
    try:
        checked: str = TypeAdapter(HostPort).validate_python(address)
        return checked, urlsplit(f"//{checked}").hostname or ""  # checks what is in brackets
    except ValueError:
        text = f"{source} should be host:port, such as localhost:7233"
        raise SettingsError([text]) from None


def _find_credentials(metadata: Mapping[str, str]) -> list[str]:
    """The names of the metadata that must be neither shown nor sent without TLS."""
    return [name for name, value in metadata.items() if value and _CREDENTIAL.fullmatch(name)]


def _load_profile(
    settings: Settings, environment: Mapping[str, str]
) -> tuple[ClientConfigProfile, bool | TLSConfig]:
    """Load Temporal's own configuration, and the certificates that it names."""
    own = {name: value for name, value in environment.items() if name.startswith("TEMPORAL_")}
    own = {name: value for name, value in own.items() if value}
    # The settings have read `.env` too, and have checked the values.
    if settings.temporal_address:
        own["TEMPORAL_ADDRESS"] = settings.temporal_address
    if settings.temporal_api_key:
        own["TEMPORAL_API_KEY"] = settings.temporal_api_key.get_secret_value()
    if settings.temporal_tls is not None:
        own["TEMPORAL_TLS"] = str(settings.temporal_tls).lower()
    file = own.get("TEMPORAL_CONFIG_FILE")
    if file and not Path(file).is_file():  # the SDK would ignore it
        raise SettingsError([f"TEMPORAL_CONFIG_FILE `{file}` does not exist"])
    if own.get("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION", "").lower() in {"1", "true"}:
        # The SDK ignores it. The worker would wait for Temporal without saying why.
        raise SettingsError(
            ["TEMPORAL_TLS_DISABLE_HOST_VERIFICATION is not supported: "
             "set TEMPORAL_TLS_SERVER_CA_CERT_PATH or TEMPORAL_TLS_SERVER_NAME"]
        )  # fmt: skip
    # The SDK looks for its default file in the home folder. Without HOME there is no such file.
    variables = {name: environment[name] for name in ("HOME",) if name in environment} | own
    try:
        profile = ClientConfigProfile.load(override_env_vars=variables)
        config = profile.to_client_connect_config()
    except (RuntimeError, OSError) as error:
        if isinstance(error, OSError):
            text = f"TEMPORAL_TLS_… `{error.filename}` cannot be read: {error.strerror}"
        else:
            # The next lines of a TOML error show a line of the file, which can contain the key.
            first_line, _, _ = str(error).partition("\n")
            text = f"TEMPORAL_… {first_line}"
        raise SettingsError([text]) from None
    tls = config.get("tls", False)
    if isinstance(tls, TLSConfig) and bool(tls.client_cert) != bool(tls.client_private_key):
        raise SettingsError(
            ["TEMPORAL_TLS_CLIENT_CERT_… and TEMPORAL_TLS_CLIENT_KEY_… must both be set"]
        )
    return profile, tls

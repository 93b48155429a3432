import pytest

from graphton import commands
from graphton.network import Network, Rule
from worker.connection import Connection
from worker.settings import Settings, SettingsError
from worker.walls import configure_commands, denied_ports, own_proxies, own_servers

TEMPORAL = Connection("localhost:7233", "default")


def test_the_ports_of_the_servers_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    assert denied_ports(Settings.load(), TEMPORAL) == {7233, 7234, 11434}
    monkeypatch.setenv("STIGMER_BACKEND_ENDPOINT", "https://stigmer.example.com")
    monkeypatch.setenv("STIGMER_LLM_BASE_URL", "http://models.example.com:8000/v1")
    monkeypatch.setenv("METRICS_ADDRESS", "127.0.0.1:9464")
    remote = Connection("ns.tmprl.cloud:7233", "ns")
    assert denied_ports(Settings.load(), remote) == {7233, 9464}


def test_the_isolation_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().sandbox_isolation == "auto"
    monkeypatch.setenv("SANDBOX_ISOLATION", "Require")
    assert Settings.load().sandbox_isolation == "require"
    monkeypatch.setenv("SANDBOX_ISOLATION", "no")
    with pytest.raises(SettingsError, match="SANDBOX_ISOLATION"):
        Settings.load()


def test_the_network_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().agent_network is Network.OPEN
    monkeypatch.setenv("AGENT_NETWORK", " None ")
    assert Settings.load().agent_network is Network.NONE
    monkeypatch.setenv("AGENT_NETWORK", "AllowList")
    with pytest.raises(SettingsError, match="AGENT_NETWORK_ALLOW should list hosts"):
        Settings.load()
    monkeypatch.setenv("AGENT_NETWORK_ALLOW", "pypi.org, *.github.com:443")
    assert Settings.load().network_rules == (
        Rule("pypi.org", subdomains=False, ports=frozenset({80, 443})),
        Rule("github.com", subdomains=True, ports=frozenset({443})),
    )


@pytest.mark.parametrize(
    ("network", "allow", "problem"),
    [
        ("closed", "", "AGENT_NETWORK "),
        ("allowlist", "pypi.org,https://x", "AGENT_NETWORK_ALLOW `https://x`: should be a host"),
        ("allowlist", " , ", "AGENT_NETWORK_ALLOW should list hosts"),
        # Somebody might believe that the list counts.
        ("open", "pypi.org", "AGENT_NETWORK_ALLOW has no effect"),
        ("none", "pypi.org", "AGENT_NETWORK_ALLOW has no effect"),
    ],
)
def test_wrong_networks(
    network: str, allow: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_NETWORK", network)
    monkeypatch.setenv("AGENT_NETWORK_ALLOW", allow)
    with pytest.raises(SettingsError) as raised:
        Settings.load()
    assert [line.startswith(problem) for line in raised.value.problems] == [True]


def test_what_the_proxy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_configuration", commands.Configuration())
    monkeypatch.setenv("AGENT_NETWORK", "allowlist")
    monkeypatch.setenv("AGENT_NETWORK_ALLOW", "pypi.org")
    monkeypatch.setenv("STIGMER_BACKEND_ENDPOINT", "https://[2001:db8::1]:7234")
    settings = Settings.load()
    environment = {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "localhost", "http_proxy": ""}
    configure_commands(settings, Connection("temporal.example:7233", "default"), environment)
    configured = commands._configuration
    assert configured.network is Network.ALLOWLIST
    assert configured.allowlist is not None
    assert configured.allowlist.rules == settings.network_rules
    assert configured.allowlist.own_servers == ("2001:db8::1", "temporal.example")
    assert configured.allowlist.proxies == {"https": "http://proxy:3128", "no": "localhost"}
    assert own_servers(settings, Connection("[::1]:7233", "x")) == ("2001:db8::1", "::1")
    assert own_proxies({}) == {}
    # A proxy can have a password.
    assert "proxy:3128" not in repr(configured)

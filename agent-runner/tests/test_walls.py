import pytest

from worker.connection import Connection
from worker.settings import Settings, SettingsError
from worker.walls import denied_ports

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

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.logging import LogCaptureHandler

from worker.settings import Settings

PREFIXES = ("AGENT_MAX_", "AGENT_NETWORK", "ANTHROPIC_", "LOG_", "OPENAI_", "SANDBOX_", "STIGMER_",
            "TEMPORAL_", "OLLAMA_", "METRICS_")  # fmt: skip


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Isolate each test from the developer's environment and `.env`."""
    for name in os.environ:
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.delenv("MODE", raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.setenv("AGENT_RUNNER_HEALTH_FILE", str(tmp_path / "health" / "health.json"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    """Restore the configuration of the log after each test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = [h for h in root.handlers if isinstance(h, LogCaptureHandler)]
    root.handlers += [h for h in handlers if h not in root.handlers]
    root.setLevel(level)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the measurements of tests that passed."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"measured: {name}: {value}")

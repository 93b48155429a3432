import os
from pathlib import Path

import pytest

from worker.settings import Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the developer's environment nor their .env decides a test."""
    for name in os.environ:
        if name.startswith(("TEMPORAL_", "STIGMER_", "SANDBOX_", "LOG_", "OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("MODE", raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.setenv("AGENT_RUNNER_HEALTH_FILE", str(tmp_path / "health" / "health.json"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

"""Checks that `.env.example` matches the settings."""

import re
from pathlib import Path

from worker.settings import Settings

EXAMPLE = Path(__file__).parent.parent / ".env.example"


def test_it_contains_exactly_the_variables_of_the_settings() -> None:
    named = re.findall(r"^#?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(name.upper() for name in Settings.model_fields)


def test_its_values_are_the_defaults(tmp_path: Path) -> None:
    lines = re.findall(r"^#([A-Z_]+=.*)$", EXAMPLE.read_text(), re.MULTILINE)
    (tmp_path / ".env").write_text("\n".join(lines))
    loaded, default = Settings.load(), Settings.model_construct()
    assert loaded.llm == Settings.model_construct().llm
    model = {"stigmer_llm_provider", "stigmer_llm_model", "stigmer_llm_base_url"}
    for name in set(Settings.model_fields) - model:
        value = getattr(default, name)
        expected = value.expanduser() if isinstance(value, Path) else value
        assert getattr(loaded, name) == expected, name

from pathlib import Path

import pytest

from graphton import Effort, ModelConfig, Provider
from worker.settings import Mode, Settings, SettingsError

KEYS = ("STIGMER_API_KEY", "STIGMER_LLM_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY",
        "TEMPORAL_API_KEY")  # fmt: skip


def problems() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    return caught.value.problems


def test_an_empty_environment_is_valid(tmp_path: Path) -> None:
    settings = Settings.load()
    assert settings.mode is Mode.LOCAL
    assert settings.sandbox_root_dir == tmp_path / "home/.stigmer/data/workspace"
    assert settings.temporal_service_address == "localhost:7233"
    assert settings.temporal_agent_execution_runner_task_queue == "agent_execution_runner"
    assert settings.stigmer_backend_endpoint == "localhost:7234"
    assert settings.llm == ModelConfig.resolve(Provider.OLLAMA)


def test_all_problems_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODE", "cloud")
    monkeypatch.setenv("SANDBOX_TYPE", "daytona")
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", "localhost")
    monkeypatch.setenv("TEMPORAL_MAX_CONCURRENCY", "0")
    monkeypatch.setenv("STIGMER_LLM_PROVIDER", "anthropic")
    monkeypatch.setenv("STIGMER_LLM_BASE_URL", "ftp://x")
    assert problems() == [
        "SANDBOX_TYPE input should be 'filesystem'",
        "TEMPORAL_SERVICE_ADDRESS should be host:port, such as localhost:7233",
        "TEMPORAL_MAX_CONCURRENCY input should be greater than or equal to 1",
        "STIGMER_API_KEY is needed in MODE=cloud",
        "STIGMER_LLM_BASE_URL should be an http:// or https:// URL",
        "STIGMER_LLM_API_KEY or ANTHROPIC_API_KEY is needed in MODE=cloud",
    ]


@pytest.mark.parametrize(
    "address", ["localhost:0", "localhost:65536", ":7233", "a b:1", "http://a:1"]
)
def test_an_invalid_address_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", address)
    assert problems() == ["TEMPORAL_SERVICE_ADDRESS should be host:port, such as localhost:7233"]


@pytest.mark.parametrize("address", ["temporal:7233", "10.0.0.1:1", "[::1]:7233", "a-b.c:65535"])
def test_a_valid_address_is_accepted(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("TEMPORAL_SERVICE_ADDRESS", address)
    assert Settings.load().temporal_service_address == address


@pytest.mark.parametrize("address", ["localhost:9464", ":9464", "10.0.0.1", "10.0.0.1:0"])
def test_metrics_need_an_ip_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("METRICS_ADDRESS", address)
    assert [problem.split()[:2] for problem in problems()] == [["METRICS_ADDRESS", "should"]]


@pytest.mark.parametrize("path", ["/opt/agents", "/usr/local/share/agents", "/etc"])
def test_commands_must_not_see_all_sandboxes(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("SANDBOX_ROOT_DIR", path)
    (problem,) = problems()
    assert problem.startswith(f"SANDBOX_ROOT_DIR is in `/{path.split('/')[1]}`, where agents'")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_MAX_CONCURRENCY", "")
    monkeypatch.setenv("STIGMER_LLM_PROVIDER", "")
    assert Settings.load().temporal_max_concurrency == 100


def test_the_environment_takes_precedence_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = ["MODE=LOCAL", "TEMPORAL_NAMESPACE=file", "STIGMER_LLM_MODEL=m", "OTHER=1"]
    (tmp_path / ".env").write_text("\n".join(lines))
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "environment")
    settings = Settings.load()
    assert (settings.temporal_namespace, settings.llm.model) == ("environment", "m")


def test_the_general_key_takes_precedence_over_the_providers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STIGMER_LLM_PROVIDER", "OpenAI")
    monkeypatch.setenv("OPENAI_API_KEY", "own")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "other")
    assert Settings.load().llm.api_key == "own"
    monkeypatch.setenv("STIGMER_LLM_API_KEY", "general")
    assert Settings.load().llm.api_key == "general"


@pytest.mark.parametrize(
    ("variables", "provider", "decided_by", "key_from"),
    [
        ({}, Provider.OLLAMA, "default", "default"),
        ({"OPENAI_API_KEY": "o"}, Provider.OPENAI, "OPENAI_API_KEY", "OPENAI_API_KEY"),
        ({"ANTHROPIC_API_KEY": "a"}, Provider.ANTHROPIC, "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": ""}, Provider.ANTHROPIC,
         "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "o"}, Provider.OPENAI,
         "OPENAI_API_KEY", "OPENAI_API_KEY"),
        ({"STIGMER_LLM_API_KEY": "g"}, Provider.OLLAMA, "default", "STIGMER_LLM_API_KEY"),
        ({"STIGMER_LLM_API_KEY": "g", "ANTHROPIC_API_KEY": "a"}, Provider.ANTHROPIC,
         "ANTHROPIC_API_KEY", "STIGMER_LLM_API_KEY"),
        ({"STIGMER_LLM_PROVIDER": " Ollama", "OPENAI_API_KEY": "o"}, Provider.OLLAMA,
         "STIGMER_LLM_PROVIDER", "default"),
    ],
)  # fmt: skip
def test_a_key_decides_the_provider_if_none_is_named(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    provider: Provider,
    decided_by: str,
    key_from: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert (settings.provider, settings.llm.provider) == (provider, provider)
    assert settings.llm == ModelConfig.resolve(provider, api_key=settings.llm.api_key)
    assert settings.llm_sources == {
        "provider": decided_by,
        "model": "default",
        "url": "default",
        "key": key_from,
    }
    both = len(variables) == 2 and all(variables.values()) and "OPENAI_API_KEY" in variables
    assert settings.is_provider_ambiguous == (both and decided_by != "STIGMER_LLM_PROVIDER")


def test_the_sources_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIGMER_LLM_MODEL", "m")
    monkeypatch.setenv("STIGMER_LLM_BASE_URL", "http://gateway/v1")
    sources = Settings.load().llm_sources
    assert (sources["model"], sources["url"]) == ("STIGMER_LLM_MODEL", "STIGMER_LLM_BASE_URL")


def test_a_key_decides_in_the_cloud_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODE", "cloud")
    monkeypatch.setenv("STIGMER_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "o")
    assert Settings.load().provider is Provider.OPENAI
    monkeypatch.setenv("STIGMER_LLM_PROVIDER", "wrong")
    assert [problem.split()[0] for problem in problems()] == ["STIGMER_LLM_PROVIDER"]


@pytest.mark.parametrize(
    ("endpoint", "refused"),
    [
        ("stigmer-server:7234", True),
        ("http://api.example.com", True),
        ("10.0.0.1:7234", True),
        ("https://stigmer-server:7234", False),
        ("api.example.com:443", False),
        ("localhost:7234", False),
        ("http://127.0.0.1:7234", False),
    ],
)
def test_a_key_is_not_sent_without_tls(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, refused: bool
) -> None:
    monkeypatch.setenv("STIGMER_BACKEND_ENDPOINT", endpoint)
    Settings.load()
    monkeypatch.setenv("MODE", "cloud")
    monkeypatch.setenv("STIGMER_API_KEY", "k")
    if not refused:
        Settings.load()
        return
    assert problems() == [
        "STIGMER_BACKEND_ENDPOINT should be https://host:port in MODE=cloud: "
        "the key must not be sent without TLS to another machine"
    ]


def test_cloud_with_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MODE": "cloud",
        "STIGMER_API_KEY": "k",
        "STIGMER_LLM_PROVIDER": "openai",
        "OPENAI_API_KEY": "o",
    }.items():
        monkeypatch.setenv(name, value)
    assert Settings.load().mode is Mode.CLOUD


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "hunter2")
    settings = Settings.load()
    monkeypatch.setenv("TEMPORAL_MAX_CONCURRENCY", "hunter2")
    shown = f"{settings!r} {settings} {settings.model_dump_json()} {settings.llm!r} {problems()}"
    assert "hunter2" not in shown


def test_the_digest_does_not_depend_on_the_value_of_a_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = Settings.load().digest
    monkeypatch.setenv("STIGMER_API_KEY", "one")
    one = Settings.load().digest
    monkeypatch.setenv("STIGMER_API_KEY", "two")
    assert Settings.load().digest == one != empty


@pytest.mark.parametrize("space", ["\n", " ", "\r\n", "\t"])
def test_white_space_around_a_key_is_removed(monkeypatch: pytest.MonkeyPatch, space: str) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, f"{space}k-123456789{space}")
    settings = Settings.load()
    assert settings.secrets == dict.fromkeys(KEYS, "k-123456789")
    assert settings.llm.api_key == "k-123456789"
    monkeypatch.setenv("STIGMER_API_KEY", space)
    assert Settings.load().stigmer_api_key is None


@pytest.mark.parametrize("key", ["k-12345\n6789", "k-12345\x7f", "schlüssel"])
def test_a_key_that_a_header_cannot_contain_is_refused(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert problems() == [
        "OPENAI_API_KEY contains a character that a key cannot contain, such as a newline"
    ]


def test_the_url_of_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://ollama:11434/")
    settings = Settings.load()
    assert settings.llm.base_url == "http://ollama:11434"
    assert settings.llm_sources["url"] == "OLLAMA_BASE_URL"
    monkeypatch.setenv("STIGMER_LLM_PROVIDER", "openai")
    settings = Settings.load()
    assert settings.llm == ModelConfig.resolve(Provider.OPENAI)
    assert settings.llm_sources["url"] == "default"
    monkeypatch.setenv("STIGMER_LLM_PROVIDER", "ollama")
    monkeypatch.setenv("STIGMER_LLM_BASE_URL", "http://gateway")
    assert Settings.load().llm.base_url == "http://gateway"
    monkeypatch.setenv("OLLAMA_BASE_URL", "ollama:11434")
    assert Settings.load().llm.base_url == "http://gateway"
    monkeypatch.delenv("STIGMER_LLM_BASE_URL")
    assert problems() == ["OLLAMA_BASE_URL should be an http:// or https:// URL"]
    monkeypatch.setenv("STIGMER_LLM_PROVIDER", "anthropic")
    assert Settings.load().llm == ModelConfig.resolve(Provider.ANTHROPIC)
    monkeypatch.delenv("STIGMER_LLM_PROVIDER")
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    assert Settings.load().llm.base_url == ModelConfig.resolve(Provider.OPENAI).base_url


def test_the_options_of_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings.load().llm.max_tokens, Settings.load().llm.temperature) == (None, None)
    monkeypatch.setenv("STIGMER_LLM_MAX_TOKENS", "4096")
    monkeypatch.setenv("STIGMER_LLM_TEMPERATURE", "0")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    settings = Settings.load()
    for model in (settings.llm, settings.llm_for("x")):
        assert (model.max_tokens, model.temperature) == (4096, 0)
    monkeypatch.setenv("STIGMER_LLM_MAX_TOKENS", "0")
    monkeypatch.setenv("STIGMER_LLM_TEMPERATURE", "hot")
    assert [problem.split()[0] for problem in problems()] == [
        "STIGMER_LLM_MAX_TOKENS",
        "STIGMER_LLM_TEMPERATURE",
    ]


@pytest.mark.parametrize(
    ("variables", "warned"),
    [
        ({}, False),
        ({"STIGMER_BACKEND_ENDPOINT": "host.docker.internal:7234"}, False),
        ({"STIGMER_BACKEND_ENDPOINT": "stigmer-server:7234"}, True),
        ({"STIGMER_BACKEND_ENDPOINT": "s:1", "OPENAI_API_KEY": "o"}, False),
        ({"STIGMER_BACKEND_ENDPOINT": "s:1", "STIGMER_LLM_API_KEY": "k"}, False),
        ({"STIGMER_BACKEND_ENDPOINT": "s:1", "STIGMER_LLM_PROVIDER": "ollama"}, False),
        ({"STIGMER_BACKEND_ENDPOINT": "s:1", "OLLAMA_BASE_URL": "http://ollama:1"}, False),
        ({"STIGMER_BACKEND_ENDPOINT": "s:1", "OLLAMA_BASE_URL": "http://[::1]:1"}, True),
    ],
)
def test_a_local_model_for_a_server_elsewhere(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], warned: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings.load().is_model_probably_elsewhere is warned


@pytest.mark.parametrize("name", ["gpt-oss:20b", "gpt-4.1", "o3", "claude-sonnet-5-5", "qwen3:8b"])
def test_a_models_name_does_not_change_to_whom_data_is_sent(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("STIGMER_LLM_PROVIDER", "ollama")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    monkeypatch.setenv("OPENAI_API_KEY", "o-key")
    settings = Settings.load()
    assert settings.llm_for("") == settings.llm
    assert settings.llm_for(name) == ModelConfig.resolve(Provider.OLLAMA, model=name)
    monkeypatch.setenv("STIGMER_LLM_PROVIDER", "openai")
    assert Settings.load().llm_for(name) == ModelConfig.resolve(
        Provider.OPENAI, model=name, api_key="o-key"
    )


def test_effort_and_context(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings.load().llm.effort, Settings.load().llm.context_tokens) == (None, None)
    monkeypatch.setenv("STIGMER_LLM_EFFORT", " Minimal")
    monkeypatch.setenv("STIGMER_LLM_CONTEXT_TOKENS", "65536")
    llm = Settings.load().llm_for("x")
    assert (llm.effort, llm.context_tokens) == (Effort.MINIMAL, 65_536)
    monkeypatch.setenv("STIGMER_LLM_PROVIDER", "anthropic")
    monkeypatch.setenv("STIGMER_LLM_CONTEXT_TOKENS", "100")
    assert problems() == [
        "STIGMER_LLM_EFFORT should be low, medium, high, xhigh or max for anthropic",
        "STIGMER_LLM_CONTEXT_TOKENS input should be greater than or equal to 4096",
    ]
    monkeypatch.setenv("STIGMER_LLM_EFFORT", "much")
    assert [problem.split()[0] for problem in problems()] == [
        "STIGMER_LLM_EFFORT",
        "STIGMER_LLM_CONTEXT_TOKENS",
    ]


def test_short_keys_are_not_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIGMER_API_KEY", "local")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    assert Settings.load().secrets == {"OPENAI_API_KEY": "sk-0123456789"}

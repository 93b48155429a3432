import pytest

from graphton import ModelConfig, Provider


def test_missing_values_are_the_providers_defaults() -> None:
    assert ModelConfig.resolve(Provider.OLLAMA) == ModelConfig(
        provider=Provider.OLLAMA,
        model="qwen3:8b",
        base_url="http://localhost:11434",
        api_key=None,
    )


def test_given_values_take_precedence() -> None:
    config = ModelConfig.resolve(
        Provider.OPENAI, model="m", base_url="http://proxy/v1/", api_key="k"
    )
    assert (config.model, config.base_url, config.api_key) == ("m", "http://proxy/v1", "k")


@pytest.mark.parametrize(
    ("provider", "key", "missing"),
    [
        (Provider.OPENAI, None, True),
        (Provider.OPENAI, "", True),
        (Provider.ANTHROPIC, "k", False),
        (Provider.OLLAMA, None, False),
    ],
)
def test_missing_api_key(provider: Provider, key: str | None, missing: bool) -> None:
    assert ModelConfig.resolve(provider, api_key=key).missing_api_key is missing


def test_the_key_is_not_in_repr() -> None:
    assert "hunter2" not in repr(ModelConfig.resolve(Provider.OPENAI, api_key="hunter2"))


@pytest.mark.parametrize("provider", Provider)
def test_every_provider_has_a_usable_default(provider: Provider) -> None:
    assert provider.default_model
    assert provider.default_base_url.startswith("http")


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://api.openai.com/v1", True),
        ("https://api.openai.com/v1/", True),
        ("https://api.openai.com", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://api.openai.com.example.com/v1", False),
        ("https://notapi.openai.com/v1", False),
        ("https://gateway/api.openai.com/v1", False),
        ("http://localhost:8000/v1", False),
    ],
)
def test_the_providers_own_host(url: str, own: bool) -> None:
    assert ModelConfig.resolve(Provider.OPENAI, base_url=url).uses_own_host is own

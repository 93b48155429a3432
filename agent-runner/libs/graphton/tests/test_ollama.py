"""Tests the choice of the context for Ollama."""

from typing import Any

import pytest

from graphton.providers.ollama import ModelDetails, choose_context


@pytest.mark.parametrize(
    ("largest", "own", "configured", "server", "chosen"),
    [
        (131_072, None, None, None, 32_768),
        (131_072, None, None, 4096, 32_768),
        (131_072, None, None, 2048, 32_768),
        (131_072, None, None, 8192, 8192),
        (262_144, None, None, 262_144, 262_144),
        (131_072, 16_384, None, 65_536, 16_384),
        (131_072, 16_384, 50_000, 65_536, 50_000),
        (8192, None, None, None, 8192),
        (8192, 16_384, None, None, 8192),
        (8192, None, 50_000, None, 8192),
        (None, None, 50_000, None, 50_000),
        (None, None, None, None, 32_768),
    ],
)
def test_the_context(
    largest: int | None, own: int | None, configured: int | None, server: int | None, chosen: int
) -> None:
    details = ModelDetails(max_context=largest, own_context=own)
    assert choose_context(details, configured, server) == chosen


@pytest.mark.parametrize(
    ("shown", "details"),
    [
        ({}, ModelDetails()),
        ({"model_info": None, "parameters": None}, ModelDetails()),
        (
            {
                "model_info": {
                    "general.architecture": "x",
                    "x.vision.context_length": 99_999,
                    "x.context_length": 40_960,
                },
                "parameters": 'stop "num_ctx 5"\nnum_ctx                        8192\ntop_k 20',
                "capabilities": ["tools"],
            },
            ModelDetails(40_960, 8192, frozenset({"tools"})),
        ),
    ],
)
def test_what_ollama_knows_about_a_model(shown: dict[str, Any], details: ModelDetails) -> None:
    assert ModelDetails.parse(shown) == details

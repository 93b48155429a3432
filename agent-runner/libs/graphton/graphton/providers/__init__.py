"""Clients for the HTTP APIs of model providers.

They replace the providers' SDKs, which would add 16 to 18 MB each to the image. The runner only
needs to send a request and to read a stream of events.
"""

from graphton.chat import ChatModel
from graphton.model import ModelConfig, Provider


def connect(config: ModelConfig) -> ChatModel:
    """Create a client for the configured model. It does not send anything yet."""
    from graphton.providers.anthropic import AnthropicChat
    from graphton.providers.ollama import OllamaChat
    from graphton.providers.openai import OpenAIChat

    match config.provider:
        case Provider.OPENAI:
            return OpenAIChat(config)
        case Provider.ANTHROPIC:
            return AnthropicChat(config)
        case Provider.OLLAMA:
            # A URL that ends in /v1 is that of Ollama's OpenAI-compatible API.
            return OpenAIChat(config) if config.base_url.endswith("/v1") else OllamaChat(config)

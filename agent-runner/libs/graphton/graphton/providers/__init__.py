"""Clients for the HTTP APIs of model providers.

They replace the providers' SDKs, which would add 12 MB each to the image (docs/performance.md). The
runner only needs to send a request and to read a stream of events. The tests validate what it sends
and reads with the SDKs' types.
"""

from graphton.chat import ChatModel
from graphton.model import ModelConfig, Provider


def connect(config: ModelConfig) -> ChatModel:
    """Create a client for the configured model. It does not send anything yet."""
    from graphton.providers.anthropic import AnthropicChat
    from graphton.providers.ollama import OllamaChat
    from graphton.providers.openai import OpenAIChat
    from graphton.providers.responses import OpenAIResponses

    match config.provider:
        case Provider.OPENAI:
            # Few other services have the Responses API.
            return OpenAIResponses(config) if config.uses_own_host else OpenAIChat(config)
        case Provider.ANTHROPIC:
            return AnthropicChat(config)
        case Provider.OLLAMA:
            # A URL that ends in /v1 is that of Ollama's OpenAI-compatible API.
            return OpenAIChat(config) if config.base_url.endswith("/v1") else OllamaChat(config)

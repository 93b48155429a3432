"""The services that serve models, over their public HTTP APIs.

Their SDKs are 16 to 18 MB each in the image; what the runner needs of them is a request and a
stream of events.
"""

from graphton.chat import ChatModel
from graphton.model import ModelConfig, Provider


def connect(config: ModelConfig) -> ChatModel:
    """The model of a configuration. Nothing is sent yet."""
    from graphton.providers.anthropic import AnthropicChat
    from graphton.providers.ollama import OllamaChat
    from graphton.providers.openai import OpenAIChat

    match config.provider:
        case Provider.OPENAI:
            return OpenAIChat(config)
        case Provider.ANTHROPIC:
            return AnthropicChat(config)
        case Provider.OLLAMA:
            # Its OpenAI-compatible side is asked for by its URL.
            return OpenAIChat(config) if config.base_url.endswith("/v1") else OllamaChat(config)

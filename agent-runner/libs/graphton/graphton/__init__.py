"""Which language model an agent runs on, and how it is reached."""

from graphton.model import ModelConfig, Provider

__all__ = ["ModelConfig", "Provider"]

"""Runs an AI agent: a language model that works with tools in a sandbox.

Nothing is imported here that takes time: whoever runs an agent imports `graphton.agent`,
`graphton.providers`, `graphton.tools`, `graphton.memory`, `graphton.files` once there is one.
"""

from graphton.model import ModelConfig, Provider

__all__ = ["ModelConfig", "Provider"]

"""Runs an AI agent: a language model that works with tools in a sandbox.

This module imports only what is fast to import. Code that runs an agent imports `graphton.agent`,
`graphton.providers`, `graphton.tools`, `graphton.memory` and `graphton.files` when it needs them.
"""

from graphton.model import Effort, ModelConfig, Provider

__all__ = ["Effort", "ModelConfig", "Provider"]

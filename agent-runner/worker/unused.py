"""Variables that other parts of stigmer and older runners read, and this runner does not."""

import re
from collections.abc import Mapping
from typing import Final

from worker.settings import Settings

_UNUSED: Final = (
    (r"TASK_QUEUE", "the task queue is `{queue}`"),
    (r"WORKSPACE_ROOT", "the workspace is `{folder}`"),
    (r"STIGMER_EXECUTION_MODE|STIGMER_SANDBOX_\w+", "agents run in the folder `{folder}`"),
    (r"DAYTONA_\w+", "Daytona is not supported: agents run in the folder `{folder}`"),
    (r"REDIS_\w+", "Redis is not used: sessions are stored in `{folder}`"),
    (r"AUTH0_\w+", "Auth0 is not used: STIGMER_API_KEY is the key for stigmer-server"),
)
"""Patterns of names, and what the worker does instead."""


def describe_unused(environment: Mapping[str, str], settings: Settings) -> str:
    """Name the variables that have no effect, without their values. Empty if there are none."""
    folder, queue = settings.sandbox_root_dir, settings.temporal_agent_execution_runner_task_queue
    found: dict[str, list[str]] = {}
    for name in sorted(name for name, value in environment.items() if value):
        if instead := _find_replacement(name):
            found.setdefault(instead.format(folder=folder, queue=queue), []).append(name)
    return "; ".join(f"{', '.join(names)} ({instead})" for instead, names in found.items())


def _find_replacement(name: str) -> str:
    return next((instead for pattern, instead in _UNUSED if re.fullmatch(pattern, name)), "")

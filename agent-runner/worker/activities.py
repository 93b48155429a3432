"""The activities that stigmer's workflows call. Their names and arguments are the contract's."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from stigmer_stubs import temporal
from worker.sandbox import remove_sandbox

_log = logging.getLogger(__name__)


class Activities:
    """The runner's activities.

    Args:
        sandbox_root: The folder that holds the sandboxes.
    """

    def __init__(self, sandbox_root: Path) -> None:
        self._sandbox_root = sandbox_root

    @property
    def all(self) -> list[Callable[..., Any]]:
        """What a worker has to register."""
        return [self.ensure_thread, self.execute_graphton, self.cleanup_sandbox]

    @activity.defn(name=temporal.ENSURE_THREAD)
    async def ensure_thread(self, session_id: str, agent_id: str) -> str:
        """The id under which a conversation is kept: the session's, or one for a single use."""
        if session_id:
            return f"thread-{session_id}"
        return f"ephemeral-{agent_id}-{uuid.uuid4().hex}"

    @activity.defn(name=temporal.EXECUTE_GRAPHTON)
    async def execute_graphton(self, execution: RawValue, thread_id: str) -> None:
        """Run an agent. This build cannot, and says so at once.

        The execution is left undecoded: nothing here knows the message yet.

        Raises:
            ApplicationError: always; not worth a retry.
        """
        raise ApplicationError(
            "this build of the agent-runner cannot run agents yet",
            type="NotImplemented",
            non_retryable=True,
        )

    @activity.defn(name=temporal.CLEANUP_SANDBOX)
    async def cleanup_sandbox(self, sandbox_id: str) -> None:
        """Remove a sandbox's folder. One that is not there is clean.

        Raises:
            ApplicationError: for an id that names no sandbox; not worth a retry.
            OSError: if the folder cannot be removed.
        """
        try:
            removed = await asyncio.to_thread(remove_sandbox, self._sandbox_root, sandbox_id)
        except ValueError as error:
            raise ApplicationError(
                str(error), type="InvalidSandboxId", non_retryable=True
            ) from None
        _log.info("sandbox `%s` %s", sandbox_id, "removed" if removed else "was not there")

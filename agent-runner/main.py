"""The agent-runner: a Temporal worker that runs AI agents for stigmer.

Exit codes: 0 stopped by SIGTERM or SIGINT, 1 something unforeseen, 2 the configuration or a
folder it names cannot be used.
"""

import ctypes
import logging
import os
import platform
import signal
import sys
from typing import NoReturn

from worker import logs
from worker.settings import Settings, SettingsError


def main() -> int:
    """Check everything that can be checked here, say so in the health file, serve."""
    # Until the worker drains on a signal there is nothing to drain: a stop is a clean one too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end(0))
    try:
        settings = Settings.load()
        settings.prepare_sandbox_root()
        logs.configure(settings.log_level, settings.log_format, settings.secrets.values())
        hide_environment()

        # Temporal's libraries cost most of the start: a wrong setting is told before that.
        from worker import health, service

        proof = health.HealthFile.publish(settings, health.prove_imports())
    except SettingsError as error:
        print("The agent-runner cannot start:", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        print("hint: agent-runner/.env.example describes every variable", file=sys.stderr)
        return 2

    log = logging.getLogger("agent-runner")
    log.info("starting", extra={"fields": banner(settings)})
    if settings.llm.missing_api_key:
        log.warning("no API key for %s is set: its models cannot be called", settings.llm.provider)
    service.run(settings, proof)
    return 0


def banner(settings: Settings) -> dict[str, object]:
    """What this worker is, in a line of its log."""
    from graphton import commands

    return {
        "mode": settings.mode.value,
        "sandboxes": settings.sandbox_root_dir,
        "commands": "confined" if commands.confined() else "not confined: no Landlock",
        "server": settings.stigmer_backend_endpoint,
        "model": settings.llm.model,
        "provider": settings.llm.provider.value,
        "concurrency": settings.temporal_max_concurrency,
        "python": platform.python_version(),
        "config": settings.digest,
    }


def hide_environment() -> None:
    """Let no other process of this user read this one's environment: it holds keys.

    Commands of agents are confined, where the kernel can; this holds everywhere on Linux. It does
    nothing for a container's init, which has the same environment: there only the former helps.
    """
    if sys.platform == "linux":
        pr_set_dumpable = 4
        ctypes.CDLL(None).prctl(pr_set_dumpable, 0, 0, 0, 0)


def end(code: int) -> NoReturn:
    """Leave without taking the interpreter down.

    Temporal's native threads outlive the worker, and one that asks for the interpreter while it
    is being taken down aborts the process: a clean stop would end with 134, now and then.
    https://github.com/temporalio/sdk-python/issues/300
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main())

"""The agent-runner: a Temporal worker that runs AI agents for stigmer.

Exit codes: 0 stopped by SIGTERM or SIGINT, 1 something unforeseen, 2 the configuration or a
folder it names cannot be used.
"""

import logging
import os
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
        logs.configure(settings.log_level, settings.log_format)

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
    log.info(
        "starting: mode %s, sandboxes in %s, model %s of %s, config %s",
        settings.mode,
        settings.sandbox_root_dir,
        settings.llm.model,
        settings.llm.provider,
        settings.digest,
    )
    if settings.llm.missing_api_key:
        log.warning("no API key for %s is set: its models cannot be called", settings.llm.provider)
    service.run(settings, proof)
    return 0


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

"""The agent-runner: a Temporal worker that runs AI agents for stigmer.

Exit codes: 0 after SIGTERM or SIGINT, 1 after an unexpected error, 2 if the configuration cannot be
used. A workspace that cannot be written does not end the worker: its owner can make it writable
while the worker runs.
"""

import contextlib
import ctypes
import logging
import os
import platform
import resource
import signal
import sys
import threading
from typing import NoReturn
from urllib.parse import urlsplit

from worker import logs
from worker.redaction import Redactor
from worker.settings import Settings, SettingsError
from worker.unused import describe_unused
from worker.workspace import find_problem

MAX_FILES = 65536
"""Open files. Where more are allowed, programs that try to close all of them take long."""


def main() -> int:
    """Check the configuration and the imports, write the health file, and serve."""
    # Until the worker handles signals itself, nothing is running: exit at once, with code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: exit_process(0))
    try:
        settings = Settings.load()
        logs.configure(settings.log_level, settings.log_format, Redactor(settings.secrets.items()))
        problem = find_problem(settings.sandbox_root_dir)
        hide_environment()
        raise_file_limit()

        from graphton import commands

        # It takes a tenth of a second, during which the imports go on.
        threading.Thread(target=commands.wall, name="wall").start()
        # Importing Temporal's libraries takes most of the start. Report a wrong setting first.
        from worker import health, service
        from worker.connection import find_connection
        from worker.walls import configure_commands

        connection = find_connection(settings, os.environ)
        secrets = [*settings.secrets.items(), *connection.secrets]
        logs.configure(settings.log_level, settings.log_format, Redactor(secrets))
        packages = health.check_imports()
        configure_commands(settings, connection, os.environ)
        health_file = health.HealthFile.publish(settings, packages, problem)
    except SettingsError as error:
        return report(error)

    log = logging.getLogger("agent-runner")
    log.info("starting", extra={"fields": startup_fields(settings)})
    if problem:
        # The worker polls all the same, so that each execution fails at once with this reason.
        log.error("executions fail until this is fixed: %s", problem)
    for warning in connection.warnings:
        log.warning("%s", warning)
    if unused := describe_unused(os.environ, settings):
        log.info("these variables have no effect: %s", unused)
    if refusal := commands.refusal():
        log.error("commands do not run: %s", refusal)
    if settings.is_provider_ambiguous:
        log.warning(
            "OPENAI_API_KEY and ANTHROPIC_API_KEY are set, STIGMER_LLM_PROVIDER is not: using %s",
            settings.provider,
        )
    if settings.llm.missing_api_key:
        log.warning("no API key for %s is set: its models cannot be called", settings.llm.provider)
    if settings.is_model_probably_elsewhere:
        log.warning(
            "stigmer-server is at %s, but executions use %s at %s, which is this machine: "
            "set OPENAI_API_KEY, ANTHROPIC_API_KEY or STIGMER_LLM_BASE_URL",
            settings.stigmer_backend_endpoint,
            settings.provider,
            model_fields(settings)["model_url"],
        )
    try:
        service.run(settings, connection, health_file)
    except SettingsError as error:
        return report(error)
    except Exception:  # the log removes secrets from it; the interpreter would not
        log.exception("unexpected error")
        return 1
    return 0


def report(error: SettingsError) -> int:
    """Print what is wrong with the configuration. Returns the exit code."""
    print("The agent-runner cannot start:", file=sys.stderr)
    for problem in error.problems:
        print(f"  {problem}", file=sys.stderr)
    print("hint: agent-runner/.env.example describes every variable", file=sys.stderr)
    return 2


def startup_fields(settings: Settings) -> dict[str, object]:
    """The most important settings, for the first line of the log."""
    from graphton import commands

    return {
        "mode": settings.mode.value,
        "sandboxes": settings.sandbox_root_dir,
        "commands": commands.wall().describe(),
        "network": commands.wall().describe_network(settings.agent_network),
        "server": settings.stigmer_backend_endpoint,
        **model_fields(settings),
        "concurrency": settings.temporal_max_concurrency,
        "python": platform.python_version(),
        "config": settings.digest,
    }


def model_fields(settings: Settings) -> dict[str, object]:
    """The model, and the variable that each of its settings comes from."""
    llm, sources = settings.llm, settings.llm_sources
    # A URL can contain a password, or a key as a parameter. Neither may be in the log.
    url = urlsplit(llm.base_url)
    return {
        "provider": llm.provider.value,
        "provider_from": sources["provider"],
        "model": llm.model,
        "model_from": sources["model"],
        "model_url": f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}",
        "model_url_from": sources["url"],
        "model_key_from": sources["key"],
    }


def hide_environment() -> None:
    """Prevent other processes of this user from reading this process's environment with its keys.

    This works on every Linux, also without Landlock. It does not protect the environment of a
    container's init, which has the same variables: only Landlock does.
    """
    if sys.platform == "linux":
        pr_set_dumpable = 4
        ctypes.CDLL(None).prctl(pr_set_dumpable, 0, 0, 0, 0)


def raise_file_limit() -> None:
    """Allow more open files than the usual 1024: each connection of a command needs two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def exit_process(code: int) -> NoReturn:
    """Exit without finalizing the interpreter.

    Temporal's native threads outlive the worker. If one of them calls into the interpreter during
    finalization, the process aborts, and a clean stop sometimes ends with exit code 134.
    https://github.com/temporalio/sdk-python/issues/300
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    exit_process(main())

"""Writes the health file, and runs health checks by hand.

python -m worker.health          the container's health check (see worker/probe.py)
python -m worker.health --full   imports every dependency and loads the configuration
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from graphton.access import restore_access
from worker import probe
from worker.settings import Settings, SettingsError

_log = logging.getLogger(__name__)

DEPENDENCIES = {
    # A module, and the package that it comes from (None: it is part of this project).
    "temporalio.client": "temporalio",
    "temporalio.worker": "temporalio",
    "google.protobuf": "protobuf",
    "pydantic": "pydantic",
    "pydantic_settings": "pydantic-settings",
    "graphton": None,
    "stigmer_stubs": None,
}


EXECUTION_DEPENDENCIES = {"grpclib": "grpclib", "httpx": "httpx"}
"""Modules that only an execution needs. Importing them would double the time of a start, which
therefore only checks that they are installed. The full check imports them."""


class Phase(StrEnum):
    """What the worker is doing. No phase is unhealthy in itself."""

    WAITING = "waiting for Temporal"
    POLLING = "polling"
    DRAINING = "draining"


def check_imports(*, execution: bool = False) -> dict[str, str]:
    """Import every dependency.

    Args:
        execution: Whether to import EXECUTION_DEPENDENCIES too. They must be installed in any
            case.

    Returns:
        The installed version of each package.

    Raises:
        ImportError: if a dependency is missing or broken.
    """
    for module in DEPENDENCIES:
        importlib.import_module(module)
    if execution:
        importlib.import_module("worker.execution")
    for module in EXECUTION_DEPENDENCIES:
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"no module named {module}")
    known = DEPENDENCIES | EXECUTION_DEPENDENCIES
    packages = sorted({package for package in known.values() if package})
    return {package: importlib.metadata.version(package) for package in packages}


class HealthFile:
    """The file that tells the health check whether the worker is healthy.

    Create it with `HealthFile.publish`, after the checks. It is removed when the worker stops.

    If the file cannot be written later, the worker goes on. An agent's command can cause this with
    `chmod`, and the health check reports it.
    """

    def __init__(self, path: Path, state: dict[str, object]) -> None:
        self._path = path
        self._state = state
        self._failure = ""

    @classmethod
    def publish(
        cls, settings: Settings, packages: dict[str, str], problem: str = ""
    ) -> "HealthFile":
        """Write the file for this process.

        Args:
            settings: The worker's configuration.
            packages: The installed version of each package.
            problem: See `set_problem`.

        Raises:
            SettingsError: if it cannot be written, or its folder belongs to another user.
        """
        path = Path(probe.health_file())
        pid = os.getpid()
        state: dict[str, object] = {
            "pid": pid,
            "start": probe.process_start(pid),
            "phase": Phase.WAITING,
            "problem": problem,
            "python": platform.python_version(),
            "packages": packages,
            "config": settings.digest,
        }
        file = cls(path, state)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            # The owner of the folder could replace the file.
            if path.parent.stat().st_uid not in (os.getuid(), 0):
                raise PermissionError(f"`{path.parent}` belongs to another user")
            file._write()
        except OSError as error:
            raise SettingsError(
                [f"AGENT_RUNNER_HEALTH_FILE `{path}` cannot be written: {error.strerror or error}"]
            ) from None
        return file

    def set_phase(self, phase: Phase) -> None:
        """Record what the worker is doing now."""
        self._state["phase"] = phase
        self._change(self._write)

    @property
    def problem(self) -> str:
        """Why the worker is unhealthy; empty if it is healthy."""
        return str(self._state["problem"])

    def set_problem(self, problem: str) -> None:
        """Record why executions fail at the moment; empty if nothing is known to be wrong."""
        self._state["problem"] = problem
        self._change(self._write)

    def record_heartbeat(self) -> None:
        """Record that the event loop is running. If the file was deleted, it is written again."""
        self._change(os.utime, self._path)

    def remove(self) -> None:
        """Remove the file, when the worker stops."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _change(self, change: Callable[..., None], *arguments: object) -> None:
        """Make a change. If it fails, restore the folder and the file as far as possible."""
        restore_access(self._path.parent)  # the health check runs as the same user
        restore_access(self._path)
        failure = ""
        try:
            try:
                change(*arguments)
            except OSError:
                self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                restore_access(self._path.parent)
                self._write()
        except OSError as error:
            failure = error.strerror or str(error)
        if failure != self._failure:
            self._failure = failure
            what = f"cannot be written: {failure}" if failure else "can be written again"
            _log.log(logging.ERROR if failure else logging.INFO, "`%s` %s", self._path, what)

    def _write(self) -> None:
        # Written under another name and renamed, so that a check never reads an incomplete file.
        new = self._path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(self._state) + "\n", encoding="utf-8")
        new.replace(self._path)


def _full_check() -> int:
    try:
        packages = check_imports(execution=True)
        settings = Settings.load()
    except (ImportError, SettingsError) as error:
        print(f"unhealthy: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    print(f"healthy: Python {platform.python_version()}, {versions}, config {settings.digest}")
    return 0


def main() -> int:
    """Run the command line. The exit code is 0 for healthy, else 1."""
    parser = argparse.ArgumentParser(prog="python -m worker.health", description="Check the worker")
    parser.add_argument(
        "--full", action="store_true", help="import everything and load the configuration"
    )
    return _full_check() if parser.parse_args().full else probe.main()


if __name__ == "__main__":
    sys.exit(main())

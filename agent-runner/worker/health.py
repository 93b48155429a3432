"""The worker's side of the health check, and a full check to run by hand.

python -m worker.health          the container's own check (see worker/probe.py)
python -m worker.health --full   imports every dependency anew and loads the configuration
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from enum import StrEnum
from pathlib import Path

from worker import probe
from worker.settings import Settings, SettingsError

DEPENDENCIES = {
    # What the worker needs, and the package that brings it (None: a part of this project).
    "temporalio.client": "temporalio",
    "temporalio.worker": "temporalio",
    "google.protobuf": "protobuf",
    "pydantic": "pydantic",
    "pydantic_settings": "pydantic-settings",
    "graphton": None,
    "stigmer_stubs": None,
}


LATE_DEPENDENCIES = {"grpclib": "grpclib", "httpx": "httpx"}
"""What only an execution needs. Importing it would take as long as all the rest: a start finds out
whether it is there, the full check imports it too."""


class Phase(StrEnum):
    """What the worker is at. It is healthy in all of them."""

    WAITING = "waiting for Temporal"
    POLLING = "polling"
    DRAINING = "draining"


def prove_imports(*, late: bool = False) -> dict[str, str]:
    """Import every dependency.

    Args:
        late: Also what only an execution needs; else that is only looked for.

    Returns:
        The installed version of each package.

    Raises:
        ImportError: if one is missing or broken.
    """
    for module in DEPENDENCIES:
        importlib.import_module(module)
    if late:
        importlib.import_module("worker.execution")
    for module in LATE_DEPENDENCIES:
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"no module named {module}")
    known = DEPENDENCIES | LATE_DEPENDENCIES
    packages = sorted({package for package in known.values() if package})
    return {package: importlib.metadata.version(package) for package in packages}


class HealthFile:
    """What the worker has proved about itself, for the health check to find.

    Made by `HealthFile.publish`, after the proof. The file goes when the worker does.
    """

    def __init__(self, path: Path, state: dict[str, object]) -> None:
        self._path = path
        self._state = state

    @classmethod
    def publish(cls, settings: Settings, packages: dict[str, str]) -> "HealthFile":
        """Write the file for this process.

        Raises:
            SettingsError: if it cannot be written, or its folder is another user's.
        """
        path = Path(probe.health_file())
        pid = os.getpid()
        state: dict[str, object] = {
            "pid": pid,
            "start": probe.process_start(pid),
            "phase": Phase.WAITING,
            "python": platform.python_version(),
            "packages": packages,
            "config": settings.digest,
        }
        file = cls(path, state)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            # Another user's folder in /tmp could be swapped under us.
            if path.parent.stat().st_uid not in (os.getuid(), 0):
                raise PermissionError(f"`{path.parent}` belongs to another user")
            file._write()
        except OSError as error:
            raise SettingsError(
                [f"AGENT_RUNNER_HEALTH_FILE `{path}` cannot be written: {error.strerror or error}"]
            ) from None
        return file

    def enter(self, phase: Phase) -> None:
        """Say what the worker is at now."""
        self._state["phase"] = phase
        self._write()

    def beat(self) -> None:
        """Say that the event loop turns. A file that somebody swept away is written again."""
        try:
            os.utime(self._path)
        except FileNotFoundError:
            self._write()

    def remove(self) -> None:
        """Take the file away: the worker stops."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self) -> None:
        # Written beside and renamed: a check never reads half a file.
        new = self._path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(self._state) + "\n", encoding="utf-8")
        new.replace(self._path)


def _full() -> int:
    try:
        packages = prove_imports(late=True)
        settings = Settings.load()
    except (ImportError, SettingsError) as error:
        print(f"unhealthy: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    print(f"healthy: Python {platform.python_version()}, {versions}, config {settings.digest}")
    return 0


def main() -> int:
    """The command line. The exit code is 0 for healthy, else 1."""
    parser = argparse.ArgumentParser(prog="python -m worker.health", description="Check the worker")
    parser.add_argument(
        "--full", action="store_true", help="import everything and load the configuration"
    )
    return _full() if parser.parse_args().full else probe.main()


if __name__ == "__main__":
    sys.exit(main())

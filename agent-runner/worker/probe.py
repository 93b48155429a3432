"""The container's health check: `python -I -S worker/probe.py`.

Importing the worker's dependencies every 30 s would take most of a second of CPU time each time.
Instead the worker checks once, at its start, that it can import them and load its configuration.
Only then does it write the health file, and its event loop updates the file's timestamp from then
on. This check verifies that the file exists, that the process which wrote it is still running, that
the timestamp is recent, and that the worker has not recorded a problem, such as a workspace that it
cannot write to.

The check does not test whether Temporal can be reached, because a restart would not help.

This file imports as little as possible, and only from the standard library. On failure, one line
on standard error says why, and the exit code is 1.
"""

import json
import os
import sys
import time
from typing import Final

HEALTH_HEARTBEAT_SECONDS: Final = 5.0
"""Seconds between two updates of the health file's timestamp."""

MAX_HEARTBEAT_AGE_SECONDS: Final = 20.0
"""If the timestamp is older, the worker's event loop is blocked."""


def health_file() -> str:
    """The path of the health file. The worker creates its folder."""
    path = os.environ.get("AGENT_RUNNER_HEALTH_FILE")
    if path:
        return path
    return f"{os.environ.get('TMPDIR') or '/tmp'}/agent-runner-{os.getuid()}/health.json"  # noqa: S108


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine was booted.

    A pid is reused after its process has ended. A pid together with a start time is unique.

    Returns:
        None if the process has ended or is a zombie; 0 if there is no /proc (macOS).
    """
    try:
        # Not /proc/PID/stat: under qemu-user, a process that reads its own file gets invented
        # values, which differ from those that the health check reads.
        with open(f"/proc/{pid}/task/{pid}/stat", "rb") as file:  # noqa: PTH123 (pathlib: 4 ms)
            # The second field, the program's name, may contain spaces and parentheses.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if os.path.exists("/proc/self/stat"):  # noqa: PTH110
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        return 0
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def check(path: str) -> tuple[bool, str]:
    """Return whether the worker that writes `path` is healthy, and one line of explanation."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            state = json.load(file)
            age = time.time() - os.fstat(file.fileno()).st_mtime
        pid, start, phase = int(state["pid"]), int(state["start"]), str(state["phase"])
        problem = str(state["problem"])
    except FileNotFoundError:
        return False, f"`{path}` does not exist: the worker has not started, or has stopped"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return False, f"`{path}` cannot be read: {error!r}"
    if process_start(pid) != start:
        return False, f"the worker (pid {pid}) has ended"
    if age > MAX_HEARTBEAT_AGE_SECONDS:
        return False, f"the worker (pid {pid}, {phase}) is stuck: last heartbeat {age:.0f} s ago"
    if problem:
        return False, problem
    return True, f"worker pid {pid}, {phase}, heartbeat {max(age, 0):.0f} s ago"


def main() -> int:
    """Print the result. The exit code is 0 for healthy, else 1."""
    healthy, line = check(health_file())
    if healthy:
        print(f"healthy: {line}")
        return 0
    print(f"unhealthy: {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Is the worker healthy? The container's health check: `python -I -S worker/probe.py`.

Importing the worker's dependencies again every 30 s would cost most of a second of CPU each
time. The worker proves instead, once, at its start, that they import and that its configuration
loads, and only then writes the health file; its event loop touches the file from then on. What
is left to check here is that the file is there, that the process which wrote it is still that
process, and that its event loop still turns. That this script runs shows that Python does.

Whether Temporal can be reached is not health: a restart would not mend it.

Only the standard library may be imported here, and as little of it as possible. On failure one
line on stderr says why, and the exit code is 1.
"""

import json
import os
import sys
import time
from typing import Final

HEARTBEAT_SECONDS: Final = 5.0
"""How often the worker touches the health file."""

STALE_SECONDS: Final = 20.0
"""A health file untouched for longer belongs to an event loop that is stuck."""


def health_file() -> str:
    """Where the worker and its check meet. The folder is one the worker makes for itself."""
    path = os.environ.get("AGENT_RUNNER_HEALTH_FILE")
    if path:
        return path
    return f"{os.environ.get('TMPDIR') or '/tmp'}/agent-runner-{os.getuid()}/health.json"  # noqa: S108


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did, as a name for it.

    A pid is used again, a pid with its start time is not.

    Returns:
        None for a process that is gone or a zombie; 0 where there is no /proc (macOS).
    """
    try:
        # As a thread of itself: to a process that reads its own /proc/PID/stat, qemu-user answers
        # what it made up, and another process, the health check, would see something else.
        with open(f"/proc/{pid}/task/{pid}/stat", "rb") as file:  # noqa: PTH123 (pathlib: 4 ms)
            # The second field, the program's name, may hold spaces and brackets.
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
    """Whether the worker that writes `path` is healthy, and one line that says so or why not."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            state = json.load(file)
            age = time.time() - os.fstat(file.fileno()).st_mtime
        pid, start, phase = int(state["pid"]), int(state["start"]), str(state["phase"])
    except FileNotFoundError:
        return False, f"`{path}` is not there: the worker has not started, or has stopped"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return False, f"`{path}` cannot be read: {error!r}"
    if process_start(pid) != start:
        return False, f"the worker (pid {pid}) is gone"
    if age > STALE_SECONDS:
        return False, f"the worker (pid {pid}, {phase}) is stuck: last heartbeat {age:.0f} s ago"
    return True, f"worker pid {pid}, {phase}, heartbeat {max(age, 0):.0f} s ago"


def main() -> int:
    """Print the verdict. The exit code is 0 for healthy, else 1."""
    healthy, line = check(health_file())
    if healthy:
        print(f"healthy: {line}")
        return 0
    print(f"unhealthy: {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

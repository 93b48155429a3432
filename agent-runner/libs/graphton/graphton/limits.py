"""Limits on what an agent's command may use, together with all processes that it starts.

The limits of setrlimit(2) count single processes, or all of a user's. So the worker counts, and
ends a command that exceeds a limit.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_TASKS: Final = 256
"""Processes and threads. `cargo xtask run-local` allows 512 for the whole container."""

MAX_MEMORY_BYTES: Final = 4 << 30
"""The most memory that a command gets, however much the machine has. See `memory_limit`."""

MAX_CPU_SECONDS: Final = 3600
"""Seconds of processor time, added up over all processors.

A command can use several processors for as long as it may last."""

MAX_DISK_BYTES: Final = 8 << 30
"""The size of the sandbox. A command may make a larger one smaller."""

MAX_FILE_BYTES: Final = 4 << 30
"""The size of one file, with its holes."""

WATCH_SECONDS: Final = 0.2
"""Seconds between two counts."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGESIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """What is known of a process.

    Attributes:
        pid: Its id.
        parent: The id of its parent.
        threads: The number of its threads.
        cpu_seconds: What it has used, with children that have ended.
        memory: The bytes in memory. What it shares with others counts for each of them.
        ended: Whether it has ended, and its parent has not taken its status yet.
    """

    pid: int
    parent: int
    threads: int
    cpu_seconds: float
    memory: int
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a command.

    Attributes:
        tasks: Processes and threads.
        memory: Bytes.
        cpu_seconds: Seconds of all processors together.
        disk: Bytes in the sandbox.
    """

    tasks: int = MAX_TASKS
    memory: int = MAX_MEMORY_BYTES
    cpu_seconds: float = MAX_CPU_SECONDS
    disk: int = MAX_DISK_BYTES

    @property
    def of_each_process(self) -> dict[str, int]:
        """Limits of setrlimit(2), which stop a process at once."""
        return {
            "CORE": 0,
            "CPU": int(self.cpu_seconds),
            "DATA": self.memory,
            "FSIZE": min(MAX_FILE_BYTES, self.disk),
        }


def memory_limit(available: int) -> int:
    """How much memory a command gets: half of what there is, but not more than the maximum."""
    return min(MAX_MEMORY_BYTES, available // 2)


def available_memory() -> int:
    """The memory of this container, or else of this machine, in bytes."""
    total = _PAGE * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        with contextlib.suppress(OSError, ValueError):  # without a limit it says `max`
            return min(total, int((Path("/sys/fs/cgroup") / name).read_text()))
    return total


def parse_stat(text: str) -> Process:
    """Read a line of /proc/PID/stat."""
    # The second field, the program's name, may contain spaces and parentheses.
    start, _, rest = text.rpartition(")")
    fields = rest.split()
    ticks = sum(int(field) for field in fields[11:15])
    return Process(
        pid=int(start.split(" ", 1)[0]),
        parent=int(fields[1]),
        threads=int(fields[17]),
        cpu_seconds=ticks / _TICKS,
        memory=int(fields[21]) * _PAGE,
        ended=fields[0] in ("Z", "X"),
    )


def list_processes() -> list[Process]:
    """All processes that this one can see."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                found.append(parse_stat(Path(f"/proc/{name}/stat").read_text(errors="replace")))
    return found


def descendants(processes: Iterable[Process], ancestor: int) -> list[Process]:
    """The processes that a process has started, directly or not."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found = list(children.get(ancestor, []))
    for process in found:  # the list grows meanwhile
        found += children.get(process.pid, [])
    return found


def find_excess(
    processes: Iterable[Process],
    supervisor: int,
    limits: Limits,
    count_memory: Callable[[Process], int],
) -> str:
    """Say which limit a command exceeds; empty if none.

    Args:
        processes: All processes.
        supervisor: The parent of the command's first process, and of those whose parent has ended.
        limits: The limits.
        count_memory: Counts a process's share of what it has in memory. It is called only if the
            sum of all might be too large.
    """
    processes = list(processes)
    own = descendants(processes, supervisor)
    tasks = sum(process.threads for process in own)
    if tasks > limits.tasks:
        return f"it had more than {limits.tasks} processes and threads"
    used = sum(process.memory for process in own)
    if used > limits.memory and sum(count_memory(process) for process in own) > limits.memory:
        return f"it used more than {limits.memory >> 20} MiB of memory"
    with_ended = [*own, *(process for process in processes if process.pid == supervisor)]
    if sum(process.cpu_seconds for process in with_ended) > limits.cpu_seconds:
        return f"it used more than {limits.cpu_seconds:.0f} s of processor time"
    return ""


def count_memory(process: Process) -> int:
    """The memory of a process in bytes. What it shares with others is divided between them."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return process.memory


class Watch:
    """Counts what commands use, in a thread of its own.

    It is one thread for all commands, started early: during a fork bomb, the worker may not be
    able to start another one.
    """

    def __init__(self) -> None:
        self._commands: dict[int, tuple[Limits, Callable[[str], None]]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, if it does not run yet."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="limits", daemon=True)
            self._thread.start()

    @contextlib.contextmanager
    def watching(
        self, supervisor: int, limits: Limits, exceeded: Callable[[str], None]
    ) -> Iterator[None]:
        """Watch a command during the `with` block.

        Args:
            supervisor: See `find_excess`.
            limits: Its limits.
            exceeded: Called in another thread with the reason, as often as an excess is found.
        """
        with self._changed:
            self._commands[supervisor] = (limits, exceeded)
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                del self._commands[supervisor]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._commands)
                commands = dict(self._commands)
            processes = list_processes()
            for supervisor, (limits, exceeded) in commands.items():
                if excess := find_excess(processes, supervisor, limits, count_memory):
                    exceeded(excess)
            time.sleep(WATCH_SECONDS)

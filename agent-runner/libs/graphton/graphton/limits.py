"""Limits on what the commands of an execution may use, with all processes that they start.

The limits of setrlimit(2) count single processes, or all of a user's. So the worker counts, and
ends a command if a limit is exceeded.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

MAX_TASKS: Final = 256
"""Processes and threads. `cargo xtask run-local` allows 512 for the whole container."""

MAX_MEMORY_BYTES: Final = 4 << 30
"""The most memory that an execution gets, however much the machine has. See `memory_limit`."""

MAX_CPU_SECONDS: Final = 4 * 3600
"""Seconds of processor time, added up over all processors and all commands of an execution.

A command can use several processors for as long as it may last."""

MAX_DISK_BYTES: Final = 8 << 30
"""The size of the sandbox. A command may make a larger one smaller."""

MAX_OPEN_FILES: Final = 4096
"""Descriptors of one process. This bounds the memory in pipes and sockets, which is not counted."""

MAX_FILE_BYTES: Final = 4 << 30
"""The size of one file, including parts that were never written."""

MAX_FILE_BYTES_OVER_DISK: Final = 64 << 10
"""The same for commands that start while the sandbox is too large. They are meant to remove files.
"""

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
    """The limits of an execution.

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
            "NOFILE": MAX_OPEN_FILES,
        }


class Account:
    """What the commands of an execution have used, and what they may use together.

    Args:
        allowed: The limits; None for the usual ones on this machine.

    Attributes:
        limits: The limits.
        cpu_seconds: What the commands that have ended have used.
        disk: The size of the sandbox in bytes when it was last measured; None before that.
        measured: When that was, by `time.monotonic`.
        measuring_seconds: How long it took.
        running: A function for each command that runs, in the order of their start. It ends the
            command; its argument is the reason.
    """

    def __init__(self, allowed: Limits | None = None) -> None:
        self.limits = allowed or Limits(memory=memory_limit(available_memory()))
        self.cpu_seconds = 0.0
        self.disk: int | None = None
        self.measured = 0.0
        self.measuring_seconds = 0.0
        self.running: list[Callable[[str], None]] = []

    @property
    def is_disk_exceeded(self) -> bool:
        """Whether the sandbox was too large when it was last measured."""
        return (self.disk or 0) > self.limits.disk

    @property
    def refusal(self) -> str:
        """Why no other command may start; empty if one may."""
        if self.cpu_seconds > self.limits.cpu_seconds:
            return _excess_text(self.limits, "cpu_seconds", alone=False)
        return ""

    @property
    def of_each_process(self) -> dict[str, int]:
        """The limits of setrlimit(2) for the next command."""
        found = self.limits.of_each_process
        if self.is_disk_exceeded:
            found["FSIZE"] = min(found["FSIZE"], MAX_FILE_BYTES_OVER_DISK)
        return found

    def disk_excess(self, size: int) -> str:
        """Take note of the size of the sandbox. Says what is exceeded if it is too large and grows.

        If it was too large before, commands may make it smaller.
        """
        before, self.disk = self.disk, size
        if size <= self.limits.disk or before is None or size <= before:
            return ""
        return f"the sandbox had more than {self.limits.disk >> 20} MiB"


def memory_limit(available: int) -> int:
    """How much memory an execution gets: half of what there is, but not more than the maximum."""
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


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that is exceeded.

    Attributes:
        text: Which one, as the end of `ended because …`.
        supervisor: The supervisor of the command that uses most of it.
    """

    text: str
    supervisor: int


def find_excess(
    processes: Iterable[Process],
    supervisors: Collection[int],
    limits: Limits,
    count_memory: Callable[[Process], int],
    cpu_seconds: float = 0.0,
) -> Excess | None:
    """Find a limit that the commands of an execution exceed together.

    Args:
        processes: All processes.
        supervisors: The pids of the commands' supervisors. Processes whose parent has ended belong
            to them too.
        limits: The limits.
        count_memory: Counts a process's share of what it has in memory. It is called only if the
            sum of all might be too large.
        cpu_seconds: What the commands that have ended have used.
    """
    processes = list(processes)
    own = {supervisor: descendants(processes, supervisor) for supervisor in supervisors}

    def excess(name: str, used: dict[int, float]) -> Excess:
        alone = len(used) == 1 and not (name == "cpu_seconds" and cpu_seconds)
        most = max(used, key=lambda supervisor: used[supervisor])
        return Excess(_excess_text(limits, name, alone=alone), most)

    tasks = {one: float(sum(process.threads for process in own[one])) for one in own}
    if sum(tasks.values()) > limits.tasks:
        return excess("tasks", tasks)
    if sum(process.memory for found in own.values() for process in found) > limits.memory:
        memory = {one: float(sum(map(count_memory, own[one]))) for one in own}
        if sum(memory.values()) > limits.memory:
            return excess("memory", memory)
    cpu = {one: count_cpu(processes, one) for one in own}
    if cpu_seconds + sum(cpu.values()) > limits.cpu_seconds:
        return excess("cpu_seconds", cpu)
    return None


def count_cpu(processes: Iterable[Process], supervisor: int) -> float:
    """The processor time of a command in seconds, with that of its supervisor."""
    processes = list(processes)
    own = [*descendants(processes, supervisor), *(p for p in processes if p.pid == supervisor)]
    return sum(process.cpu_seconds for process in own)


def _excess_text(limits: Limits, name: str, *, alone: bool) -> str:
    who = "it" if alone else "the commands of this execution together"
    return {
        "tasks": f"{who} had more than {limits.tasks} processes and threads",
        "memory": f"{who} used more than {limits.memory >> 20} MiB of memory",
        "cpu_seconds": f"{who} used more than {limits.cpu_seconds:.0f} s of processor time",
    }[name]


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
        self._commands: dict[int, _Watched] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, if it does not run yet."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="limits", daemon=True)
            self._thread.start()

    @contextlib.contextmanager
    def watching(
        self, supervisor: int, account: Account, exceeded: Callable[[str], None]
    ) -> Iterator["_Watched"]:
        """Watch a command during the `with` block.

        Args:
            supervisor: See `find_excess`.
            account: That of its execution.
            exceeded: Called in another thread with the reason, as often as an excess is found.
        """
        watched = _Watched(account, exceeded)
        with self._changed:
            self._commands[supervisor] = watched
            self._changed.notify()
        try:
            yield watched
        finally:
            with self._changed:
                del self._commands[supervisor]

    def _run(self) -> None:
        failure = ""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._commands)
                commands = dict(self._commands)
            try:
                _count(commands)
                failure = ""
            except Exception as error:  # such as too many open files: the next count may succeed
                if str(error) != failure:
                    failure = str(error)
                    _log.exception("what commands use cannot be counted")
            time.sleep(WATCH_SECONDS)


def _count(commands: "Mapping[int, _Watched]") -> None:
    """Count what commands use, by their supervisors, and end those that exceed a limit."""
    processes = list_processes()
    accounts: dict[Account, list[int]] = {}
    for supervisor, watched in commands.items():
        # It counts less after its supervisor was killed.
        now = count_cpu(processes, supervisor)
        watched.cpu_seconds = max(watched.cpu_seconds, now)
        accounts.setdefault(watched.account, []).append(supervisor)
    for account, supervisors in accounts.items():
        spent = account.cpu_seconds
        if excess := find_excess(processes, supervisors, account.limits, count_memory, spent):
            commands[excess.supervisor].exceeded(excess.text)


@dataclass(slots=True)
class _Watched:
    """A command that is watched.

    Attributes:
        account: That of its execution.
        exceeded: See `Watch.watching`.
        cpu_seconds: What it has used, as far as it was counted.
    """

    account: Account
    exceeded: Callable[[str], None]
    cpu_seconds: float = 0.0

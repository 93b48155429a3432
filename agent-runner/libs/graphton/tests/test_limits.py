import errno
import os
import subprocess
import threading

import pytest

from graphton import limits
from graphton.limits import (
    Account,
    Excess,
    Limits,
    Process,
    descendants,
    find_excess,
    memory_limit,
    parse_stat,
)

STAT = "42 (a) b (c) S 7 42 42 0 -1 4194304 9 9 0 0 150 50 30 20 20 0 3 0 9 1000 25 1844 1"


def process(pid: int, parent: int, **changed: float) -> Process:
    values = {"threads": 1, "cpu_seconds": 0.0, "memory": 100} | changed
    return Process(
        pid, parent, int(values["threads"]), values["cpu_seconds"], int(values["memory"])
    )


def excess(limits: Limits, *processes: Process, share: int = 1) -> str:
    found = find_excess(processes, [10], limits, lambda one: one.memory // share)
    assert found is None or found.supervisor == 10
    return found.text if found else ""


def test_a_line_of_the_kernel() -> None:
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGESIZE")
    assert parse_stat(STAT) == Process(42, 7, 3, 250 / ticks, 25 * page)


def test_this_process_is_listed() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        listed = limits.list_processes()
        assert child.pid in [one.pid for one in descendants(listed, os.getpid())]
        (own,) = (one for one in listed if one.pid == os.getpid())
        assert 0 < limits.count_memory(own) <= own.memory * 1.2
    finally:
        child.kill()
        child.wait()


def test_descendants() -> None:
    tree = [process(11, 10), process(13, 12), process(12, 11), process(99, 1), process(10, 1)]
    assert [one.pid for one in descendants(tree, 10)] == [11, 12, 13]


def test_each_limit() -> None:
    one, two = process(11, 10, threads=3), process(12, 11, threads=2)
    assert excess(Limits(tasks=5), one, two, process(99, 1, threads=900)) == ""
    assert excess(Limits(tasks=4), one, two) == "it had more than 4 processes and threads"
    large = [process(n, 10, memory=1 << 20) for n in (11, 12, 13)]
    assert excess(Limits(memory=2 << 20), *large) == "it used more than 2 MiB of memory"
    # What they share counts once.
    assert excess(Limits(memory=2 << 20), *large, share=2) == ""
    busy = [process(11, 10, cpu_seconds=3), process(10, 1, cpu_seconds=4)]
    assert excess(Limits(cpu_seconds=8), *busy) == ""
    assert excess(Limits(cpu_seconds=6), *busy) == "it used more than 6 s of processor time"


def together(limits: Limits, *processes: Process, cpu_seconds: float = 0) -> Excess | None:
    """What two commands exceed, with the supervisors 10 and 20."""
    return find_excess(processes, [10, 20], limits, lambda one: one.memory, cpu_seconds)


def test_commands_of_an_execution_count_together() -> None:
    both = [process(11, 10, threads=2), process(21, 20, threads=3), process(99, 1, threads=9)]
    assert together(Limits(tasks=5), *both) is None
    who = "the commands of this execution together"
    # The one that uses most is ended.
    assert together(Limits(tasks=4), *both) == Excess(
        f"{who} had more than 4 processes and threads", 20
    )
    large = [process(11, 10, memory=2 << 20), process(21, 20, memory=1 << 20)]
    assert together(Limits(memory=3 << 20), *large) is None
    assert together(Limits(memory=2 << 20), *large) == Excess(
        f"{who} used more than 2 MiB of memory", 10
    )
    busy = [process(11, 10, cpu_seconds=3), process(20, 1, cpu_seconds=4)]
    assert together(Limits(cpu_seconds=7), *busy) is None
    text = f"{who} used more than 7 s of processor time"
    assert together(Limits(cpu_seconds=7), *busy, cpu_seconds=0.5) == Excess(text, 20)


def test_what_ended_commands_have_used_counts() -> None:
    one = process(11, 10, cpu_seconds=3)
    found = find_excess([one], [10], Limits(cpu_seconds=7), lambda _: 0, 5)
    text = "the commands of this execution together used more than 7 s of processor time"
    assert found == Excess(text, 10)
    account = Account(Limits(cpu_seconds=7))
    account.cpu_seconds = 7
    assert account.refusal == ""
    account.cpu_seconds = 7.5
    assert account.refusal == text


def test_the_size_of_the_sandbox() -> None:
    account = Account(Limits(disk=100 << 20))
    text = "the sandbox had more than 100 MiB"
    mib = 1 << 20
    # It was too large before, and may become smaller.
    assert [account.disk_excess(size * mib) for size in (300, 300, 200)] == ["", "", ""]
    assert account.is_disk_exceeded
    assert account.of_each_process["FSIZE"] == limits.MAX_FILE_BYTES_OVER_DISK
    assert [account.disk_excess(size * mib) for size in (201, 90, 99, 101)] == [text, "", "", text]
    account.disk_excess(90 * mib)
    assert not account.is_disk_exceeded
    assert account.of_each_process["FSIZE"] == 100 * mib


def test_the_memory_that_an_execution_gets() -> None:
    assert memory_limit(1 << 30) == 512 << 20
    assert memory_limit(1 << 40) == limits.MAX_MEMORY_BYTES
    assert 0 < limits.available_memory() <= os.sysconf("SC_PHYS_PAGES") * 1 << 20


def test_counting_goes_on_after_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "WATCH_SECONDS", 0.01)
    answers = iter(range(100))

    def list_processes() -> list[Process]:
        if next(answers) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return [process(11, 10, threads=9)]

    monkeypatch.setattr(limits, "list_processes", list_processes)
    exceeded = threading.Event()
    watch = limits.Watch()
    watch.start()
    with watch.watching(10, Account(Limits(tasks=8)), lambda _: exceeded.set()):
        assert exceeded.wait(5)
    assert caplog.text.count("what commands use cannot be counted") == 1

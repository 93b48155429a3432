import os
import subprocess

from graphton import limits
from graphton.limits import Limits, Process, descendants, find_excess, memory_limit, parse_stat

STAT = "42 (a) b (c) S 7 42 42 0 -1 4194304 9 9 0 0 150 50 30 20 20 0 3 0 9 1000 25 1844 1"


def process(pid: int, parent: int, **changed: float) -> Process:
    values = {"threads": 1, "cpu_seconds": 0.0, "memory": 100} | changed
    return Process(
        pid, parent, int(values["threads"]), values["cpu_seconds"], int(values["memory"])
    )


def excess(limits: Limits, *processes: Process, share: int = 1) -> str:
    return find_excess(processes, 10, limits, lambda one: one.memory // share)


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


def test_the_memory_that_a_command_gets() -> None:
    assert memory_limit(1 << 30) == 512 << 20
    assert memory_limit(1 << 40) == limits.MAX_MEMORY_BYTES
    assert 0 < limits.available_memory() <= os.sysconf("SC_PHYS_PAGES") * 1 << 20

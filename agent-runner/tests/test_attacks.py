"""Attacks every combination of walls, with what this machine's kernel has.

An older kernel is one whose newer features are not used. `tests/attacks.py` has the table.
"""

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from graphton import commands, confine, limits, seccomp
from graphton.files import Folder
from graphton.isolation import Isolation
from graphton.tools import SandboxTools, ToolError
from graphton.wall import Wall, find_wall
from tests.attack_suite import (
    SUITE,
    Result,
    parse_suite,
    run_suite,
    run_suite_here,
    successes,
)
from tests.attacks import ATTACKS, PRELUDE, VICTIMS, Attack, Kind, table
from tests.folders import open_to_everyone
from tests.runners import (
    ENGINE,
    IMAGE,
    ORIGINAL_ENVIRONMENT,
    RUN_OPTIONS,
    ContainerRunner,
    Runner,
    engine_command,
    until,
)
from tests.stack import TEMPORAL, Stack, answer, needs_temporal, start_stack
from worker import probe

MACHINE = find_wall()
PROCESSES = confine.NEW_PIDS
MOUNTS = confine.NEW_USER | confine.NEW_MOUNTS | confine.NEW_IPC

WALLS = {
    Kind.NAMESPACES: Wall(MACHINE.landlock, MACHINE.architecture, MOUNTS | PROCESSES),
    Kind.MOUNTS: Wall(MACHINE.landlock, MACHINE.architecture, MOUNTS),
    Kind.LANDLOCK: Wall(MACHINE.landlock, MACHINE.architecture, 0),
    Kind.PORTS: Wall(4, MACHINE.architecture, 0),
    Kind.OLD: Wall(1, MACHINE.architecture, 0),
    Kind.SECCOMP: Wall(0, MACHINE.architecture, 0),
}


ON_THE_PARENT = [attack for attack in ATTACKS if "getppid" in attack.program]
"""Attacks that must be commands of their own: in a suite, the parent of an attack is the suite."""


def is_possible(kind: Kind) -> bool:
    """Whether this machine has what a combination needs."""
    wall = WALLS[kind]
    needed = {Kind.LANDLOCK: 6, Kind.PORTS: 4, Kind.OLD: 1}
    return (
        bool(MACHINE.architecture)
        and MACHINE.landlock >= needed.get(kind, 0)
        and wall.namespaces & MACHINE.namespaces == wall.namespaces
    )


@pytest.fixture(params=list(Kind))
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    chosen = Kind(request.param)
    if not is_possible(chosen):
        pytest.skip(f"this machine has only: {MACHINE.describe()}")
    monkeypatch.setattr(commands, "wall", lambda: WALLS[chosen])
    return chosen


@pytest.fixture
def box(tmp_path: Path) -> Path:
    (tmp_path / "workspace/box/.tmp").mkdir(parents=True)
    return tmp_path / "workspace/box"


@pytest.fixture(scope="module")
def denied_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        port = listener.getsockname()[1]
        commands.configure(commands.Configuration(denied_ports=frozenset({port})))
        yield port
    commands.configure(commands.Configuration())


IN_A_SUITE = [attack for attack in ATTACKS if attack not in ON_THE_PARENT]


@pytest.fixture
def victims(tmp_path: Path, denied_port: int) -> Iterator[list[str]]:
    """Things outside of the sandbox. Returns the definitions of variables for each attack."""
    end = threading.Event()
    waiting = threading.Thread(target=end.wait, daemon=True)
    waiting.start()
    common = f"worker, thread, port = {os.getpid()}, {waiting.native_id}, {denied_port}\n"
    with subprocess.Popen(
        [sys.executable, "-c", VICTIMS, tmp_path / "workspace", str(len(IN_A_SUITE))],
        preexec_fn=confine.drop_capabilities,  # noqa: PLW1509 (like a command's process)
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        yield [common + one for one in json.loads(process.stdout.readline())]
        end.set()
        process.send_signal(signal.SIGCONT)  # tracing stops it, where that succeeds
    assert process.returncode == 0


async def run(box: Path, *command: str, seconds: float = 30) -> commands.CommandResult:
    return await commands.run(command, box, environment={}, timeout=seconds, output_limit=100_000)


async def run_python(box: Path, program: str) -> commands.CommandResult:
    return await run(box, sys.executable, "-c", f"{PRELUDE}\n{program}")


def with_definitions(definitions: list[str]) -> list[tuple[str, str]]:
    """The attacks that a suite can try, as names and programs."""
    pairs = zip(IN_A_SUITE, definitions, strict=True)
    return [(attack.name, f"{variables}\n{attack.program}") for attack, variables in pairs]


async def test_attacks(kind: Kind, box: Path, victims: list[str]) -> None:
    open_here = {attack.name for attack in IN_A_SUITE if kind not in attack.stopped}
    results = await run_suite_here(box, PRELUDE, "", with_definitions(victims))
    assert successes(results) == open_here


NEVER_ALLOWED = frozenset(
    {
        # The kernel allows them to nobody without capabilities.
        *("make a device", "mount", "open a raw packet socket", "use bpf", "use userfaultfd"),
        *("measure the machine", "type into a terminal"),
        "make a file of 1 TB, without content",  # a limit stops it, not a wall
        "use an inherited descriptor",  # there is none
    }
)


def only_for_root() -> set[str]:
    """What this machine's kernel allows only to root."""
    names = {"signal the init"} if os.getuid() else set()
    yama = Path("/proc/sys/kernel/yama/ptrace_scope")
    if yama.exists() and yama.read_text() != "0\n":
        names |= {"trace another process", "read another process's memory"}
    return names


async def test_attacks_succeed_without_walls(
    box: Path, victims: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the walls that stop them, and not an error in an attack."""
    monkeypatch.setattr(commands, "wall", lambda: Wall(0, "", 0))
    # Not the worker itself, whose capabilities protect it if root runs the tests.
    given = [f"{variables}\nworker = thread = other" for variables in victims]
    tried = [one for one in with_definitions(given) if one[0] != "slow everybody down"]
    results = await run_suite_here(box, PRELUDE, "", tried)
    missed = {name: result.output for name, result in results.items() if not result.success}
    reasons = ("not implemented", "not supported")
    absent = {name for name, output in missed.items() if any(r in output for r in reasons)}
    assert set(missed) - absent - only_for_root() <= NEVER_ALLOWED, missed


@pytest.mark.parametrize("attack", ON_THE_PARENT, ids=lambda attack: attack.name)
async def test_attack_on_the_parent(
    attack: Attack, kind: Kind, box: Path, victims: list[str]
) -> None:
    done = await run_python(box, f"{victims[-1]}\n{attack.program}")
    output = done.output.decode()
    assert "cannot be confined" not in output
    assert ("REACHED" in output) == (kind not in attack.stopped), output
    if "REACHED" not in output:
        assert done.exit_code == 0 or "Error: [Errno" in output, output


async def test_ordinary_work(kind: Kind, box: Path, denied_port: int) -> None:
    script = """
import json, multiprocessing, os, socket, sqlite3, subprocess, tempfile, threading
tempfile.NamedTemporaryFile()
sqlite3.connect('db').execute('create table t (x)')
subprocess.run(['sh', '-c', 'echo sub > /dev/null'], check=True)
assert multiprocessing.Pool(2).map(abs, [-1]) == [1]
one, two = socket.socketpair()
server = socket.create_server(('127.0.0.1', 0))
socket.create_connection(server.getsockname())
child = subprocess.Popen(['sleep', '60'])
child.terminate()
assert child.wait() == -15
os.chmod('db', 0o700)
print(socket.getaddrinfo('localhost', 80)[0][4][1], os.getcwd())
"""
    (box / "script.py").write_text(script)
    done = await run(box, sys.executable, "script.py")
    assert done.output.decode() == f"80 {box}\n"
    # Before version 2, Landlock does not allow links to another folder.
    link = "cp" if kind is Kind.OLD else "ln"
    command = (
        "mkdir -p a/b && echo x > a/b/c && mv a d && "
        f"{link} d/b/c e && cat <(cat e) && rm -r d && "
        "yes | head -n 1; sleep 60 & kill %1; wait; ls /proc/self/fd > /dev/null; "
        "echo t > $TMPDIR/t; cat $TMPDIR/t; id -u"
    )
    done = await run(box, "bash", "-c", command)
    assert done.output.decode().split() == ["x", "y", "t", str(os.getuid())]


@pytest.mark.parametrize(
    "attack", ["rm -r .tmp", "rm -r .tmp; ln -s / .tmp", "rm -r .tmp; mkfifo .tmp"]
)
async def test_the_folder_for_temporary_files_comes_back(
    kind: Kind, box: Path, attack: str
) -> None:
    await run(box, "bash", "-c", attack)
    done = await run(box, "bash", "-c", "echo x > $TMPDIR/file && cat $TMPDIR/file")
    assert done.output == b"x\n"


PERSISTENT = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.environ.clear()
for fd in range(3): os.close(fd)
while True:
    open('clock', 'w').write(str(time.time()))
    time.sleep(0.01)
"""


async def still_runs(box: Path) -> bool:
    clock = box / "clock"
    before = clock.read_text() if clock.exists() else ""
    await asyncio.sleep(0.3)
    return before != (clock.read_text() if clock.exists() else "")


async def test_no_process_outlives_its_command(kind: Kind, box: Path) -> None:
    (box / "persistent.py").write_text(PERSISTENT)
    start = f"env -i setsid {sys.executable} persistent.py & sleep 0.5; cat clock"
    done = await run(box, "bash", "-c", start)
    assert done.exit_code == 0
    assert not await still_runs(box)
    # The same for a command that takes too long, and for one that is cancelled.
    done = await run(box, "bash", "-c", f"{start}; sleep 60", seconds=1)
    assert done.exit_code is None
    assert not await still_runs(box)
    (box / "clock").unlink()
    running = asyncio.create_task(run(box, "bash", "-c", f"{start}; sleep 60"))
    while not (box / "clock").exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not await still_runs(box)


async def test_killing_the_supervisor_frees_nobody(kind: Kind, box: Path) -> None:
    (box / "persistent.py").write_text(PERSISTENT)
    command = f"{sys.executable} persistent.py; sleep 0.3; kill -9 $PPID; sleep 60"
    await run(box, "bash", "-c", command, seconds=3)
    assert not await still_runs(box)
    own = [one for one in limits.list_processes() if one.parent == os.getpid()]
    assert not [one for one in own if one.ended]


STOP = "(while sleep 0.01; do kill -STOP $PPID; done) & sleep 0.3"
"""Stops the supervisor again and again."""

SIGNALLED = frozenset({Kind.PORTS, Kind.OLD, Kind.SECCOMP})
"""The walls behind which a command can signal its supervisor."""


async def test_stopping_the_supervisor_frees_nobody(
    kind: Kind, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind not in SIGNALLED:
        pytest.skip("a command cannot signal its supervisor")
    monkeypatch.setattr(commands, "END_SECONDS", 2)
    (box / "persistent.py").write_text(PERSISTENT)
    for stop in ("kill -STOP $PPID", STOP):
        started = time.monotonic()
        command = f"{sys.executable} persistent.py; sleep 0.3; {stop}; sleep 20"
        await run(box, "bash", "-c", command, seconds=2)
        assert time.monotonic() - started < 15
        assert not await still_runs(box)
        own = [one for one in limits.list_processes() if one.parent == os.getpid()]
        assert not own


async def test_limits_hold_if_the_supervisor_is_stopped(
    kind: Kind, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind not in SIGNALLED:
        pytest.skip("a command cannot signal its supervisor")
    monkeypatch.setattr(commands, "END_SECONDS", 2)
    limit(monkeypatch, tasks=40)
    for stop in ("kill -STOP $PPID", STOP):
        started = time.monotonic()
        program = f"{stop}; for n in {{1..60}}; do sleep 20 & done; wait"
        done = await run(box, "bash", "-c", program, seconds=20)
        assert "more than 40 processes" in done.excess
        assert time.monotonic() - started < 15


async def test_nothing_outlives_the_worker(kind: Kind, box: Path) -> None:
    (box / "persistent.py").write_text(PERSISTENT)
    code = (
        "import asyncio, sys; from pathlib import Path; from graphton import commands\n"
        "from graphton.wall import Wall\n"
        f"wall = Wall{WALLS[kind].landlock, WALLS[kind].architecture, WALLS[kind].namespaces}\n"
        "commands.wall = lambda: wall\n"
        f"run = commands.run(['bash', '-c', '{sys.executable} persistent.py; sleep 60'],\n"
        f"    Path({str(box)!r}), environment={{}}, timeout=60, output_limit=9)\n"
        "asyncio.run(run)\n"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    while not (box / "clock").exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0.01)
    worker.kill()
    await worker.wait()
    await asyncio.sleep(0.5)
    assert not await still_runs(box)


def limit(monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
    monkeypatch.setattr(limits, "Limits", lambda **_: ORIGINAL_LIMITS(**values))


ORIGINAL_LIMITS = limits.Limits

BOMB = (
    "bomb() { (($1)) || { sleep 60; return; }; bomb $(($1 - 1)) & bomb $(($1 - 1)) & wait; }; "
    "bomb 8"
)
"""A fork bomb of at most 1000 processes."""


EXCEEDING = [
    # They end by themselves: a fork bomb that wins would need all processes of the machine.
    ("tasks", BOMB, "more than 60 processes"),
    ("tasks", "for n in {1..300}; do sleep 60 & done; wait", "more than 60 processes"),
    ("cpu_seconds", "for n in 1 2 3 4; do (while :; do :; done) & done; wait", "more than 2 s"),
    ("memory", "python -c 'x = b\"x\" * (200 << 20)'", "MemoryError"),
    (
        "memory",
        'for n in 1 2 3 4 5; do python -c \'x = b"x" * (60 << 20); import time; '
        "time.sleep(60)' & done; wait",
        "more than 160 MiB",
    ),
    ("disk", "for n in {1..60}; do head -c 10M /dev/zero > $n; sleep 0.2; done", "100 MiB"),
    ("disk", "head -c 1G /dev/zero > file", "File size limit exceeded"),
]
"""Limits, programs that exceed them, and words that the worker or the program then says."""

SMALL = {"tasks": 60, "cpu_seconds": 2, "memory": 160 << 20, "disk": 100 << 20}


@pytest.mark.parametrize(("name", "program", "words"), EXCEEDING)
async def test_what_exceeds_a_limit_is_ended(
    kind: Kind, box: Path, monkeypatch: pytest.MonkeyPatch, name: str, program: str, words: str
) -> None:
    if kind not in (Kind.NAMESPACES, Kind.LANDLOCK, Kind.OLD):
        pytest.skip("the limits do not depend on the other walls")
    limit(monkeypatch, **{name: SMALL[name]})
    started = time.monotonic()
    program = program.replace("python", sys.executable)
    done = await run(box, "bash", "-c", program, seconds=40)
    assert time.monotonic() - started < 30
    said = f"{done.excess} {done.output.decode()} exit code {done.exit_code}"
    assert words in said
    assert done.exit_code != 0
    # The worker goes on.
    limit(monkeypatch, tasks=60)
    assert (await run(box, "echo", "next")).output == b"next\n"


def tool_of(folder: Folder, account: limits.Account) -> Callable[[str], Awaitable[str]]:
    tool = next(t for t in SandboxTools(folder, account=account).all if t.name == "run_command")

    async def call(command: str) -> str:
        try:
            return await tool.call({"command": command})
        except ToolError as error:
            return str(error)

    return call


BUSY = f"{sys.executable} -c 'import time\nwhile time.process_time() < 1: pass'"
"""Uses one second of processor time."""


async def test_the_processor_time_of_all_commands_counts(kind: Kind, box: Path) -> None:
    account = limits.Account(limits.Limits(cpu_seconds=4))
    with Folder(box) as folder:
        call = tool_of(folder, account)
        assert await call(f"{BUSY} & {BUSY} & wait; echo ended") == "ended\n"
        assert 1.9 < account.cpu_seconds < 3.5
        said = await call("while :; do :; done")
        assert "[ended because the commands of this execution together used more than 4 s" in said
        said = await call("echo x")
        assert "cannot be started: the commands of this execution together used more th" in said
    # It is the limit of one execution.
    assert (await run(box, "echo", "next")).output == b"next\n"


async def test_the_processor_time_of_short_commands_counts(kind: Kind, box: Path) -> None:
    """The worker counts five times a second. The supervisor reports what that misses."""
    account = limits.Account()
    short = f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.1: pass'"
    with Folder(box) as folder:
        call = tool_of(folder, account)
        for n in range(1, 4):
            await call(short)
            assert account.cpu_seconds > 0.1 * n


async def test_the_processor_time_counts_if_the_supervisor_is_killed(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "wall", lambda: WALLS[Kind.SECCOMP])
    account = limits.Account()
    with Folder(box) as folder:
        await tool_of(folder, account)(f"{BUSY}; kill -9 $PPID; sleep 9")
    assert account.cpu_seconds > 0.4


async def test_many_short_commands_cannot_fill_the_sandbox(kind: Kind, box: Path) -> None:
    if kind not in (Kind.NAMESPACES, Kind.LANDLOCK):
        pytest.skip("the limits do not depend on the other walls")
    account = limits.Account(limits.Limits(disk=100 << 20))
    with Folder(box) as folder:
        call = tool_of(folder, account)
        write = "head -c 30M /dev/zero > {} && echo written"
        said = [await call(write.format(n)) for n in range(3)]
        assert said == ["written\n"] * 3
        # $TMPDIR counts too, and /tmp where it is the command's own.
        said = [await call(write.format(f"$TMPDIR/{n}")) for n in range(4)]
        assert "[the sandbox has more than 100 MiB: remove files; until then" in said[0]
        assert all("commands cannot write files larger than 64 KiB" in text for text in said)
        assert "written" not in "".join(said[1:])
        size = sum(path.stat().st_size for path in box.rglob("*") if path.is_file())
        assert size < 130 << 20
        assert await call("rm $TMPDIR/[0-9]* && echo x > small && cat small") == "x\n"
        assert await call(write.format(3).replace("30M", "5M")) == "written\n"


async def test_the_command_that_started_last_is_ended_for_the_disk(box: Path) -> None:
    account = limits.Account(limits.Limits(disk=100 << 20))
    write = "for n in {1..60}; do head -c 10M /dev/zero > $n; sleep 0.2; done"
    with Folder(box) as folder:
        call = tool_of(folder, account)
        first = asyncio.ensure_future(call("while [ ! -e ended ]; do sleep 0.1; done; echo first"))
        await asyncio.sleep(0.5)
        assert "[ended because the sandbox had more than 100 MiB" in await call(write)
        await asyncio.sleep(1.5)  # another measurement
        (box / "ended").touch()
        assert (await first).startswith("first\n")
    assert account.running == []


async def test_background_commands_count_together(box: Path) -> None:
    account = limits.Account(limits.Limits(tasks=20))
    with Folder(box) as folder:
        call = tool_of(folder, account)
        sleeping = "for n in {1..11}; do sleep 8 & done; wait; echo large"
        started = time.monotonic()
        said = await asyncio.gather(call(sleeping), call("sleep 3; echo small"), call(sleeping))
        assert time.monotonic() - started < 60
    ended = [text for text in said if "execution together had more than 20 processes" in text]
    assert said[1] == "small\n"
    assert len(ended) == 1
    assert said.count("large\n") == 1


async def test_the_model_is_told_which_limit_ended_a_command(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, tasks=5)
    with Folder(box) as folder:
        tool = next(t for t in SandboxTools(folder, {}).all if t.name == "run_command")
        command = "for n in 1 2 3 4 5 6 7 8; do sleep 60 & done; wait"
        with pytest.raises(ToolError, match=r"\[ended because it had more than 5 processes"):
            await tool.call({"command": command})


async def test_isolation_can_be_required(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    required = commands.Configuration(isolation=Isolation.REQUIRE)
    monkeypatch.setattr(commands, "_configuration", required)
    monkeypatch.setattr(commands, "wall", lambda: Wall(0, "", 0, "Operation not permitted"))
    with Folder(box) as folder:
        tool = next(t for t in SandboxTools(folder, {}).all if t.name == "run_command")
        with pytest.raises(ToolError, match="SANDBOX_ISOLATION is `require`, but neither"):
            await tool.call({"command": "true"})
    if MACHINE.missing:
        return
    monkeypatch.setattr(commands, "wall", lambda: MACHINE)
    assert (await run(box, "echo", "hi")).output == b"hi\n"


def test_what_is_required() -> None:
    assert Wall(7, "x86_64", 0).missing == ""
    assert Wall(0, "x86_64", MOUNTS).missing == ""
    assert Wall(0, "x86_64", 0).missing == "neither Landlock nor a mount namespace restricts files"
    assert Wall(7, "", MOUNTS).missing == "no seccomp filter restricts system calls"


def test_what_the_log_says() -> None:
    assert Wall(7, "x86_64", MOUNTS | PROCESSES).describe() == (
        "namespaces (user, mount, IPC, PID), Landlock 7, seccomp"
    )
    assert Wall(0, "", 0, "unshare: Operation not permitted").describe() == (
        "no namespaces (unshare: Operation not permitted), no Landlock, no seccomp"
    )


def test_the_filter_knows_this_architecture() -> None:
    assert seccomp.architecture() == MACHINE.architecture


@pytest.mark.parametrize(
    ("landlock", "namespaces", "allowed"),
    [
        (6, confine.NEW_MOUNTS, True),
        (5, confine.NEW_MOUNTS, False),
        (5, confine.NEW_MOUNTS | confine.NEW_NETWORK, True),
        (6, 0, False),
    ],
)
def test_unix_sockets_need_walls_for_files_and_for_abstract_ones(
    landlock: int, namespaces: int, allowed: bool, tmp_path: Path
) -> None:
    wall = Wall(landlock, "x86_64", namespaces)
    own_mounts = bool(namespaces)
    policy = seccomp.Policy((), landlock, own_mounts, own_ipc=False, unix_sockets=allowed)
    expected = seccomp.assemble(policy, "x86_64").hex()
    assert json.loads(wall.plan(tmp_path))["filter"] == expected


def test_the_documentation_has_the_table() -> None:
    page = Path(__file__).parent.parent.parent / "docs/docker.md"
    assert table() in page.read_text()


# The same from an execution, also in the image.


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    root = tmp_path / "workspace"
    open_to_everyone(tmp_path)
    async with start_stack(root) as stack:
        yield stack


def kind_of(line: str) -> Kind:
    """The kind of wall that a line describes."""
    if "(user, mount, IPC, PID)" in line:
        return Kind.NAMESPACES
    if "(user, mount, IPC)" in line:
        return Kind.MOUNTS
    version = int((re.findall(r"Landlock (\d+)", line) or ["0"])[0])
    assert "seccomp" in line
    assert "no seccomp" not in line
    for least, kind in ((6, Kind.LANDLOCK), (4, Kind.PORTS), (1, Kind.OLD)):
        if version >= least:
            return kind
    return Kind.SECCOMP


def shell(command: str) -> str:
    """A message that lets the scripted model run a command as it is."""
    encoded = base64.b64encode(command.encode()).decode()
    return f"run: echo {encoded} | base64 -d > script; bash script; echo ended"


async def is_healthy(runner: Runner) -> bool:
    if isinstance(runner, ContainerRunner):
        probing = ("/app/.venv/bin/python", "-I", "-S", "/app/worker/probe.py")
        try:
            await runner.engine("exec", runner.name, *probing)
        except AssertionError:
            return False
        return True
    return probe.check(runner.environment["AGENT_RUNNER_HEALTH_FILE"])[0]


@contextlib.asynccontextmanager
async def victims_beside(runner: Runner, root: Path) -> AsyncIterator[list[str]]:
    """What `victims` makes, where the worker runs: in its container, if it has one."""
    words = ["-c", VICTIMS, str(root), str(len(IN_A_SUITE))]
    if isinstance(runner, ContainerRunner):
        words = [*engine_command(), "exec", "-i", runner.name, "python", *words]
    else:
        words = [sys.executable, *words]
    process = await asyncio.create_subprocess_exec(
        *words,
        env=ORIGINAL_ENVIRONMENT,
        preexec_fn=None if ENGINE else confine.drop_capabilities,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    assert process.stdin
    assert process.stdout
    pid = await runner.pid()
    common = f"worker, thread = {pid}, {await runner.thread()}\n"
    try:
        yield [common + one for one in json.loads(await process.stdout.readline())]
    finally:
        process.stdin.close()
        code = await process.wait()
    assert code == 0


@pytest.mark.image
@needs_temporal
async def test_attacks_from_an_execution(
    stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    runner = await stack.runner()
    (line,) = (line for line in runner.log if "starting" in line and "Landlock" in line)
    root = stack.sandbox_in_worker("x").parent
    port = f"port = {TEMPORAL.rpartition(':')[2]}\n"
    async with victims_beside(runner, root) as victims:
        results = await run_suite(stack, runner, PRELUDE, port, with_definitions(victims))
    check_results(kind_of(line), results, record_property)
    assert answer(await stack.run("run: echo next", "next")) == "The command says: next\n"
    assert await is_healthy(runner)
    assert await runner.end() == 0


def check_results(
    kind: Kind, results: dict[str, Result], record_property: Callable[[str, object], None]
) -> None:
    reached = successes(results)
    assert reached == {attack.name for attack in IN_A_SUITE if kind not in attack.stopped}
    record_property(
        f"{kind}: attacks", f"{len(results)}, of which {len(reached)} succeed: {sorted(reached)}"
    )


def run_in_the_image(program: str, given: object) -> str:
    """Run a Python program in a container, with `given` as JSON. Returns what it prints."""
    done = subprocess.run(
        [*engine_command(), "run", "--rm", "-i", *RUN_OPTIONS, IMAGE, "python", "-c", program],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ATTACKS_IN_THE_IMAGE = """
import asyncio, json, os, socket, subprocess, sys, threading
from pathlib import Path
from graphton import commands
prelude, suite, victims, attacks = json.load(sys.stdin)
box = Path('/workspace/box')
(box / '.tmp').mkdir(parents=True)
waiting = threading.Thread(target=threading.Event().wait, daemon=True)
waiting.start()
server = socket.create_server(('127.0.0.1', 0))
port = server.getsockname()[1]
commands.configure(commands.Configuration(denied_ports=frozenset({port})))
process = subprocess.Popen(
    ['python', '-c', victims, '/workspace', str(len(attacks))],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
)
definitions = json.loads(process.stdout.readline())
common = f'worker, thread, port = {os.getpid()}, {waiting.native_id}, {port}\\n'
programs = [(n, f'{common}{d}\\n{p}') for (n, p), d in zip(attacks, definitions)]
(box / 'suite.py').write_text(suite)
(box / 'given').write_text(json.dumps([prelude, '', programs]))
print(commands.wall().describe())
words = ['bash', '-c', 'python suite.py < given 2>&1']
run = commands.run(words, box, environment={}, timeout=120, output_limit=100_000)
print(asyncio.run(run).output.decode())
"""


@pytest.mark.image
@pytest.mark.skipif(not ENGINE, reason="for a container")
def test_attacks_without_a_worker(record_property: Callable[[str, object], None]) -> None:
    """For an engine whose containers cannot reach Temporal on this machine: rootless Docker."""
    attacks = [(one.name, one.program) for one in IN_A_SUITE]
    printed = run_in_the_image(ATTACKS_IN_THE_IMAGE, [PRELUDE, SUITE, VICTIMS, attacks])
    wall, _, output = printed.partition("\n")
    check_results(kind_of(wall), parse_suite(output, attacks), record_property)


LIMITS_IN_THE_IMAGE = """
import asyncio, json, sys
from pathlib import Path
from graphton import commands, limits
async def main():
    for number, (name, value, program) in enumerate(json.load(sys.stdin)):
        box = Path(f'/workspace/box-{number}')
        (box / '.tmp').mkdir(parents=True)
        account = limits.Account(limits.Limits(**{name: value}))
        done = await commands.run(
            ['bash', '-c', program],
            box,
            environment={},
            timeout=40,
            output_limit=10_000,
            account=account,
        )
        said = f'{done.excess} {done.output.decode()} exit code {done.exit_code}'
        print(json.dumps([said, done.exit_code]), flush=True)
asyncio.run(main())
"""


@pytest.mark.image
@pytest.mark.skipif(not ENGINE, reason="for a container")
def test_limits_in_the_image() -> None:
    given = [(name, SMALL[name], program) for name, program, _ in EXCEEDING]
    printed = run_in_the_image(LIMITS_IN_THE_IMAGE, given)
    results = [json.loads(line) for line in printed.splitlines()]
    for (said, exit_code), (_, tried, words) in zip(results, EXCEEDING, strict=True):
        assert words in said, tried
        assert exit_code != 0, tried


ODD_NAMES = r"""
import os
names = (b'new\nline', b'\xff\xfe', '\u202egnp.exe'.encode(), b'-rf', b'$(id)', b'\x1b[31m', b'\\')
for name in (*names, b'x' * 255):
    os.makedirs(b'odd/' + name)
    open(b'odd/' + name + b'/file', 'w').write('needle')
os.symlink(b'\xff', b'odd/link')
"""


@pytest.mark.image
@needs_temporal
async def test_odd_names_break_nothing(stack: Stack) -> None:
    runner = await stack.runner()
    python = sys.executable if type(runner) is Runner else "python"
    made = await stack.run(shell(f"{python} - <<'END'\n{ODD_NAMES}\nEND"), "odd")
    assert answer(made) == "The command says: ended\n"
    for tool, arguments, words in (
        ("list_files", {"path": "odd"}, "gnp.exe"),
        ("search_files", {"pattern": "needle"}, "needle"),
        ("run_command", {"command": "ls -R odd"}, "gnp.exe"),
        ("run_command", {"command": "rm -r odd && echo removed"}, "removed"),
    ):
        message = f"!tool {tool} {json.dumps(arguments)}\n!say {{result}}"
        assert words in answer(await stack.run(message, "odd"))
    assert await is_healthy(runner)
    assert await runner.end() == 0


@pytest.mark.image
@needs_temporal
async def test_chmod_ends_and_stops_nothing(stack: Stack) -> None:
    runner = await stack.runner()
    root = stack.sandbox_in_worker("x").parent
    health = Path(runner.environment.get("AGENT_RUNNER_HEALTH_FILE", ""))
    if isinstance(runner, ContainerRunner):
        health = Path("/tmp/agent-runner/health.json")
    waiting = await stack.create("run: sleep 4; echo done", "during")
    await until((stack.sandbox("during") / ".tmp").exists)
    names = [
        health,
        health.parent,
        *(root / name for name in (".locks", ".private", "thread-during")),
    ]
    attack = " ".join(f"chmod 0 {name};" for name in (*names, root))
    await stack.run(shell(attack), "chmod")
    for session in ("after", "chmod"):
        assert answer(await stack.run("run: echo next", session)) == "The command says: next\n"
    assert answer(await stack.ended(waiting)) == "The command says: done\n"
    for _ in range(40):
        if await is_healthy(runner):
            break
        await asyncio.sleep(0.5)
    assert await is_healthy(runner)
    assert await runner.end() == 0


@pytest.mark.image
@needs_temporal
@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (BOMB, "ended because it had more than 256 process"),
        ("for n in {1..600}; do sleep 60 & done; wait", "ended because it had more than 256"),
        ("env -i setsid sleep 1000 & env -i setsid nohup sleep 1000 & sleep 0.5", ""),
        ("head -c 100G /dev/zero | tail -c 100G", ""),
    ],
    ids=["fork bomb", "processes", "daemons", "memory"],
)
async def test_what_a_command_takes_ends_with_it(stack: Stack, attack: str, said: str) -> None:
    runner = await stack.runner()
    message = f"!tool run_command {json.dumps({'command': attack})}\n!say x"
    execution_id = await stack.create(message)
    for n in range(5):
        assert answer(await stack.run(f"run: echo {n}", "other")) == f"The command says: {n}\n"
    status = await stack.ended(execution_id, 60)
    assert said in status.tool_calls[0].error, status
    count = "ls /proc | grep -c '^[0-9]'"
    if isinstance(runner, ContainerRunner):
        left = int(await runner.engine("exec", runner.name, "sh", "-c", count))
        assert left <= 7  # the init, the worker, and those that count
    assert await is_healthy(runner)
    assert await runner.end() == 0

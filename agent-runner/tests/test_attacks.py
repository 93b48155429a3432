"""Attacks every combination of walls, with what this machine's kernel has.

An older kernel is one whose newer features are not used. `tests/attacks.py` has the table.
"""

import asyncio
import base64
import ctypes
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from graphton import commands, confine, limits, seccomp
from graphton.files import Folder
from graphton.isolation import Isolation
from graphton.tools import SandboxTools, ToolError
from graphton.wall import Wall, find_wall
from tests.attacks import ATTACKS, PRELUDE, SUITE, Attack, Kind, table
from tests.runners import IMAGE_USER, ContainerRunner, Runner, until
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


@pytest.fixture
def victims(tmp_path: Path, denied_port: int) -> Iterator[str]:
    """Things outside of the sandbox. Returns the definitions of their names for an attack."""
    outside = tmp_path / "workspace/outside"
    outside.mkdir()
    (outside / "secret").write_text("not yours")
    other = subprocess.Popen(
        ["sleep", "60"],
        preexec_fn=confine.drop_capabilities,  # noqa: PLW1509 (like a command's process)
        cwd=outside,
    )
    thread = threading.Event()
    waiting = threading.Thread(target=thread.wait)
    waiting.start()
    libc = ctypes.CDLL(None, use_errno=True)
    memory_key = 0x47525054 + os.getpid()
    memory = libc.shmget(memory_key, 4096, 0o1600)
    assert memory >= 0
    named, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    shared = Path(f"/dev/shm/attack-{os.getpid()}")
    shared.write_text("x")
    try:
        with named, abstract:
            os.chdir(outside)  # the path of a socket has at most 107 characters
            named.bind("socket")
            named.listen()
            abstract.bind(f"\0{outside}"[:107])
            abstract.listen()
            yield (
                f"outside, port, memory_key = {str(outside)!r}, {denied_port}, {memory_key}\n"
                f"worker, thread, other = {os.getpid()}, {waiting.native_id}, {other.pid}\n"
            )
    finally:
        os.chdir(Path(__file__).parent.parent)
        shared.unlink()
        libc.shmctl(memory, 0, None)
        thread.set()
        other.kill()
        other.wait()
        outside.chmod(0o700)


async def run(box: Path, *command: str, seconds: float = 30) -> commands.CommandResult:
    return await commands.run(command, box, environment={}, timeout=seconds, output_limit=100_000)


async def run_python(box: Path, program: str) -> commands.CommandResult:
    return await run(box, sys.executable, "-c", f"{PRELUDE}\n{program}")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_attack(attack: Attack, kind: Kind, box: Path, victims: str) -> None:
    done = await run_python(box, f"{victims}\n{attack.program}")
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


@pytest.mark.parametrize(
    ("name", "program", "words"),
    [
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
        ("disk", "head -c 1G /dev/zero > file", "exit code"),
    ],
)
async def test_what_exceeds_a_limit_is_ended(
    kind: Kind, box: Path, monkeypatch: pytest.MonkeyPatch, name: str, program: str, words: str
) -> None:
    if kind not in (Kind.NAMESPACES, Kind.LANDLOCK, Kind.OLD):
        pytest.skip("the limits do not depend on the other walls")
    values = {"tasks": 60, "cpu_seconds": 2, "memory": 160 << 20, "disk": 100 << 20}
    limit(monkeypatch, **{name: values[name]})
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


def test_the_documentation_has_the_table() -> None:
    page = Path(__file__).parent.parent.parent / "docs/docker.md"
    assert table() in page.read_text()


# The same from an execution, also in the image.


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    root = tmp_path / "workspace"
    for path in (tmp_path, *tmp_path.parents[:2]):  # not /tmp itself
        path.chmod(0o755)
    async with start_stack(root) as stack:
        yield stack


def kind_of(runner: Runner) -> Kind:
    """What the worker says in its first log line."""
    (line,) = (line for line in runner.log if "starting" in line and "Landlock" in line)
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


@pytest.mark.image
@needs_temporal
async def test_attacks_from_an_execution(
    stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    runner = await stack.runner()
    kind, pid = kind_of(runner), await runner.pid()
    outside = stack.root / "outside"
    outside.mkdir()
    (outside / "secret").write_text("not yours")
    if isinstance(runner, ContainerRunner):
        for path in (outside, outside / "secret"):
            os.chown(path, IMAGE_USER, IMAGE_USER)
    seen = stack.sandbox_in_worker("x").parent / "outside"
    definitions = (
        f"outside, port, memory_key = {str(seen)!r}, {TEMPORAL.rpartition(':')[2]}, 1\n"
        f"worker, thread, other = {pid}, {pid}, {pid}\n"
    )
    # The parent of the suite's processes is the suite.
    attacks = [(one.name, one.program) for one in ATTACKS if "getppid" not in one.program]
    given = json.dumps([PRELUDE, definitions, attacks])
    encoded = [base64.b64encode(text.encode()).decode() for text in (SUITE, given)]
    python = sys.executable if type(runner) is Runner else "python"
    status = await stack.run(
        f"run: echo {encoded[0]} | base64 -d > suite.py; "
        f"echo {encoded[1]} | base64 -d | {python} suite.py 2>&1",
        "attack",
    )
    lines = [line.split("\t") for line in answer(status).splitlines() if "\t" in line]
    results = {line[0].removeprefix("The command says: "): line[1:] for line in lines}
    assert set(results) == {name for name, _ in attacks}, answer(status)
    reached = {name for name, (success, _) in results.items() if success == "True"}
    assert reached <= {attack.name for attack in ATTACKS if kind not in attack.stopped}
    assert {code for _, code in results.values()} == {"0"}, results
    record_property(
        f"{kind}: attacks", f"{len(results)}, of which {len(reached)} succeed: {reached}"
    )
    assert answer(await stack.run("run: echo next", "next")) == "The command says: next\n"
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

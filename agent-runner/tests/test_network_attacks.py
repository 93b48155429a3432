"""Attacks the policies for the network, with what this machine's kernel has.

`tests/network_attacks.py` has the attacks.
"""

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from graphton import commands, confine
from graphton.files import Folder
from graphton.network import Network, parse_rules
from graphton.proxy import Allowlist
from graphton.tools import SandboxTools, ToolError
from graphton.wall import Wall, find_wall, with_network
from tests.attack_suite import Result, run_suite, run_suite_here, successes
from tests.folders import open_to_everyone
from tests.network_attacks import ATTACKS, DIRECT, PRELUDE, Barrier, NetworkAttack, table
from tests.ports import free_port
from tests.stack import Stack, needs_temporal, start_stack

MACHINE = with_network(find_wall())

WALLS = {
    Barrier.OPEN: replace(MACHINE, namespaces=0),
    Barrier.NONE: MACHINE,
    Barrier.NONE_SECCOMP: replace(MACHINE, namespaces=0),
    Barrier.LIST: MACHINE,
    Barrier.LIST_LANDLOCK: replace(MACHINE, namespaces=0),
}
NETWORKS = {
    Barrier.OPEN: Network.OPEN,
    Barrier.NONE: Network.NONE,
    Barrier.NONE_SECCOMP: Network.NONE,
    Barrier.LIST: Network.ALLOWLIST,
    Barrier.LIST_LANDLOCK: Network.ALLOWLIST,
}


class Services:
    """Services on the loopback: one that the policy allows, and some that it does not."""

    def __init__(self) -> None:
        self._exits = contextlib.ExitStack()
        self.hosts: list[str] = []
        self.abstract = f"attack-{os.getpid()}"
        self.allowed = self._serve_http()
        self.denied, self.udp = self._serve_denied()
        self.served = free_port()
        unix = self._exits.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(f"\0{self.abstract}")
        unix.listen()

    @property
    def definitions(self) -> str:
        names = ("allowed", "denied", "udp", "served", "abstract")
        return "".join(f"{name} = {getattr(self, name)!r}\n" for name in names)

    @property
    def rules(self) -> str:
        local = f"localhost:{self.denied},.localhost:{self.denied}"
        return f"127.0.0.1:{self.allowed},{local}"

    def close(self) -> None:
        self._exits.close()

    def _serve_http(self) -> int:
        services = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                services.hosts.append(self.headers["Host"])
                self.send_response(302 if self.path == "/redirect" else 200)
                self.send_header("Location", f"http://127.0.0.1:{services.denied}/")
                self.end_headers()
                self.wfile.write(b"WELCOME")

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._exits.callback(server.server_close)
        self._exits.callback(server.shutdown)
        return server.server_port

    def _serve_denied(self) -> tuple[int, int]:
        stream = socket.create_server(("127.0.0.1", 0))
        port = stream.getsockname()[1]
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", 0))
        udp = datagrams.getsockname()[1]
        streams, others = [stream], [datagrams]
        with contextlib.suppress(OSError):
            streams.append(socket.create_server(("::1", port), family=socket.AF_INET6))
            others.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            others[-1].bind(("::1", udp))
        self.has_ipv6 = len(streams) > 1

        def accept(listener: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(b"SERVICE")

        def echo(one: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while (received := one.recvfrom(100))[0]:  # empty after `_shut_down`
                    one.sendto(*received)

        for work, sockets in ((accept, streams), (echo, others)):
            for one in sockets:
                threading.Thread(target=work, args=(one,), daemon=True).start()
                self._exits.callback(one.close)
                self._exits.callback(_shut_down, one)
        return port, udp


def _shut_down(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    services = Services()
    yield services
    services.close()


@pytest.fixture
def box(tmp_path: Path) -> Path:
    (tmp_path / "workspace/box/.tmp").mkdir(parents=True)
    return tmp_path / "workspace/box"


def configure(barrier: Barrier, rules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wall, network = WALLS[barrier], NETWORKS[barrier]
    if barrier in {Barrier.NONE, Barrier.LIST} and not wall.own_network:
        pytest.skip(f"this machine has only: {wall.describe()}")
    if wall.missing_for(network):
        pytest.skip(f"this machine has only: {wall.describe()}")
    allowlist = Allowlist(rules=parse_rules(rules))
    given = commands.Configuration(network=network, allowlist=allowlist)
    monkeypatch.setattr(commands, "_configuration", given)
    monkeypatch.setattr(commands, "wall", lambda: wall)
    monkeypatch.setattr(commands, "_port_ruleset", lambda: None)


@pytest.fixture(params=list(Barrier))
def barrier(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, services: Services
) -> Barrier:
    chosen = Barrier(request.param)
    configure(chosen, services.rules, monkeypatch)
    return chosen


async def run_python(box: Path, program: str, **environment: str) -> commands.CommandResult:
    return await commands.run(
        [sys.executable, "-c", f"{PRELUDE}\n{program}"],
        box,
        environment=environment,
        timeout=30,
        output_limit=100_000,
    )


def connect_to(port: int, stop: threading.Event) -> None:
    while not stop.wait(0.05):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            pass


@contextlib.contextmanager
def connecting(port: int) -> Iterator[None]:
    """Connect to a port of the loopback again and again."""
    stop = threading.Event()
    thread = threading.Thread(target=connect_to, args=(port, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def possible(barrier: Barrier, services: Services) -> list[NetworkAttack]:
    """The attacks that can be tried on this machine under this policy."""
    impossible = set() if services.has_ipv6 else {"connect by IPv6", "send a datagram by IPv6"}
    if [name for _, name in socket.if_nameindex()] == ["lo"]:
        impossible.add("list the machine's network devices")
    # Without a policy, there is no proxy.
    tried = DIRECT if barrier is Barrier.OPEN else ATTACKS
    return [attack for attack in tried if attack.name not in impossible]


async def check_attacks(barrier: Barrier, box: Path, services: Services, *, own_pids: bool) -> None:
    attacks = [(attack.name, attack.program) for attack in possible(barrier, services)]
    with connecting(services.served):
        results = await run_suite_here(box, PRELUDE, services.definitions, attacks)
    check_results(barrier, results, own_pids=own_pids)


def check_results(barrier: Barrier, results: Mapping[str, Result], *, own_pids: bool) -> None:
    tried = [attack for attack in ATTACKS if attack.name in results]
    is_open = {one.name for one in tried if not one.is_stopped(barrier, own_pids=own_pids)}
    assert successes(results) == is_open
    # It fails because it is stopped, and not because the attack itself is wrong.
    for name in {attack.name for attack in DIRECT} & set(results) - is_open:
        assert "stopped: " in results[name].output or "nothing " in results[name].output, name


async def test_attacks(barrier: Barrier, box: Path, services: Services) -> None:
    await check_attacks(barrier, box, services, own_pids=WALLS[barrier].own_pids)


@pytest.mark.parametrize("barrier", [Barrier.NONE, Barrier.LIST])
async def test_attacks_without_a_pid_namespace(
    barrier: Barrier, box: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(barrier, services.rules, monkeypatch)
    wall = replace(MACHINE, namespaces=MACHINE.namespaces & ~confine.NEW_PIDS)
    monkeypatch.setattr(commands, "wall", lambda: wall)
    await check_attacks(barrier, box, services, own_pids=False)


LISTED_WORK = """
assert b'WELCOME' in ask(f'GET http://127.0.0.1:{allowed}/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
tunnel = f'CONNECT 127.0.0.1:{allowed} HTTP/1.1\\r\\n\\r\\nGET / HTTP/1.0\\r\\n\\r\\n'
assert b'WELCOME' in ask(tunnel)
answer = ask(f'GET http://127.0.0.1:{denied}/ HTTP/1.1\\r\\n\\r\\n')
assert b'AGENT_NETWORK_ALLOW' in answer, answer
for name in ('HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'NO_PROXY'):
    assert os.environ[name] == os.environ[name.lower()]
assert os.environ['ALL_PROXY'] == os.environ['HTTP_PROXY']
print('done')
"""


async def test_what_is_listed_can_be_reached(
    box: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for barrier in (Barrier.LIST, Barrier.LIST_LANDLOCK):
        if WALLS[barrier].missing_for(Network.ALLOWLIST):
            continue
        configure(barrier, services.rules, monkeypatch)
        services.hosts.clear()
        # An execution's own variables do not lead past the proxy.
        done = await run_python(
            box, services.definitions + LISTED_WORK, HTTP_PROXY="http://127.0.0.1:1", no_proxy="*"
        )
        assert done.output == b"done\n"
        assert services.hosts[0] == f"127.0.0.1:{services.allowed}"


async def test_commands_have_their_own_loopback(
    box: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(Barrier.LIST, services.rules, monkeypatch)
    program = """
server = socket.create_server(('127.0.0.1', 0))
socket.create_connection(server.getsockname())
assert os.environ['NO_PROXY'] == 'localhost,127.0.0.1,::1'
print('served')
"""
    done = await asyncio.gather(*(run_python(box, program) for _ in range(3)))
    assert [one.output for one in done] == [b"served\n"] * 3


async def test_commands_work_without_a_network(barrier: Barrier, box: Path) -> None:
    program = """
import asyncio, multiprocessing, socket, subprocess
asyncio.run(asyncio.sleep(0))
assert multiprocessing.Pool(2).map(abs, [-1]) == [1]
socket.socketpair()
subprocess.run(['true'], check=True)
"""
    done = await run_python(box, program)
    assert (done.exit_code, done.output) == (0, b"")


async def test_what_stays_open_with_landlock(
    box: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landlock restricts no addresses: another machine with the proxy's port is reached."""
    configure(Barrier.LIST_LANDLOCK, services.rules, monkeypatch)
    program = """
port = urllib.parse.urlsplit(os.environ['HTTP_PROXY']).port
open('new', 'w').write(str(port)); os.rename('new', 'port')
while not os.path.exists('go'): time.sleep(0.01)
read(socket.create_connection(('127.0.0.2', port), 5))
"""
    running = asyncio.create_task(run_python(box, services.definitions + program))
    while not (box / "port").exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0.01)
    with socket.create_server(("127.0.0.2", int((box / "port").read_text()))) as listener:
        (box / "go").touch()
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection:
            connection.sendall(b"SERVICE")
    assert b"REACHED" in (await running).output


@pytest.mark.parametrize(
    ("wall", "network", "missing"),
    [
        (Wall(7, "", 0), Network.NONE, "no seccomp filter restricts sockets"),
        (Wall(7, "", confine.NEW_NETWORK), Network.NONE, "no seccomp filter restricts sockets"),
        (Wall(0, "x86_64", 0), Network.NONE, ""),
        (Wall(3, "x86_64", 0), Network.ALLOWLIST,
         "neither a network namespace nor Landlock 4 (Linux 6.7 or newer) restricts connections"),
        (Wall(4, "x86_64", 0), Network.ALLOWLIST, ""),
        (Wall(0, "x86_64", confine.NEW_NETWORK), Network.ALLOWLIST, ""),
        (Wall(0, "", 0), Network.OPEN, ""),
    ],
)  # fmt: skip
async def test_without_the_walls_of_a_policy_no_command_runs(
    wall: Wall, network: Network, missing: str, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wall.missing_for(network) == missing
    monkeypatch.setattr(commands, "_configuration", commands.Configuration(network=network))
    monkeypatch.setattr(commands, "wall", lambda: wall)
    assert bool(commands.refusal()) == bool(missing)
    if missing:
        assert wall.describe_network(network) == f"{network}: {missing}"
        with pytest.raises(OSError, match=f"AGENT_NETWORK is `{network}`, but "):
            await run_python(box, "")
        with Folder(box) as folder:
            tools = {tool.name: tool for tool in SandboxTools(folder).all}
            for name, given in (("run_command", "command"), ("search_files", "pattern")):
                with pytest.raises(ToolError, match=f"AGENT_NETWORK is `{network}`, but "):
                    await tools[name].call({given: "x"})


def test_the_model_is_told(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        Network.OPEN: "are killed.",
        Network.NONE: "There is no network.",
        Network.ALLOWLIST: "Other hosts answer with 403.",
    }
    for network, end in said.items():
        monkeypatch.setattr(commands, "_configuration", commands.Configuration(network=network))
        with Folder(box) as folder:
            (tool,) = (t for t in SandboxTools(folder).all if t.name == "run_command")
        assert tool.description.endswith(end)


def test_what_the_log_says() -> None:
    both, docker = Wall(7, "x86_64", confine.NEW_NETWORK), Wall(7, "x86_64", 0)
    assert docker.describe_network(Network.OPEN) == "open, apart from some ports"
    assert Wall(3, "x86_64", 0).describe_network(Network.OPEN) == "open, also all ports"
    assert both.describe_network(Network.NONE) == "none (a network namespace, seccomp)"
    assert docker.describe_network(Network.NONE) == "none (seccomp)"
    assert both.describe_network(Network.ALLOWLIST) == "allowlist (a network namespace)"
    assert docker.describe_network(Network.ALLOWLIST) == "allowlist (Landlock 7, seccomp)"


def test_the_documentation_has_the_table() -> None:
    page = Path(__file__).parent.parent.parent / "docs/docker.md"
    assert table() in page.read_text()


# The same from an execution, also in the image.


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    open_to_everyone(tmp_path)
    async with start_stack(tmp_path / "workspace") as stack:
        yield stack


@pytest.mark.image
@needs_temporal
@pytest.mark.parametrize("network", list(Network))
async def test_attacks_from_an_execution(
    stack: Stack,
    services: Services,
    network: Network,
    record_property: Callable[[str, object], None],
) -> None:
    allow = {"AGENT_NETWORK_ALLOW": services.rules} if network is Network.ALLOWLIST else {}
    runner = await stack.runner(AGENT_NETWORK=network, **allow)
    (line,) = (line for line in runner.log if "starting" in line and "Landlock" in line)
    separate, own_pids = "a network namespace" in line, "PID" in line
    barrier = {
        (Network.OPEN, separate): Barrier.OPEN,
        (Network.NONE, True): Barrier.NONE,
        (Network.NONE, False): Barrier.NONE_SECCOMP,
        (Network.ALLOWLIST, True): Barrier.LIST,
        (Network.ALLOWLIST, False): Barrier.LIST_LANDLOCK,
    }[network, separate]
    attacks = [(attack.name, attack.program) for attack in possible(barrier, services)]
    with connecting(services.served):
        results = await run_suite(stack, runner, PRELUDE, services.definitions, attacks)
    check_results(barrier, results, own_pids=own_pids)
    record_property(
        f"{barrier}: attacks", f"{len(results)}, of which {len(successes(results))} succeed"
    )
    assert await runner.end() == 0

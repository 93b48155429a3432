"""How an agent's command could reach what AGENT_NETWORK does not allow, and which policy stops it.

Each attack is a Python program, as in `tests/attacks.py`. It has these variables: `denied`, the TCP
port of a service on this machine's loopback that is not allowed, and answers with `SERVICE`; `udp`,
the UDP port of the same; `allowed`, the port of a service that is allowed as `127.0.0.1`;
`abstract`, the name of an abstract Unix socket; `served`, a port to which somebody else connects;
and `ask(text)`, which sends a request to the proxy, if there is one, and returns the answer. The
list of the proxy has `localhost` and its subdomains with the port `denied`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Barrier(StrEnum):
    """A policy, and what enforces it."""

    OPEN = "`open`"
    NONE = "`none`, namespaces"  # the network namespace and seccomp
    NONE_SECCOMP = "`none`"  # seccomp only, as with Docker's default
    LIST = "`allowlist`, namespaces"
    LIST_LANDLOCK = "`allowlist`, Landlock"


ALWAYS = frozenset(Barrier)
"""Stopped under every policy, also `open`."""

CLOSED = ALWAYS - {Barrier.OPEN}
SEPARATE = frozenset({Barrier.NONE, Barrier.LIST})
"""What only a network namespace stops."""


@dataclass(frozen=True)
class NetworkAttack:
    """An attack. The first attributes are those of `tests.attacks.Attack`.

    Attributes:
        needs_pids: Whether a network namespace stops it only together with a PID namespace.
    """

    name: str
    program: str
    stopped: frozenset[Barrier] = CLOSED
    needs_pids: bool = False

    def is_stopped(self, barrier: Barrier, *, own_pids: bool) -> bool:
        """Whether a policy stops it."""
        return barrier in self.stopped and (own_pids or not self.needs_pids)


PRELUDE = """
import ctypes, os, signal, socket, struct, sys, threading, time, urllib.parse, urllib.request
libc = ctypes.CDLL(None, use_errno=True)
def reached(): print('REACHED')
def reached_if(found): reached() if found else print('nothing found')
def fail(): raise OSError(ctypes.get_errno(), 'refused')
def read(connection):
    connection.settimeout(5)
    answer = b''
    try:
        while data := connection.recv(1000): answer += data
    except OSError: pass
    if b'SERVICE' in answer: reached()
    return answer
def ask(text):
    if 'HTTP_PROXY' not in os.environ: return b''
    proxy = urllib.parse.urlsplit(os.environ['HTTP_PROXY'])
    connection = socket.create_connection((proxy.hostname, proxy.port), 5)
    connection.sendall(text.encode('latin-1'))
    connection.shutdown(socket.SHUT_WR)
    return read(connection)
def echo(family, address):
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.settimeout(1)
    one.sendto(b'x', (address, udp))
    if one.recv(100): reached()
"""


def _tunnel(name: str, host: str) -> NetworkAttack:
    return NetworkAttack(name, f"ask(f'CONNECT {host} HTTP/1.1\\r\\n\\r\\n')")


def _get(name: str, address: str, more: str = "") -> NetworkAttack:
    return NetworkAttack(name, f"ask(f'GET {address} HTTP/1.1\\r\\n{more}\\r\\n')")


DIRECT = (
    NetworkAttack("connect", "read(socket.create_connection(('127.0.0.1', denied), 5))"),
    NetworkAttack("connect by IPv6", "read(socket.create_connection(('::1', denied), 5))"),
    NetworkAttack(
        "connect by a mapped address",
        """
one = socket.socket(socket.AF_INET6)
one.connect(('::ffff:127.0.0.1', denied))
read(one)
""",
    ),
    NetworkAttack(
        "connect in another thread",
        """
def work():
    try: read(socket.create_connection(('127.0.0.1', denied), 5))
    except OSError as error: print('stopped:', repr(error))
thread = threading.Thread(target=work); thread.start(); thread.join()
""",
    ),
    NetworkAttack(
        "connect while sending",
        """
one = socket.socket()
one.sendto(b'x', 0x20000000, ('127.0.0.1', denied))
read(one)
""",
        ALWAYS,
    ),
    NetworkAttack(
        "connect by MPTCP",
        "one = socket.socket(2, 1, 262); one.connect(('127.0.0.1', denied)); read(one)",
        ALWAYS,
    ),
    NetworkAttack("send a datagram, as to a name server", "echo(socket.AF_INET, '127.0.0.1')"),
    NetworkAttack("send a datagram by IPv6", "echo(socket.AF_INET6, '::1')"),
    NetworkAttack("open a raw socket", "socket.socket(2, socket.SOCK_RAW, 1); reached()", ALWAYS),
    NetworkAttack(
        "open a raw packet socket", "socket.socket(17, socket.SOCK_DGRAM); reached()", ALWAYS
    ),
    NetworkAttack(
        "reach the machine's host", "socket.socket(40, socket.SOCK_STREAM); reached()", ALWAYS
    ),
    NetworkAttack("make another pair of sockets", "socket.socketpair(30); reached()", ALWAYS),
    NetworkAttack(
        "connect to an abstract Unix socket",
        "one = socket.socket(socket.AF_UNIX); one.connect(f'\\0{abstract}'); reached()",
        ALWAYS,
    ),
    NetworkAttack(
        "list the machine's network devices",
        "reached_if([name for _, name in socket.if_nameindex() if name != 'lo'])",
    ),
    NetworkAttack(
        "list the machine's connections",
        "reached_if(f':{denied:04X} ' in open('/proc/self/net/tcp').read())",
        SEPARATE,
    ),
    NetworkAttack(
        "list the machine's connections by another process",
        "reached_if(f':{denied:04X} ' in open('/proc/1/net/tcp').read())",
        SEPARATE,
        needs_pids=True,
    ),
    NetworkAttack(
        "serve others",
        """
one = socket.create_server(('0.0.0.0', served))
one.settimeout(2)
one.accept()
reached()
""",
    ),
    NetworkAttack(
        "use an inherited descriptor",
        """
own = os.open('/proc/self/fd', os.O_RDONLY)
for name in os.listdir(own):
    if int(name) not in (0, 1, 2, own) and os.readlink(f'/proc/self/fd/{name}'): reached()
print('nothing else found')
""",
        ALWAYS,
    ),
    NetworkAttack(
        "join another network",
        "libc.setns(os.open('/proc/1/ns/net', 0), 0) and fail()\nreached()",
        ALWAYS,
    ),
)

THROUGH_PROXY = (
    _tunnel("127.0.0.1", "127.0.0.1:{denied}"),
    _tunnel("[::1]", "[::1]:{denied}"),
    _tunnel("no address", "0.0.0.0:{denied}"),
    _tunnel("no address of IPv6", "[::]:{denied}"),
    _tunnel("a mapped address", "[::ffff:127.0.0.1]:{denied}"),
    _tunnel("127.1", "127.1:{denied}"),
    _tunnel("a decimal address", "2130706433:{denied}"),
    _tunnel("a hexadecimal address", "0x7f000001:{denied}"),
    _tunnel("an octal address", "0177.0.0.1:{denied}"),
    _tunnel("a listed name that leads here", "localhost:{denied}"),
    _tunnel("the same with a dot", "localhost.:{denied}"),
    _tunnel("the same in capitals", "LOCALHOST:{denied}"),
    _tunnel("a subdomain that leads here", "x.localhost:{denied}"),
    _tunnel("a user before the host", "127.0.0.1:{allowed}@127.0.0.1:{denied}"),
    _tunnel("a user name", "user@127.0.0.1:{denied}"),
    _tunnel("a second target", "127.0.0.1:{allowed} 127.0.0.1:{denied}"),
    _tunnel("a line end", "127.0.0.1:{denied}\\r\\nHost: 127.0.0.1:{allowed}\\r\\nX:"),
    _tunnel("half a line end", "127.0.0.1:{denied}\\n127.0.0.1:{allowed}"),
    _tunnel("a NUL", "127.0.0.1:{denied}\\0127.0.0.1:{allowed}"),
    _tunnel("a percent sign", "127.0.0.1%3a{denied}"),
    _tunnel("a port that is too large", "127.0.0.1:{denied + 65536}"),
    _get("an address with http", "http://127.0.0.1:{denied}/"),
    _get("a listed name with http", "http://localhost:{denied}/"),
    _get("a user with http", "http://127.0.0.1:{allowed}@127.0.0.1:{denied}/"),
    _get("a backslash", "http://127.0.0.1:{denied}\\\\@127.0.0.1:{allowed}/"),
    _get("a fragment", "http://127.0.0.1:{denied}#@127.0.0.1:{allowed}/"),
    _get("a Host in place of an address", "/", "Host: 127.0.0.1:{denied}\\r\\n"),
    _get("another Host", "http://127.0.0.1:{allowed}/", "Host: 127.0.0.1:{denied}\\r\\n"),
    _get("another scheme", "https://127.0.0.1:{denied}/"),
    _get(
        "a second request",
        "http://127.0.0.1:{allowed}/",
        "\\r\\nGET http://127.0.0.1:{denied}/ HTTP/1.1\\r\\n",
    ),
    _get(
        "an ambiguous length",
        "http://127.0.0.1:{allowed}/",
        "Content-Length: 4\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n"
        "GET http://127.0.0.1:{denied}/ HTTP/1.1\\r\\n",
    ),
    NetworkAttack(
        "a redirect",
        """
if 'HTTP_PROXY' in os.environ:
    handler = urllib.request.ProxyHandler({'http': os.environ['HTTP_PROXY']})
    os.environ['NO_PROXY'] = os.environ['no_proxy'] = ''
    opener = urllib.request.build_opener(handler)
    answer = opener.open(f'http://127.0.0.1:{allowed}/redirect', timeout=5).read()
    b'SERVICE' in answer and reached()
""",
    ),
)

ATTACKS = (*DIRECT, *THROUGH_PROXY)


def table() -> str:
    """The table in docs/docker.md: attacks with the same result share a row."""
    rows: dict[tuple[frozenset[Barrier], bool], list[str]] = {}
    for attack in DIRECT:
        rows.setdefault((attack.stopped, attack.needs_pids), []).append(attack.name)
    rows[CLOSED, False].append(
        "ask the proxy for what is not listed, or for a listed name that leads here, "
        f"in {len(THROUGH_PROXY)} forms"
    )
    lines = [f"| Attack | {' | '.join(Barrier)} |", "|---" * (len(Barrier) + 1) + "|"]
    for (stopped, needs_pids), names in sorted(rows.items(), key=lambda row: -len(row[0][0])):
        is_stopped = "stopped with a PID namespace" if needs_pids else "stopped"
        cells = [is_stopped if barrier in stopped else "**open**" for barrier in Barrier]
        lines.append(f"| {'; '.join(sorted(names))} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"

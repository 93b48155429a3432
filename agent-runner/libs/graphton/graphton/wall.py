"""Which walls this machine offers between an agent's command and everything else."""

import contextlib
import ctypes
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from graphton import confine, seccomp
from graphton.network import Network
from graphton.seccomp import Sockets

_TRY_SECONDS: Final = 10.0

_ALL_NAMESPACES: Final = confine.NEW_USER | confine.NEW_MOUNTS | confine.NEW_IPC | confine.NEW_PIDS
_CHOICES: Final = (_ALL_NAMESPACES, _ALL_NAMESPACES & ~confine.NEW_PIDS)
"""The namespaces to try, the best first.

A container in which a part of /proc is hidden allows no second /proc, and so no PID namespace."""

_PORTS_SINCE = 4
"""The version of Landlock that restricts TCP ports."""

_SOCKETS_SINCE = 6
"""The version of Landlock that restricts abstract Unix sockets."""

_CONNECT_TCP: Final = 2
_PORT_RULE: Final = 2


@dataclass(frozen=True, slots=True)
class Wall:
    """The walls that a command gets.

    Attributes:
        landlock: The version of Landlock; 0 if the kernel has none.
        architecture: The architecture of the seccomp filter; empty if there is no filter.
        namespaces: The flags of unshare(2) for the namespaces; 0 if none are allowed.
        refusal: Why namespaces are missing; empty if they are there.
    """

    landlock: int
    architecture: str
    namespaces: int
    refusal: str = ""

    @property
    def own_mounts(self) -> bool:
        """Whether a command sees only its sandbox and the system.

        Otherwise it sees other files too, and Landlock keeps it from opening them.
        """
        return bool(self.namespaces & confine.NEW_MOUNTS)

    @property
    def own_pids(self) -> bool:
        """Whether a command sees only its own processes."""
        return bool(self.namespaces & confine.NEW_PIDS)

    @property
    def own_network(self) -> bool:
        """Whether a command has a network of its own, which leads nowhere."""
        return bool(self.namespaces & confine.NEW_NETWORK)

    @property
    def _has_own_unix_sockets(self) -> bool:
        """Whether a command cannot connect to the Unix sockets of other programs.

        A mount namespace hides those that are files. Abstract ones belong to a network namespace.
        """
        scoped = self.landlock >= _SOCKETS_SINCE
        return self.own_mounts and (scoped or self.own_network)

    @property
    def missing(self) -> str:
        """What `SANDBOX_ISOLATION=require` needs and is not there; empty if nothing is missing."""
        missing = []
        if not self.landlock and not self.own_mounts:
            missing.append("neither Landlock nor a mount namespace restricts files")
        if not self.architecture:
            missing.append("no seccomp filter restricts system calls")
        return "; ".join(missing)

    def missing_for(self, network: Network) -> str:
        """What a network policy needs and is not there; empty if nothing is missing."""
        if network is Network.OPEN:
            return ""
        if not self.architecture:
            return "no seccomp filter restricts sockets"
        if network is Network.ALLOWLIST and not self.own_network and self.landlock < _PORTS_SINCE:
            return (
                "neither a network namespace nor Landlock 4 (Linux 6.7 or newer) "
                "restricts connections"
            )
        return ""

    def describe_network(self, network: Network) -> str:
        """Say what enforces a network policy, for the log."""
        if missing := self.missing_for(network):
            return f"{network}: {missing}"
        walls = ["a network namespace"] if self.own_network else []
        match network:
            case Network.NONE:
                walls.append("seccomp")
            case Network.ALLOWLIST if not self.own_network:
                walls += [f"Landlock {self.landlock}", "seccomp"]
            case Network.OPEN:
                ports = self.landlock >= _PORTS_SINCE
                return f"open, {'apart from some ports' if ports else 'also all ports'}"
        return f"{network} ({', '.join(walls)})"

    def describe(self) -> str:
        """Say what holds and what does not, for the log."""
        kinds = {
            confine.NEW_USER: "user",
            confine.NEW_MOUNTS: "mount",
            confine.NEW_IPC: "IPC",
            confine.NEW_PIDS: "PID",
            confine.NEW_NETWORK: "network",
        }
        own = [kind for flag, kind in kinds.items() if self.namespaces & flag]
        parts = [
            f"namespaces ({', '.join(own)})" if own else f"no namespaces ({self.refusal})",
            f"Landlock {self.landlock}" if self.landlock else "no Landlock",
            "seccomp" if self.architecture else "no seccomp",
        ]
        return ", ".join(parts)

    def plan(  # noqa: PLR0913 (they have defaults)
        self,
        folder: Path,
        *,
        protected: Collection[int] = (),
        limits: Mapping[str, int] | None = None,
        network: Network = Network.OPEN,
        ports: int | None = None,
        channel: int | None = None,
        report: int | None = None,
    ) -> str:
        """The plan of a command, for `graphton.confine`.

        Args:
            folder: The folder to which the command may write. It has a folder `.tmp`.
            protected: The threads that the command may neither signal nor slow down.
            limits: Resource limits by the names of setrlimit(2), without RLIMIT_.
            network: What the command reaches.
            ports: The descriptor of a ruleset from `allow_other_ports` or `allow_port`.
            channel: The descriptor of a Unix socket. The command's supervisor sends a socket over
                it that listens at PROXY_PORT of the command's network namespace.
            report: The descriptor of a pipe. The supervisor writes to it at the end how many
                seconds of processor time the command has used, as a C double.
        """
        policy = seccomp.Policy(
            protected=sorted(protected)[: seccomp.MAX_PROTECTED],
            landlock=self.landlock,
            own_mounts=self.own_mounts,
            own_ipc=bool(self.namespaces & confine.NEW_IPC),
            unix_sockets=self._has_own_unix_sockets,
            sockets=self._sockets(network),
        )
        program = seccomp.assemble(policy, self.architecture) if self.architecture else b""
        prefixes = sorted({sys.prefix, sys.base_prefix})  # so that it can run Python
        plan: dict[str, Any] = {
            "folder": str(folder),
            "readable": [*confine.READABLE_PATHS.split(), *prefixes],
            "landlock": self.landlock,
            "ports": ports if self.landlock >= _PORTS_SINCE else None,
            "channel": channel,
            "report": report,
            "filter": program.hex(),
            "namespaces": self.namespaces,
            "limits": dict(limits or {}),
            "worker": os.getpid(),
        }
        return json.dumps(plan)

    def _sockets(self, network: Network) -> Sockets:
        if network is Network.NONE:
            return Sockets.NONE
        proxy_outside = network is Network.ALLOWLIST and not self.own_network
        return Sockets.OUTGOING_TCP if proxy_outside else Sockets.ALL


def find_wall() -> Wall:
    """Try once what this machine allows. This takes a tenth of a second."""
    if sys.platform != "linux":
        return Wall(0, "", 0, "namespaces exist on Linux only")
    basis = Wall(confine.landlock_version(), seccomp.architecture() if _has_seccomp() else "", 0)
    refusal = ""
    for namespaces in _CHOICES:
        wall = Wall(basis.landlock, basis.architecture, namespaces)
        failure = _try(wall)
        if not failure:
            return wall
        refusal = refusal or failure
    return Wall(basis.landlock, basis.architecture, 0, refusal)


def with_network(wall: Wall) -> Wall:
    """Try once whether commands can also have a network namespace. If not, nothing changes."""
    if not wall.namespaces:
        return wall
    more = replace(wall, namespaces=wall.namespaces | confine.NEW_NETWORK)
    return wall if _try(more) else more


def command_line(plan: str) -> list[str]:
    """The beginning of a command line that runs a program according to a plan."""
    return [sys.executable, "-I", "-S", str(Path(confine.__file__)), plan]


def allow_other_ports(denied: Collection[int]) -> int | None:
    """Make a ruleset of Landlock that allows TCP connections to all ports but some.

    Apply it with `graphton.confine.restrict_ports`.

    Landlock has no rules that deny, so it gets one for each of the other ports. This takes a
    third of a second.

    Returns:
        A file descriptor, or None if this kernel cannot restrict ports.
    """
    return _ports_ruleset(port for port in range(1 << 16) if port not in denied)


def allow_port(port: int) -> int | None:
    """Make a ruleset that allows TCP connections to one port only. See `allow_other_ports`."""
    return _ports_ruleset([port])


def _ports_ruleset(ports: Iterable[int]) -> int | None:
    if confine.landlock_version() < _PORTS_SINCE:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = struct.pack("=QQ", confine.REFER, _CONNECT_TCP)
    ruleset = int(libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), 0))
    if ruleset < 0:
        return None
    rule = ctypes.create_string_buffer(16)
    for port in ports:
        struct.pack_into("=QQ", rule, 0, _CONNECT_TCP, port)
        if libc.syscall(445, ruleset, _PORT_RULE, rule, 0):
            os.close(ruleset)
            return None
    return ruleset


def _has_seccomp() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    # Without a program the call always fails. EFAULT means that the kernel supports filters.
    return libc.prctl(22, 2, None, 0, 0) != 0 and ctypes.get_errno() == 14  # EFAULT


def _try(wall: Wall) -> str:
    """Run a program behind a wall. Returns why it fails; empty if it works."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(subprocess.TimeoutExpired):
        (Path(folder) / ".tmp").mkdir()
        done = subprocess.run(  # noqa: S603
            [*command_line(wall.plan(Path(folder))), "true"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TRY_SECONDS,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )
        if not done.returncode:
            return ""
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return last[0].removeprefix("the command cannot be confined: ")
    return "a test command did not end within 10 s"

"""The worker under test: a process from this checkout, or a container from an image.

To test a container, set AGENT_RUNNER_TEST_ENGINE (docker or podman) and AGENT_RUNNER_TEST_IMAGE. If
root runs the tests, AGENT_RUNNER_TEST_USER can name a user whose rootless Podman has the image, and
XDG_RUNTIME_DIR is that user's.
"""

import asyncio
import os
import pwd
import re
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

# A copy, because fixtures change the environment and engines need HOME to find their settings.
ORIGINAL_ENVIRONMENT = dict(os.environ)
ENGINE = ORIGINAL_ENVIRONMENT.get("AGENT_RUNNER_TEST_ENGINE", "")
IMAGE = ORIGINAL_ENVIRONMENT.get("AGENT_RUNNER_TEST_IMAGE", "")
ROOTLESS_USER = ORIGINAL_ENVIRONMENT.get("AGENT_RUNNER_TEST_USER", "")
if bool(ENGINE) != bool(IMAGE):
    raise pytest.UsageError("set both AGENT_RUNNER_TEST_ENGINE and AGENT_RUNNER_TEST_IMAGE")

CONTAINER_WORKSPACE = Path("/workspace")
IMAGE_USER = 1000

WORKSPACE_OWNER = pwd.getpwnam(ROOTLESS_USER).pw_uid if ROOTLESS_USER else IMAGE_USER
"""The uid on the host of the container's user."""

# The options of `cargo xtask run-local`, with the host's network to reach the tests' servers.
RUN_OPTIONS = (
    *("--pull", "never", "--network", "host", "--init", "--pids-limit", "512", "--read-only"),
    *("--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)


async def until(
    condition: Callable[[], bool], seconds: float = 60, what: str = "the condition"
) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.02)


class Runner:
    """A worker in a process, with a folder for its sandboxes."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root = root
        self.log: list[str] = []
        self.command = [sys.executable, str(Path(__file__).parent.parent / "main.py")]
        self.environment = {
            "PATH": os.environ["PATH"],
            "SANDBOX_ROOT_DIR": str(root),
            "AGENT_RUNNER_HEALTH_FILE": str(root.parent / uuid.uuid4().hex / "health.json"),
            **environment,
        }

    async def start(self) -> None:
        """Start or restart the worker, and wait until it polls."""
        lines_before = len(self.log)
        self.process = await asyncio.create_subprocess_exec(
            *self.command, env=self.environment, stderr=asyncio.subprocess.PIPE
        )
        self._reading = asyncio.create_task(self._read(self.process))

        def polls_or_ended() -> bool:
            polls = any("polling `" in line for line in self.log[lines_before:])
            return polls or self.process.returncode is not None

        await until(polls_or_ended, 60, what="polling")
        assert self.process.returncode is None, "".join(self.log)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr
        async for line in process.stderr:
            self.log.append(line.decode())

    async def until_logged(self, words: str, seconds: float = 60) -> None:
        """Wait until a line of the log contains these words."""
        await until(lambda: any(words in line for line in self.log), seconds, words)

    async def send(self, number: signal.Signals) -> None:
        """Send a signal to the worker."""
        self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait until the worker ends. Returns the exit code, -9 for SIGKILL."""
        if self.process.returncode is None:
            await self.send(number)
        code = await asyncio.wait_for(self.process.wait(), 60)
        await self._reading
        return code

    async def remove(self) -> None:
        """Remove everything that is left of the worker, even if the test failed."""
        if hasattr(self, "process") and self.process.returncode is None:
            await self.end(signal.SIGKILL)

    async def pid(self) -> int:
        """Return the pid of the worker, as its commands see it."""
        return self.process.pid

    async def thread(self) -> int:
        """Return the id of a thread of the worker, which is not its first."""
        return max(int(task.name) for task in Path(f"/proc/{self.process.pid}/task").iterdir())

    async def peak_memory(self) -> float:
        """Return the peak memory in MB of the worker, without the commands that it started."""
        return largest_peak(Path(f"/proc/{self.process.pid}/status").read_text())


def largest_peak(statuses: str) -> float:
    """Return the peak memory in MB of the largest process in texts of `/proc/PID/status`."""
    return max(int(kib) for kib in re.findall(r"VmHWM:\s+(\d+) kB", statuses)) * 1024 / 1e6


def engine_command() -> tuple[str, ...]:
    """The beginning of a command line of the engine."""
    if not ROOTLESS_USER:
        return (ENGINE,)
    home = pwd.getpwnam(ROOTLESS_USER).pw_dir
    variables = (f"HOME={home}", f"XDG_RUNTIME_DIR={ORIGINAL_ENVIRONMENT['XDG_RUNTIME_DIR']}")
    # The rest of the environment is passed on, so that values are on no command line.
    return ("runuser", "-u", ROOTLESS_USER, "--", "env", "--chdir=/", *variables, ENGINE)


class ContainerRunner(Runner):
    """A worker in a container. `process` is the engine's client, attached to the container."""

    options: tuple[str, ...] = RUN_OPTIONS
    workspace_owner = WORKSPACE_OWNER

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        super().__init__(root, {})
        self.name = f"proof-{uuid.uuid4().hex}"
        self.settings = environment
        self.command = [*engine_command(), "start", "--attach", self.name]
        self.environment = ORIGINAL_ENVIRONMENT
        self._created = False

    async def start(self) -> None:
        """Start the worker. The container is created the first time only."""
        if not self._created:
            os.chown(self.root, self.workspace_owner, self.workspace_owner)
            # Names only: other users could read the values on the command line.
            names = [word for name in self.settings for word in ("--env", name)]
            mount = ("--volume", f"{self.root}:{CONTAINER_WORKSPACE}")
            self._created = True  # set first, so that a partly created container is removed too
            mapping = ("--userns", f"keep-id:uid={IMAGE_USER},gid={IMAGE_USER}")
            options = (*self.options, *(mapping if ROOTLESS_USER else ()))
            await self.engine("create", "--name", self.name, *options, *mount, *names, IMAGE)
        await super().start()

    async def engine(self, *words: str) -> str:
        """Run a command of the engine, and return its output."""
        process = await asyncio.create_subprocess_exec(
            *(*engine_command(), *words),
            env=ORIGINAL_ENVIRONMENT | self.settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, f"{ENGINE} {words[0]}: {err.decode()}"
        return out.decode()

    async def send(self, number: signal.Signals) -> None:
        """Send a signal to the container's init, as `stop` does."""
        await self.engine("kill", "--signal", number.name, self.name)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """See Runner. The engine's exit code 137 becomes -9."""
        code = await super().end(number)
        return code if code <= 128 else 128 - code

    async def remove(self) -> None:
        """Remove the container and its volumes, and wait until the engine's client ends."""
        if self._created:
            await self.engine("rm", "--force", "--volumes", self.name)
        if hasattr(self, "process"):
            await asyncio.wait_for(self.process.wait(), 60)
            await self._reading

    async def pid(self) -> int:
        """Return the pid of the process that the container's init started."""
        children = await self.engine("exec", self.name, "cat", "/proc/1/task/1/children")
        return int(children.split()[0])

    async def thread(self) -> int:
        """See Runner."""
        tasks = await self.engine("exec", self.name, "ls", f"/proc/{await self.pid()}/task")
        return max(int(task) for task in tasks.split())

    async def peak_memory(self) -> float:
        """Return the peak memory in MB of the worker, the largest process of its container.

        The container's own figure also counts the commands, and files of the image in memory.
        """
        statuses = "cat /proc/[0-9]*/status 2>/dev/null; true"
        return largest_peak(await self.engine("exec", self.name, "sh", "-c", statuses))


class CliRunner(ContainerRunner):
    """A worker in a container that is started as stigmer's own CLI does it on Linux.

    The workspace belongs to the person who typed `stigmer server`, who is not the image's user.
    """

    workspace_owner = IMAGE_USER + 1

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        super().__init__(root, environment)
        logs = f"{root.parent / 'logs'}:/logs"
        self.options = ("--restart", "unless-stopped", "--network", "host", "--volume", logs)

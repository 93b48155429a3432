"""A command of the same user takes the owner's rights away, and the worker gives them back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphton import confine
from graphton.access import restore_access, with_access
from tests.folders import open_to_everyone

AGENT_RUNNER = Path(__file__).parent.parent

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of uid 1234, whose parents are accessible to everyone."""
    open_to_everyone(tmp_path)
    folder = tmp_path / "own"
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    return folder


def as_uid_1234(folder: Path, code: str) -> str:
    """Run code as a user who is bound by the modes of files. Returns its output."""
    start = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from graphton import commands, confine\n"
        "from worker import health, probe, sandbox\n"
        "from worker.settings import Settings\n"
        "root = Path(sys.argv[1])\n"
        "os.environ['AGENT_RUNNER_HEALTH_FILE'] = f'{root}/health/health.json'\n"
        "os.setgroups([]); os.setgid(1234); os.setuid(1234)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + code, str(folder)],
        cwd=AGENT_RUNNER,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_only_missing_rights_are_added(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("x")
    link.symlink_to(file)
    file.chmod(0o055)
    assert not restore_access(link)
    assert restore_access(file)
    assert file.stat().st_mode & 0o777 == 0o655
    assert not restore_access(file)
    assert not restore_access(tmp_path / "none")


def test_permission_that_stays_denied_is_an_error(tmp_path: Path) -> None:
    def work() -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        with_access([tmp_path], work)


@needs_root
@pytest.mark.parametrize(
    "attack",
    ["health", "health/health.json", "health health/health.json"],
)
def test_the_health_file_is_restored(folder: Path, attack: str) -> None:
    code = f"""
file = health.HealthFile.publish(Settings.load(), {{}})
for name in {attack.split()[::-1]}:
    os.chmod(root / name, 0)
assert not probe.check(probe.health_file())[0]
file.record_heartbeat()
print(*probe.check(probe.health_file()))
for name in {attack.split()[::-1]}:
    os.chmod(root / name, 0)
file.set_phase(health.Phase.POLLING)
print(*probe.check(probe.health_file()))
"""
    first, second = as_uid_1234(folder, code).splitlines()
    assert first.startswith("True worker pid")
    assert ", polling, " in second


@needs_root
def test_a_health_file_that_cannot_be_written_ends_nothing(folder: Path) -> None:
    code = """
import logging
logging.basicConfig(stream=sys.stdout, format='%(message)s', level='INFO')
file = health.HealthFile.publish(Settings.load(), {})
os.unlink(root / 'health/health.json')
os.rmdir(root / 'health')
(root / 'health').write_text('')
for _ in range(2):
    file.record_heartbeat()
    file.set_problem('x')
os.unlink(root / 'health')
file.set_problem('')
print(probe.check(probe.health_file())[0])
"""
    path = f"{folder}/health/health.json"
    assert as_uid_1234(folder, code).splitlines() == [
        f"`{path}` cannot be written: File exists",
        f"`{path}` can be written again",
        "True",
    ]


LOCKING = """
async def work(order):
    async with sandbox.locked(root, 's1', order):
        with sandbox.open_sandbox(root, 's1') as folder:
            folder.write('.graphton/threads/t.json', b'said', private=True)
            await asyncio.sleep(0.05)
            print(order)

async def main():
    await work(0)
    await asyncio.gather(*(work(n) for n in (1, 2, 3)))
"""


@needs_root
@pytest.mark.parametrize(
    "attacked",
    [".", ".locks", ".locks/s1.lock", ".private", ".private/s1", "s1", "s1/.tmp"],
)
def test_a_sandbox_is_restored(folder: Path, attacked: str) -> None:
    code = f"{LOCKING}asyncio.run(main())\nos.chmod(root / '{attacked}', 0)\nasyncio.run(main())"
    assert as_uid_1234(folder, code).split() == ["0", "1", "2", "3"] * 2


@needs_root
def test_rights_that_are_taken_again_and_again(folder: Path) -> None:
    code = f"""{LOCKING}
import signal
asyncio.run(main())
names = [root / name for name in ('.locks', '.private', '.private/s1')]
attack = os.fork()
while not attack:
    for name in names:
        try:
            os.chmod(name, 0)
        except OSError:
            pass
try:
    asyncio.run(main())
finally:
    os.kill(attack, signal.SIGKILL)
"""
    assert as_uid_1234(folder, code).split() == ["0", "1", "2", "3"] * 2


@needs_root
def test_a_wall_is_built_around_a_folder_without_rights(folder: Path) -> None:
    """Between the start of a command's supervisor and its wall, others can use `chmod`."""
    code = """
own = root / 'thread-x'
(own / '.tmp').mkdir(parents=True)
abi = confine.landlock_version()
for build in (
    lambda: confine.with_folder_access(str(own), lambda: os.chdir(own)),
    lambda: confine.open_own(str(own)),
    lambda: confine.open_own(str(own), '/.tmp'),
    lambda: confine.restrict_files(str(own), ['/usr'], abi, own_mounts=False),
)[: 4 if abi else 3]:
    for path in (own, root):
        os.chmod(path, 0)
    build()
    (own / 'file').write_text('x')
    print((own / 'file').read_text())
"""
    count = 4 if confine.landlock_version() else 3
    assert as_uid_1234(folder, code).split() == ["x"] * count


@needs_root
def test_hidden_files_count(folder: Path) -> None:
    code = """
hidden = root / 'hidden/below'
hidden.mkdir(parents=True)
(hidden / 'file').write_bytes(bytes(3 << 20))
(hidden / 'file').chmod(0)
hidden.chmod(0)
hidden.parent.chmod(0o600)
os.chdir(root)
for _ in range(20):  # deeper than a path can be
    os.mkdir('d' * 255)
    os.chdir('d' * 255)
with open('file', 'wb') as file:
    file.write(bytes(2 << 20))
os.chmod('.', 0)
os.chdir('/')
print(asyncio.run(commands._measure(root)) >> 20)
"""
    assert as_uid_1234(folder, code) == "5"

"""Tests what the worker says about a workspace that it cannot use."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import open_to_everyone
from worker.workspace import find_problem

AGENT_RUNNER = Path(__file__).parent.parent


def problem_as_uid_1234(root: Path, sandbox: str = "", before: str = "pass") -> str:
    """What another user, who is not root, is told."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from worker import workspace\n"
        f"{before}\n"
        "os.setgroups([]); os.setgid(1234); os.setuid(1234)\n"
        "print(workspace.find_problem(Path(sys.argv[1]), sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", script, str(root), sandbox]
    done = subprocess.run(command, cwd=AGENT_RUNNER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose parents are accessible to everyone."""
    open_to_everyone(tmp_path)
    return tmp_path


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as other users")


def test_a_missing_folder_is_created(tmp_path: Path) -> None:
    assert find_problem(tmp_path / "a/b") == ""
    assert (tmp_path / "a/b").is_dir()
    assert find_problem(tmp_path / "a/b", "not-there-yet") == ""


def test_a_file_is_not_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = f"{tmp_path}/file"
    assert find_problem(tmp_path / "file") == (
        f"the workspace `{file}` cannot be created: `{file}` is not a folder"
    )


@needs_root
def test_a_folder_of_another_user(folder: Path) -> None:
    root = folder / "workspace"
    root.mkdir(mode=0o755)
    os.chown(root, 1001, 1002)
    start = f"the workspace `{root}` cannot be used: `{root}` belongs to uid 1001, and the "
    start += "agent-runner runs as uid 1234. "
    assert problem_as_uid_1234(root) == (
        f"{start}Give it to the agent-runner: `sudo chown -R 1234:1234 {root}`"
    )
    mounted = "workspace.os.path.ismount = lambda path: True"
    assert problem_as_uid_1234(root, before=mounted) == (
        f"{start}On the host, give the mounted folder to the agent-runner: "
        "`sudo chown -R 1234:1234 FOLDER`; the stigmer CLI and `cargo xtask` mount "
        "`~/.stigmer/data/workspace`; "
        "or start the container as the owner of the folder: `docker run --user 1001:1002 …`"
    )
    os.chown(root, 1234, 1234)
    assert problem_as_uid_1234(root) == ""


@needs_root
@pytest.mark.parametrize(
    ("owner", "explanation"),
    [
        (
            0,
            "uid 0 of this container, which is the user who runs the rootless engine, and the "
            "agent-runner runs as uid 1234. Start the container with `--user 0:0`, which on the "
            "host is that user",
        ),
        (
            65534,
            "another user of the host, and the agent-runner runs as uid 1234. Give the mounted "
            "folder to the user who runs the engine, and start the container with `--user 0:0`, "
            "which on the host is that user",
        ),
    ],
)
def test_a_folder_of_another_user_with_a_rootless_engine(
    folder: Path, owner: int, explanation: str
) -> None:
    root = folder / "workspace"
    root.mkdir(mode=0o755)
    os.chown(root, owner, owner)
    (folder / "uid_map").write_text("         0       1001          1\n 1 100000 65536\n")
    before = "workspace.os.path.ismount = lambda path: True; "
    before += f"workspace.UID_MAP = Path({str(folder / 'uid_map')!r})"
    assert problem_as_uid_1234(root, before=before) == (
        f"the workspace `{root}` cannot be used: `{root}` belongs to {explanation}; or give the "
        "mounted folder to the agent-runner, which on the host has uid 101233: "
        "`sudo chown -R 101233:101233 FOLDER`"
    )


@needs_root
def test_a_sandbox_of_another_user(folder: Path) -> None:
    root = folder / "workspace"
    (root / "s/.tmp").mkdir(parents=True)
    os.chown(root, 1234, 1234)
    assert problem_as_uid_1234(root) == ""
    assert f"`{root}/s` belongs to uid 0" in problem_as_uid_1234(root, "s")
    os.chown(root / "s", 1234, 1234)
    assert f"`{root}/s/.tmp` belongs to uid 0" in problem_as_uid_1234(root, "s")
    (root / ".private").mkdir()
    assert f"`{root}/.private` belongs to uid 0" in problem_as_uid_1234(root)
    os.chown(root / ".private", 1234, 1234)
    (root / ".locks").mkdir()
    assert f"`{root}/.locks` belongs to uid 0" in problem_as_uid_1234(root)


@needs_root
def test_a_workspace_that_cannot_be_created(folder: Path) -> None:
    said = problem_as_uid_1234(folder / "a/b")
    assert said.startswith(f"the workspace `{folder}/a/b` cannot be created: `{folder}` belongs to")


def test_a_read_only_file_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    read_only = os.statvfs_result((0, 0, 0, 0, 0, 0, 0, 0, os.ST_RDONLY, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: read_only)
    assert find_problem(folder) == (
        f"the workspace `{folder}` cannot be used: `{folder}` is read-only; "
        "mount the folder without `ro`"
    )


@needs_root
def test_the_owners_rights_are_restored(folder: Path) -> None:
    root = folder / "workspace"
    used = [root / name for name in (".locks", ".private/s", "s/.tmp")]
    for path in used:
        path.mkdir(parents=True)
    everything = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for path in everything:
        os.chown(path, 1234, 1234)
        path.chmod(0)
    assert problem_as_uid_1234(root, "s") == ""
    assert {path.stat().st_mode & 0o777 for path in everything} == {0o700}


@needs_root
def test_the_rights_cannot_be_restored(folder: Path) -> None:
    root = folder / "workspace"
    root.mkdir()
    os.chown(root, 1234, 1234)
    root.chmod(0o500)
    before = "workspace.restore_access = lambda path: False"
    assert problem_as_uid_1234(root, before=before) == (
        f"the workspace `{root}` cannot be used: its owner may not write to `{root}`; "
        "permit it: `chmod u+rwx`"
    )


def test_a_folder_that_a_security_module_forbids(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert find_problem(folder) == (
        f"the workspace `{folder}` cannot be used: a security module such as SELinux forbids "
        f"access to `{folder}`; mount the folder with `:z` at the end of its volume"
    )


@pytest.mark.parametrize(
    ("code", "explanation"),
    [
        (errno.ENOSPC, "its disk is full"),
        (errno.EDQUOT, "the quota of its disk is used up"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_a_disk_that_takes_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, explanation: str
) -> None:
    def write(descriptor: int, content: bytes) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", write)
    problem = find_problem(folder)
    monkeypatch.undo()
    assert problem == f"the workspace `{folder}` cannot be used: {explanation}"


def test_a_folder_that_was_removed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    descriptor = os.open(tmp_path / "folder", os.O_RDONLY)
    (tmp_path / "folder").rmdir()
    # As a mount, it leads to the removed folder.
    root = Path(f"/proc/self/fd/{descriptor}")
    problem = find_problem(root)
    os.close(descriptor)
    assert problem == (
        f"the workspace `{root}` cannot be used: `{root}` was removed; create it, and start the "
        "container again"
    )


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EOPNOTSUPP])
def test_a_folder_in_which_no_file_without_a_name_can_be_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It was removed while it is mounted, or the file system has no such files."""

    def refuse(path: object, flags: int, mode: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    problem = find_problem(folder)
    monkeypatch.undo()
    removed = f"the workspace `{folder}` cannot be used: `{folder}` was removed; create it, and "
    assert problem == (f"{removed}start the container again" if code == errno.ENOENT else "")


def test_a_file_server_that_has_lost_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(path: object, mode: object) -> bool:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "access", lost)
    assert find_problem(folder) == (
        f"the workspace `{folder}` cannot be used: {os.strerror(errno.ESTALE)}"
    )

import os
import subprocess
import time
from pathlib import Path

import pytest

from graphton.files import Folder
from graphton.trees import remove_tree


def make_deep(folder: Path, depth: int) -> None:
    folder.mkdir()
    code = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(int(sys.argv[2])):\n"
    code += "    os.mkdir('d' * 20); open('file', 'w').close(); os.chdir('d' * 20)"
    subprocess.run(["python3", "-c", code, str(folder), str(depth)], check=True)


def test_a_deep_folder_is_removed(tmp_path: Path) -> None:
    make_deep(tmp_path / "deep", 3000)
    remove_tree(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []


def test_a_deep_folder_is_removed_in_a_sandbox(tmp_path: Path) -> None:
    make_deep(tmp_path / "deep", 1500)
    with Folder(tmp_path) as folder:
        folder.remove("deep")
    assert list(tmp_path.iterdir()) == []


def test_a_wide_folder_is_removed(tmp_path: Path) -> None:
    for n in range(50):
        (tmp_path / f"wide/{n}/a/b").mkdir(parents=True)
        for m in range(100):
            (tmp_path / f"wide/{n}/a/{m}").write_text("")
    started = time.monotonic()
    remove_tree(tmp_path / "wide")
    assert time.monotonic() - started < 10
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("x")
    (tmp_path / "tree/a").mkdir(parents=True)
    (tmp_path / "tree/a/link").symlink_to(tmp_path / "outside")
    (tmp_path / "tree/link").symlink_to(tmp_path / "outside/file")
    os.mkfifo(tmp_path / "tree/fifo")
    remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (tmp_path / "outside/file").read_text() == "x"
    (tmp_path / "link").symlink_to("outside")
    with pytest.raises(OSError, match=r"link"):
        remove_tree(tmp_path / "link")
    assert (tmp_path / "outside/file").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_folders_without_rights_are_removed(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    os.chown(tmp_path / "own", 1234, 1234)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.chdir(tmp_path / "own")  # the user may not enter its parents
            os.setgid(1234)
            os.setuid(1234)
            Path("a/b/c/d").mkdir(parents=True)
            Path("a/b/c/file").write_text("")
            for name in ("a/b/c/d", "a/b/c", "a/b", "a"):
                Path(name).chmod(0)
            remove_tree(Path("a"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list((tmp_path / "own").iterdir()) == []

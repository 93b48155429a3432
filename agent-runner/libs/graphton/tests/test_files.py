import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphton.files import PRIVATE_FOLDER, FilesError, Folder

SECRET = "not yours"  # noqa: S105


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sandbox. The folder next to it contains a secret."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text(SECRET)
    (tmp_path / "box/deep/er").mkdir(parents=True)
    return tmp_path / "box"


@pytest.fixture
def folder(root: Path) -> Iterator[Folder]:
    with Folder(root) as opened:
        yield opened


def test_write_and_read(folder: Folder, root: Path) -> None:
    assert folder.write("new/a.txt", b"one") is True
    assert folder.write(f"{root}/new/./a.txt", b"two") is False
    assert folder.read("new/../new/a.txt", 100) == b"two"
    assert folder.read("new/a.txt", 2) == b"tw"
    assert (root / "new/a.txt").read_bytes() == b"two"
    assert list((root / PRIVATE_FOLDER / "partial").iterdir()) == []


def test_permissions_are_kept(folder: Folder, root: Path) -> None:
    folder.write("script", b"1")
    (root / "script").chmod(0o755)
    folder.write("script", b"2")
    assert (root / "script").stat().st_mode & 0o777 == 0o755


def test_links_inside_are_followed(folder: Folder, root: Path) -> None:
    (root / "up").symlink_to("deep/er")
    (root / "deep/er/back").symlink_to("../../top.txt")
    (root / "absolute").symlink_to(root / "deep")
    folder.write("up/back", b"through two links")
    assert (root / "top.txt").read_bytes() == b"through two links"
    assert (root / "deep/er/back").is_symlink()
    folder.write("absolute/x", b"x")
    assert (root / "deep/x").read_bytes() == b"x"


OUT = [
    "..",
    "../outside/secret",
    "deep/../../outside/secret",
    "/etc/passwd",
    "/",
    "out/secret",
    "secret",
    "chain",
    "deep/er/dotdot/outside/secret",
    "out/../outside/secret",
]


@pytest.mark.parametrize("path", OUT)
def test_paths_that_lead_out_are_refused(
    folder: Folder, root: Path, tmp_path: Path, path: str
) -> None:
    (root / "out").symlink_to("../outside")
    (root / "secret").symlink_to(tmp_path / "outside/secret")
    (root / "chain").symlink_to("secret")
    (root / "deep/er/dotdot").symlink_to("../../..")
    for do in (
        lambda: folder.read(path, 100),
        lambda: folder.write(path, b"overwritten"),
        lambda: folder.write(f"{path}/new", b""),
        lambda: folder.list_entries(path),
        lambda: folder.make_folder(path),
        lambda: folder.make_folder(f"{path}/new"),
        lambda: folder.remove(path),
    ):
        with pytest.raises(FilesError):
            do()
    assert sorted(p.name for p in (tmp_path / "outside").iterdir()) == ["secret"]
    assert (tmp_path / "outside/secret").read_text() == SECRET


def test_a_folder_with_the_same_prefix_is_outside(folder: Folder, root: Path) -> None:
    (root.parent / "box2").mkdir()
    (root.parent / "box2/a").write_text(SECRET)
    with pytest.raises(FilesError, match="is outside"):
        folder.read(f"{root}2/a", 100)


def test_paths_that_are_not_readable_files(folder: Folder, root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    os.mkfifo(root / "pipe")
    for path, words in {
        "a": "contains a loop of links",
        "pipe": "is not a regular file",
        "deep": "Is a directory",
        "none": "No such file",
        "x" * 300: "File name too long",
        "a\0b": "NUL character",
        "pipe/x": "Not a directory",
    }.items():
        with pytest.raises(FilesError, match=words):
            folder.read(path, 100)
    with pytest.raises(FilesError, match="is not a regular file"):
        folder.write("pipe", b"")


def test_the_agent_cannot_use_the_private_folder(folder: Folder, root: Path) -> None:
    folder.write("a", b"")
    (root / "way").symlink_to(PRIVATE_FOLDER)
    for path in (
        PRIVATE_FOLDER,
        f"{PRIVATE_FOLDER}/x",
        f"./deep/../{PRIVATE_FOLDER}/x",
        "way/x",
        f"{root}/{PRIVATE_FOLDER}",
    ):
        with pytest.raises(FilesError, match="is reserved for the worker"):
            folder.write(path, b"")
    assert [entry.name for entry in folder.list_entries()] == ["a", "deep", "way"]
    assert folder.write(f"deep/{PRIVATE_FOLDER}", b"a name like any other there") is True


def test_a_folder_that_is_swapped_for_a_link_while_it_is_used(
    folder: Folder, root: Path, tmp_path: Path
) -> None:
    """Read and write while another thread keeps replacing `flip` with a link that leads out."""
    (root / "real").mkdir()
    (root / "real/secret").write_text("mine")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                (root / "real").rename(root / "flip")
                (root / "flip").rename(root / "real")
                (root / "flip").symlink_to("../outside")
                (root / "flip").unlink()
            except OSError:  # the other thread has created a folder of this name
                shutil.rmtree(root / "flip")

    swapper = threading.Thread(target=swap)
    swapper.start()
    results = set()
    rounds = 0
    # On a busy machine 3000 rounds may pass without one in which the folder has its name.
    deadline = time.monotonic() + 60
    try:
        while rounds < 3000 or (b"mine" not in results and time.monotonic() < deadline):
            rounds += 1
            try:
                results.add(folder.read("flip/secret", 100))
                folder.write("flip/made", b"x")
                results.add(b"written")
            except FilesError as error:
                results.add(str(error)[-20:].encode())
    finally:
        stop.set()
        swapper.join()
    assert SECRET.encode() not in results
    assert sorted(p.name for p in (tmp_path / "outside").iterdir()) == ["secret"]
    assert b"mine" in results, "the folder was never read"


WRITER = """
import sys
from pathlib import Path
from graphton.files import Folder
folder, n = Folder(Path(sys.argv[1])), 0
while True:
    n += 1
    folder.write("file", (str(n % 10) * 3_000_000).encode())
    if n == 2:
        print("written", flush=True)
"""


@pytest.mark.parametrize("after", [0.011, 0.037, 0.05])
def test_a_killed_writer_leaves_a_complete_file(root: Path, after: float) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout
    assert writer.stdout.readline() == "written\n"
    threading.Event().wait(after)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    data = (root / "file").read_bytes()
    assert len(data) == 3_000_000
    assert len(set(data)) == 1
    with Folder(root) as folder:
        folder.remove_partial_files()
    assert not (root / PRIVATE_FOLDER / "partial").exists()


def test_a_link_is_not_accepted_as_the_root(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    for path in (root.parent / "link", root.parent / "none", root.parent / "outside/secret"):
        with pytest.raises(FilesError, match="is not a folder"):
            Folder(path)

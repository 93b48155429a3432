"""Assembles the tools of the flavour from small artificial packages."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import debian_tools
import elf
import pytest
from assemble import AssembleError, Source, Tree

from tests.test_assemble import AARCH64, elf_file

SIMULATION = """\
Inst perl-base [5.36.0-7] (5.36.0-8 Debian:12/stable [arm64]) [perl-base:arm64 ]
Conf perl-base (5.36.0-8 Debian:12/stable [arm64])
Inst libperl5.36 (5.36.0-8 Debian:12/stable [arm64])
Inst libssl3 [3.0.16-1] (3.0.20-1~deb12u1 Debian-Security:12/stable-security [arm64])
Inst git (1:2.39.5-0+deb12u3 Debian:12/stable [arm64]) []
Inst node-xtend (4.0.2-3 Debian:12/stable [all])
Conf git (1:2.39.5-0+deb12u3 Debian:12/stable [arm64])
"""

STATUS = (
    "Package: libc6\nStatus: install ok installed\nVersion: 2\n\n"
    "Package: old\nStatus: install ok installed\nVersion: 1\n\n"
)


def write(root: Path, files: dict[str, bytes | str]) -> None:
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            file.symlink_to(content)
        else:
            file.write_bytes(content)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """An arm64 base image with merged /usr, and the packages libc6 and old."""
    root = tmp_path / "root"
    write(
        root,
        {
            "bin": "usr/bin",
            "usr/lib/libc.so.6": elf_file(AARCH64),
            "usr/bin/old": elf_file(AARCH64, ("libc.so.6",)),
            "var/lib/dpkg/status": STATUS.encode(),
            "var/lib/dpkg/info/libc6:arm64.list": b"/usr/lib/libc.so.6\n",
            "var/lib/dpkg/info/old.list": b"/usr/bin/old\n",
        },
    )
    (root / "usr/local/bin").mkdir(parents=True)
    return Source(root)


def make_package(folder: Path, name: str, files: dict[str, bytes | str]) -> Path:
    root = folder / name
    control = f"Package: {name}\nVersion: 3\nArchitecture: arm64\nMaintainer: me\nDescription: x\n"
    write(root, {**files, "DEBIAN/control": control.encode()})
    package = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--build", root, package], check=True, stdout=subprocess.DEVNULL)
    return package


def test_packages_that_apt_would_install_are_read() -> None:
    assert debian_tools.chosen_packages(SIMULATION) == [
        "libssl3:arm64=3.0.20-1~deb12u1",
        "git:arm64=1:2.39.5-0+deb12u3",
        "node-xtend:all=4.0.2-3",
    ]
    with pytest.raises(AssembleError, match="would install none of git, curl"):
        debian_tools.chosen_packages("Reading package lists...\n")


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt")
def test_packages_without_a_signature_are_refused(tmp_path: Path) -> None:
    packages = tmp_path / "repository/dists/stable/main/binary-arm64/Packages"
    packages.parent.mkdir(parents=True)
    packages.touch()
    release = (
        "Suite: stable\nComponents: main\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
        f" {hashlib.sha256().hexdigest()} 0 main/binary-arm64/Packages\n"
    )
    (tmp_path / "repository/dists/stable/Release").write_text(release)
    (tmp_path / "status").touch()
    apt = debian_tools.Apt(tmp_path / "status", "arm64", tmp_path / "work", mirror="")
    (tmp_path / "work/etc/sources.list").unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "work/etc/sources.list.d")
    (tmp_path / "work/etc/sources.list.d").mkdir()

    def update(option: str) -> None:
        line = f"deb {option} file:{tmp_path}/repository stable main\n"
        (tmp_path / "work/etc/sources.list").write_text(line)
        apt.run("update")

    with pytest.raises(AssembleError, match=r"`apt-get update` failed:(\n|.)* is not signed"):
        update("")
    update("[trusted=yes]")  # it was the signature


def test_a_copy_of_a_program_becomes_a_link(source: Source, tmp_path: Path) -> None:
    program = elf_file(AARCH64, ("libc.so.6",))
    write(
        source.root,
        {
            "usr/bin/git": program + b"1",
            "usr/lib/git-core/git": program + b"1",
            "usr/lib/git-core/git-add": "git",
            "usr/share/node/a.js": b"1",
            "usr/share/modules": "node",
        },
    )
    tree = Tree(source, tmp_path / "out", "arm64")
    paths = ["bin/git", "usr/lib/git-core/git", "usr/lib/git-core/git-add", "usr/share/modules"]
    debian_tools.copy_files(tree, [f"/{path}" for path in paths])
    core = tree.output / "usr/lib/git-core"
    assert (core / "git").readlink() == Path("../../bin/git")
    assert (core / "git-add").readlink() == Path("git")
    assert elf.is_elf(tree.output / "usr/bin/git")
    assert (tree.output / "usr/lib/libc.so.6").is_file(), "the library that it needs"
    # A link to a folder does not bring files of the folder that are not in the list.
    assert (tree.output / "usr/share/modules").readlink() == Path("node")
    assert not (tree.output / "usr/share/node").exists()


def test_a_tool_for_another_architecture_is_refused(source: Source, tmp_path: Path) -> None:
    write(source.root, {"usr/bin/jq": elf_file()})
    tree = Tree(source, tmp_path / "out", "arm64")
    with pytest.raises(AssembleError, match="usr/bin/jq` is for amd64, the image is for arm64"):
        debian_tools.copy_files(tree, ["/usr/bin/jq"])


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_tools_are_assembled_on_top_of_the_image(source: Source, tmp_path: Path) -> None:
    below = tmp_path / "below"
    write(
        below,
        {
            "usr/lib/libc.so.6": elf_file(AARCH64),
            "var/lib/dpkg/status": STATUS.encode(),
        },
    )
    (below / "usr/lib/libc.so.6").chmod(0o644)
    programs = tmp_path / "programs"
    write(programs, {"uv": elf_file(AARCH64), "notes.txt": b"no program"})
    less = make_package(
        tmp_path,
        "less",
        {
            "bin/less": elf_file(AARCH64, ("libc.so.6",)),
            "usr/share/man/man1/less.1": b"how to read",
            "usr/share/doc/less/copyright": b"GPL",
        },
    )
    newer = make_package(tmp_path, "old", {"usr/bin/old": elf_file(AARCH64, ("libc.so.6",))})
    tree = Tree(source, tmp_path / "out", "arm64")
    debian_tools.assemble_tools(source, [less, newer], programs, tree, below)

    files = sorted(
        str(path.relative_to(tree.output))
        for path in tree.output.rglob("*")
        if not path.is_dir() or path.is_symlink()
    )
    assert files == [
        "bin",
        "usr/bin/less",
        "usr/bin/old",
        "usr/bin/pager",
        "usr/local/bin/uv",
        "usr/share/doc/less/copyright",
        "var/lib/dpkg/status",
    ]
    status = (tree.output / "var/lib/dpkg/status").read_text(encoding="utf-8")
    names = [debian_tools.name_of(entry) for entry in status.split("\n\n")]
    assert names == ["less", "libc6", "old"]
    assert "Package: old\nStatus: install ok installed\nVersion: 3\n" in status
    assert "Version: 1" not in status, "the package of the base image is older"

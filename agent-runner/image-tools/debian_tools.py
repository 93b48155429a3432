"""Assembles the tools that the flavour `tools` adds to the image, without running any of them.

apt on the build machine resolves the packages for the target's architecture, against the package
list of the target's base image, and verifies them with Debian's signatures. Their files, with the
libraries that they need, become the tree that the Dockerfile copies on top of the runtime.
"""

import argparse
import filecmp
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import assemble
import elf
from assemble import AssembleError, Source, Tree

PACKAGES = (
    *("git", "curl", "jq", "ripgrep", "patch", "unzip", "xz-utils", "less", "make"),
    *("openssh-client", "nodejs"),
)
"""Debian's packages. Their dependencies come with them, without recommendations."""

PACKAGES_EXCLUDED = {
    "adduser": "creates users; only installation scripts call it",
    "git-man": "manual pages",
    "liberror-perl": "for the commands of git that are in Perl, such as `git send-email`",
    "libgdbm*": "for Perl",
    "libperl5*": "for Perl",
    "perl*": "55 MB, which only those commands need",
}
"""Dependencies that are left out, and what they are for."""

FILES_EXCLUDED = [
    "/etc/init.d/*",
    "/lib/systemd/*",
    "/usr/bin/git-shell",  # this and the next six are git's servers, and clients of old ones
    "/usr/lib/git-core/git-daemon",
    "/usr/lib/git-core/git-http-backend",
    "/usr/lib/git-core/git-http-fetch",
    "/usr/lib/git-core/git-http-push",
    "/usr/lib/git-core/git-imap-send",
    "/usr/lib/git-core/git-shell",
    "/usr/lib/systemd/*",
    "/usr/share/apport/*",
    "/usr/share/bash-completion/*",
    "/usr/share/bug/*",
    "/usr/share/doc/*",  # the licenses are kept
    "/usr/share/doc-base/*",
    "/usr/share/fish/*",
    "/usr/share/gitweb/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/nodejs/@types/*",  # type stubs
    "/usr/share/perl5/*",
    "/usr/share/systemtap/*",
    "/usr/share/zsh/*",
]
"""Patterns of files that are not copied: documentation, translations and files for services."""

LINKS = {"/usr/bin/pager": "less"}
"""Links that an installation script would create. git shows long output with `pager`."""

DEBIAN = "http://deb.debian.org"
"""The host in the sources of Debian's images, which `--mirror` replaces."""

STATUS = "var/lib/dpkg/status"

INSTALL = re.compile(r"^Inst (?P<name>\S+) (?:\[\S+\] )?\((?P<version>\S+) .*\[(?P<arch>\w+)\]")
"""A line of `apt-get install --simulate`."""


def excluded(path: str) -> bool:
    """Whether a file of a package is not copied."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in FILES_EXCLUDED)


def chosen_packages(simulation: str) -> list[str]:
    """Read which packages apt would install.

    Args:
        simulation: The output of `apt-get install --simulate`.

    Returns:
        `name:architecture=version` for each package that is not excluded.

    Raises:
        AssembleError: if it is none.
    """
    chosen = []
    for line in simulation.splitlines():
        if found := INSTALL.match(line):
            name, version, arch = found.group("name", "version", "arch")
            name = name.split(":")[0]
            if not any(fnmatch.fnmatchcase(name, one) for one in PACKAGES_EXCLUDED):
                chosen.append(f"{name}:{arch}={version}")
    if not chosen:
        raise AssembleError(
            f"apt would install none of {', '.join(PACKAGES)}: the base image has them already, or "
            "apt did not find them in its sources"
        )
    return chosen


class Apt:
    """apt for another architecture, and for the packages of another image."""

    def __init__(self, status: Path, arch: str, work: Path, mirror: str) -> None:
        sources = work / "etc"
        shutil.copytree("/etc/apt", sources, ignore=shutil.ignore_patterns("trusted.gpg*"))
        for file in [sources / "sources.list", *(sources / "sources.list.d").glob("*")]:
            if mirror and file.is_file():
                text = file.read_text(encoding="utf-8")
                file.write_text(text.replace(DEBIAN, mirror.rstrip("/")), encoding="utf-8")
        for folder in ("state/lists/partial", "cache/archives/partial", "debs"):
            (work / folder).mkdir(parents=True)
        self.downloads = work / "debs"
        options = {
            "APT::Architecture": arch,
            "APT::Architectures": arch,
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            # Otherwise a source that cannot be reached is only a warning.
            "APT::Update::Error-Mode": "any",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Dir::Cache": work / "cache",
            "Dir::Etc::sourcelist": sources / "sources.list",
            "Dir::Etc::sourceparts": sources / "sources.list.d",
            "Dir::State": work / "state",
            "Dir::State::status": status,
        }
        if bundle := os.environ.get("SSL_CERT_FILE"):
            options["Acquire::https::CAInfo"] = bundle
        self.command = ["apt-get", "-q"]
        for name, value in options.items():
            self.command += ["-o", f"{name}={value}"]

    def run(self, *args: str) -> str:
        """Run apt-get, and return its output.

        Raises:
            AssembleError: if it fails.
        """
        try:
            done = subprocess.run(
                [*self.command, *args],
                cwd=self.downloads,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                text=True,
            )
        except FileNotFoundError:
            raise AssembleError(
                "the image that the build runs in has no apt: it is not based on Debian"
            ) from None
        if done.returncode:
            raise AssembleError(f"`apt-get {args[0]}` failed:\n{done.stdout}")
        return done.stdout

    def download(self, packages: Sequence[str]) -> list[Path]:
        """Download packages and their dependencies. apt verifies them.

        Raises:
            AssembleError: if apt cannot find, verify or download them.
        """
        self.run("update")
        chosen = chosen_packages(self.run("install", "--simulate", *packages))
        self.run("download", *chosen)
        return sorted(self.downloads.glob("*.deb"))


def unpack(package: Path, root: Path) -> list[str]:
    """Unpack a package without running its scripts, and add it to dpkg's database.

    Returns:
        The paths of its files and links, without its folders.
    """
    tar = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", package], check=True, stdout=subprocess.PIPE
    )
    subprocess.run(
        ["tar", "-xf", "-", "-C", root, "--keep-directory-symlink", "--no-same-owner"],
        input=tar.stdout,
        check=True,
    )
    with tempfile.TemporaryFile() as file:
        file.write(tar.stdout)
        file.seek(0)
        with tarfile.open(fileobj=file) as members:
            paths = [(f"/{m.name.removeprefix('./')}", m.isdir()) for m in members]
    fields = subprocess.run(
        ["dpkg-deb", "--field", package],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    name = fields.split("\n", 1)[0].removeprefix("Package: ")
    stanza = fields.replace("\n", "\nStatus: install ok installed\n", 1)
    status = root / STATUS
    others = without(status.read_text(encoding="utf-8"), {name})
    status.write_text(join([*others, stanza]), encoding="utf-8")
    for listing in (root / STATUS).parent.glob(f"info/{name}[.:]*list"):
        listing.unlink()
    listing = (root / STATUS).parent / f"info/{name}.list"
    listing.write_text("".join(f"{path}\n" for path, _ in paths), encoding="utf-8")
    return [path for path, is_folder in paths if not is_folder]


def without(status: str, names: set[str]) -> list[str]:
    """The entries of a package list, without those of some packages."""
    entries = [entry.strip("\n") for entry in status.split("\n\n")]
    return [entry for entry in entries if entry and name_of(entry) not in names]


def name_of(entry: str) -> str:
    """The package's name in an entry of a package list."""
    return entry.split("\n", 1)[0].removeprefix("Package: ")


def join(entries: Sequence[str]) -> str:
    """A package list of entries."""
    return "".join(f"{entry.strip()}\n\n" for entry in entries)


def copy_files(tree: Tree, paths: Sequence[str]) -> None:
    """Copy files with the libraries that they need. A copy of a program becomes a link to it.

    Raises:
        AssembleError: if a file is for another architecture, or needs a missing library.
    """
    programs: dict[bytes, PurePosixPath] = {}
    for path in paths:
        real, links = tree.source.resolve(path)
        if real is None or tree.source.is_folder(real):
            for link in links:  # what it leads to is in the list itself
                tree.link(str(link), str(tree.source.host_path(link).readlink()))
            continue
        origin = tree.source.host_path(real)
        content = hashlib.sha256(origin.read_bytes()).digest() if elf.is_elf(origin) else b""
        if content in programs and real not in tree.copied:
            tree.link(str(real), os.path.relpath(programs[content], real.parent))
            tree.copied.add(real)
            continue
        tree.copy(path, ())
        if content:
            programs.setdefault(content, real)


def add_package_list(tree: Tree, base: Path) -> None:
    """Write the packages of the tools and those of the image below them into one list."""
    assemble.keep_package_list(tree)
    own = tree.host_path(STATUS).read_text(encoding="utf-8")
    entries = without(own, set())
    below = without((base / STATUS).read_text(encoding="utf-8"), {name_of(e) for e in entries})
    tree.write(f"/{STATUS}", join(sorted([*below, *entries], key=name_of)).strip() + "\n")


def remove_what_is_below(output: Path, base: Path) -> None:
    """Remove the files that the image below has too, so that no layer repeats them."""
    for path in sorted(output.rglob("*"), reverse=True):
        below = base / path.relative_to(output)
        if path.is_symlink():
            if below.is_symlink() and below.readlink() == path.readlink():
                path.unlink()
        elif path.is_file():
            if below.is_file() and not below.is_symlink() and same_file(path, below):
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def same_file(one: Path, other: Path) -> bool:
    """Whether two files have the same content and permissions."""
    same_mode = one.stat().st_mode == other.stat().st_mode
    return same_mode and filecmp.cmp(one, other, shallow=False)


def assemble_tools(
    source: Source, packages: Sequence[Path], programs: Path, tree: Tree, base: Path
) -> None:
    """Assemble the tree.

    Args:
        source: The unpacked base image, a copy that this changes.
        packages: The Debian packages to add.
        programs: A folder with programs for /usr/local/bin.
        tree: Where the tools go.
        base: The image's files below the tools.

    Raises:
        AssembleError: if a file is for another architecture, or needs a missing library.
    """
    paths = [path for package in packages for path in unpack(package, source.root)]
    for program in sorted(programs.iterdir()):
        if elf.is_elf(program):
            path = f"/usr/local/bin/{program.name}"
            shutil.copy(program, source.host_path(path))
            paths.append(path)
    copy_files(tree, [path for path in paths if not excluded(path) and source.exists(path)])
    for path, target in LINKS.items():
        tree.link(path, target)
    add_package_list(tree, base)
    remove_what_is_below(tree.output, base)
    assemble.set_timestamps(tree.output)


def main() -> int:
    """Run the command line. The exit code is 0, or 1 with a message on standard error."""
    parser = argparse.ArgumentParser(prog="debian_tools.py")
    parser.add_argument("source", type=Path, help="the unpacked python:3.11-slim of the target")
    parser.add_argument("base", type=Path, help="the output of `assemble.py base`")
    parser.add_argument("programs", type=Path, help="a folder with further programs")
    parser.add_argument("output", type=Path)
    parser.add_argument("--arch", required=True, choices=elf.MACHINES)
    parser.add_argument("--mirror", default="", help=f"what to use instead of {DEBIAN}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        root = Path(work, "root")
        shutil.copytree(
            args.source, root, symlinks=True, ignore_dangling_symlinks=True,
            ignore=lambda folder, _: ["dev", "proc", "sys"] if Path(folder) == args.source else [],
        )  # fmt: skip
        try:
            apt = Apt(args.source / STATUS, args.arch, Path(work), args.mirror)
            packages = apt.download(PACKAGES)
            source = Source(root)
            tree = Tree(source, args.output, args.arch)
            assemble_tools(source, packages, args.programs, tree, args.base)
        except AssembleError as error:
            print(f"debian_tools.py: {error}", file=sys.stderr)
            return 1
    print(f"added {len(packages)} packages of Debian for {args.arch}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

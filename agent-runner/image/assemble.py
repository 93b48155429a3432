"""Assembles the image's file system for any architecture, without running its programs.

`assemble.py base`      copies what the runner needs from an unpacked python:3.11-slim
`assemble.py packages`  removes unneeded files from installed packages, and compiles the rest
`assemble.py verify`    checks that every native file is for the target and finds its libraries

If the base image has an unknown layout, this program fails with a message and does not guess. It
uses only the standard library, and runs with the same version of Python as the image's.
"""

import argparse
import ast
import fnmatch
import importlib.util
import io
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import elf
from compile_app import TIMESTAMP, bytecode, compile_module

PYTHON = "python3.11"

PROGRAMS = (
    "sh bash env cat cp cut date dd df dirname basename du echo false head id install ln ls "
    "mkdir mkfifo mktemp mv nl nproc od paste printenv printf pwd readlink realpath rm rmdir seq "
    "sha256sum md5sum sleep sort split stat tac tail tee test timeout touch tr true "
    "truncate tty uname uniq wc whoami yes [ chmod comm join fold base64 sync tsort "
    "grep egrep fgrep sed awk find xargs tar gzip gunzip zcat diff cmp hostname which getent"
)
"""Programs for agents' shell commands. Most take 30 to 150 kB, bash 1.3 MB, tar 0.5 MB."""

LIBRARIES = [
    "libgcc_s.so.1",  # glibc loads it to end a thread, and Rust's libraries are linked with it
    # They are empty since glibc 2.34, but libraries linked with an older version need them.
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
]
"""Shared libraries that are needed although no copied program is linked with them."""

REQUIRED_FILES = [
    *("/bin/sh", "/bin/bash", "/usr/bin/env"),  # the interpreters in the first lines of scripts
    "/etc/os-release",  # vulnerability scanners read it, and dpkg's package list
    "/etc/debian_version",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/usr/share/zoneinfo",
]

OPTIONAL_FILES = [
    "/etc/bash.bashrc",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/profile",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
    "/lib/terminfo",  # for a shell in a terminal; further below are the other places
    "/usr/lib/locale/C.utf8",
    "/usr/lib/ssl/openssl.cnf",
    "/usr/lib/terminfo",
    "/usr/share/terminfo",  # since Debian 13
]
"""Files that are copied if the base image has them."""

CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
CA_SOURCES = "/usr/share/ca-certificates"
"""The base image's CA certificates, in one file for all programs and packages; and its sources."""

EXCLUDED_NAMES = [
    "__pycache__",
    "posix",  # this and the next are copies of zoneinfo, without and with leap seconds
    "right",
    "leap-seconds.list",  # this and the next two are sources of zoneinfo
    "leapseconds",
    "tzdata.zi",
]
"""Names that are not copied from any folder."""

STDLIB_EXCLUDED = {
    "*.a": "to link programs with libpython",
    "_pydecimal.py": "a fallback for lib-dynload's _decimal",
    "_pyio.py": "a fallback for the built-in io module",
    "config-3.11*": "to link programs with libpython",
    "crypt.py": "the password hashes of /etc/shadow; needs another library",
    "curses": "full-screen programs in a terminal; needs another library",
    "dist-packages": "pip and similar tools",
    "distutils": "to build packages",
    "ensurepip": "to install pip",
    "idlelib": "an editor with windows",
    "lib2to3": "to convert Python 2",
    "msilib": "for Windows",
    "pydoc_data": "the language reference as text",
    "site-packages": "pip and similar tools",
    "sitecustomize.py": "Debian's hook for crash reports; the image has a module of this name",
    "test": "Python's own tests",
    "tests": "a module's own tests",
    "tkinter": "windows",
    "turtle.py": "windows",
    "turtledemo": "windows",
    # In lib-dynload:
    "_crypt.*": "the password hashes of /etc/shadow; needs another library",
    "_ctypes_test.*": "Python's own tests",
    "_curses*": "full-screen programs in a terminal; needs another library",
    "_dbm.*": "old key-value files; needs another library",
    "_gdbm.*": "old key-value files; needs another library",
    "_test*": "Python's own tests",
    "_tkinter.*": "windows",
    "_xxtestfuzz.*": "Python's own tests",
    "nis.*": "a directory service of the 1980s",
    "ossaudiodev.*": "sound",
    "readline.*": "to edit lines in an interactive Python; needs another library",
    "xxlimited*": "an example",
}
"""Names in the standard library that are not copied, and what they are for."""

STDLIB_WITH_BYTECODE = (
    "argparse ast asyncio base64 bz2 collections concurrent.futures concurrent.futures.thread "
    "configparser contextlib "
    "contextvars copy csv ctypes dataclasses datetime decimal email.message email.parser "
    "encodings.cp437 encodings.idna encodings.raw_unicode_escape encodings.unicode_escape enum "
    "fnmatch fractions functools getpass glob gzip hashlib hmac http.client http.cookiejar "
    "importlib.metadata importlib.resources inspect ipaddress itertools json logging.config "
    "logging.handlers lzma mimetypes multiprocessing.context multiprocessing.managers "
    "multiprocessing.pool multiprocessing.queues multiprocessing.spawn netrc numbers operator "
    "pathlib pickle pkgutil platform pprint queue random re secrets selectors shlex shutil "
    "signal socket socketserver sqlite3 ssl string struct subprocess tarfile tempfile textwrap "
    "threading tomllib traceback types typing urllib.request uuid warnings weakref "
    "xml.etree.ElementTree zipfile zoneinfo"
)
"""The standard library's modules to compile, together with everything that they import.

They are the modules that the worker imports, and those that agents' scripts are likely to import.
The others run from source. Compiling them too would add 4 MB."""

PACKAGES_SOURCES = "sources.tar.bz2"
"""The file with the packages' sources, for tracebacks. Beside the bytecode, they would take seven
times the space."""

PACKAGES_SOURCES_BESIDE = ["anyio/__init__.py", "anyio/abc/__init__.py"]
"""Modules that read their own source when they are imported, so it is not worth compressing."""

PACKAGES_WITHOUT_SOURCES = "*_pb2*.py"
"""Modules whose sources are not kept at all. They are generated, and do not help in a traceback."""

PACKAGES_UNUSED_LIBRARY = "libstdc++.so.6"
"""A library of 2.5 MB that protobuf's native part names as needed, without using it."""

PACKAGES_EXCLUDED_SUFFIXES = {
    # Type stubs, and the sources of native code.
    *(".pyi", ".c", ".cc", ".cpp", ".h", ".hpp", ".pxd", ".pyx", ".rs"),
    # Written by an installer. They refer to paths that do not exist in the image.
    *(".pth", ".egg-link"),
}

PACKAGES_EXCLUDED = [
    "bin",  # the packages' command-line programs
    "temporalio/bridge/sdk-core",  # 11 MB of Rust sources and protobuf files
    "temporalio/bridge/src",
    "temporalio/bridge/Cargo.lock",
    "temporalio/bridge/Cargo.toml",
    "temporalio/**/*_pb2_grpc.py",  # for grpcio; temporalio uses its native bridge instead
    "temporalio/contrib",  # for libraries that are not installed
    "temporalio/testing",
    "pydantic/v1",  # for programs that still use version 1
    "idna/uts46data.py",  # for normalizing host names, which the runner does not do
    "multidict/*.so",  # 1.5 MB; the package has the same code in Python, and few headers are used
    "anyio/_backends/_trio.py",
    "anyio/pytest_plugin.py",
    "grpclib/channelz",
    "grpclib/health",  # this and the next two are for servers
    "grpclib/plugin",
    "grpclib/reflection",
    "grpclib/testing.py",
    "httpx/_main.py",  # the command-line program
    "pydantic/mypy.py",  # a plug-in for the type checker
    "*/tests",
    "*/test",
    # METADATA and the licenses are kept, for vulnerability scanners and for people.
    "*.dist-info/RECORD",
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
    "*.dist-info/uv_cache.json",
    "*.dist-info/sboms",
    ".lock",
]
"""Patterns of unneeded files, relative to the folder in which packages are installed."""

USER, UID = "stigmer", 1000

FOLDERS = {
    "/dev": 0o755,
    "/home": 0o755,
    "/proc": 0o755,
    "/root": 0o700,
    "/run": 0o755,
    "/sys": 0o755,
    "/tmp": 0o1777,  # noqa: S108
    "/var/tmp": 0o1777,  # noqa: S108
}
"""Folders that are created even if they are empty."""


class AssembleError(Exception):
    """The image cannot be assembled. The message says why."""


class Source:
    """An unpacked image. Links are resolved inside it, as its own programs would do.

    It does not change, so each path is resolved only once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._resolved: dict[str, tuple[PurePosixPath | None, tuple[PurePosixPath, ...]]] = {}

    def host_path(self, path: PurePosixPath | str) -> Path:
        """Return the path on this machine for a path in the image, without resolving links."""
        return self.root / str(path).lstrip("/")

    def resolve(
        self, path: PurePosixPath | str
    ) -> tuple[PurePosixPath | None, tuple[PurePosixPath, ...]]:
        """Resolve the links in a path.

        Returns:
            The path without links, or None if it does not exist; and the links on the way.
        """
        key = str(path)
        if key not in self._resolved:
            self._resolved[key] = self._resolve(path)
        return self._resolved[key]

    def _resolve(
        self, path: PurePosixPath | str
    ) -> tuple[PurePosixPath | None, tuple[PurePosixPath, ...]]:
        remaining = [part for part in PurePosixPath(path).parts if part != "/"]
        current = PurePosixPath("/")
        links: list[PurePosixPath] = []
        while remaining:
            part, remaining = remaining[0], remaining[1:]
            if part == "..":
                current = current.parent
                continue
            current /= part
            try:
                mode = self.host_path(current).lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                return None, tuple(links)
            if stat.S_ISLNK(mode):
                links.append(current)
                if len(links) > 40:
                    raise AssembleError(f"`{path}` contains a loop of links")
                target = PurePosixPath(self.host_path(current).readlink())
                remaining = [part for part in target.parts if part != "/"] + remaining
                current = PurePosixPath("/") if target.is_absolute() else current.parent
        return current, tuple(links)

    def exists(self, path: PurePosixPath | str) -> bool:
        """Whether a path exists."""
        return self.resolve(path)[0] is not None

    def is_folder(self, path: PurePosixPath | str) -> bool:
        """Whether a path leads to a folder."""
        real = self.resolve(path)[0]
        return real is not None and self.host_path(real).is_dir()

    def find(self, folders: list[str], name: str) -> str | None:
        """Return the first existing path of a name in several folders; None if there is none."""
        return next((f"{f}/{name}" for f in folders if self.exists(f"{f}/{name}")), None)


class Tree:
    """The file system of the image, with files copied from a source."""

    def __init__(self, source: Source, output: Path, arch: str) -> None:
        self.source = source
        self.output = output
        self.arch = arch
        self.copied: set[PurePosixPath] = set()

    def host_path(self, path: PurePosixPath | str) -> Path:
        """Return the path on this machine for a path in the image."""
        return self.output / str(path).lstrip("/")

    def copy(
        self, path: PurePosixPath | str, excluded: Iterable[str] = EXCLUDED_NAMES
    ) -> PurePosixPath:
        """Copy a file or folder, the links in its path, and the libraries that it needs.

        Returns:
            The path without links.

        Raises:
            AssembleError: if it does not exist.
        """
        real, links = self.source.resolve(path)
        if real is None:
            raise AssembleError(f"the base image has no `{path}`")
        for link in links:
            self._link(link)
        if real in self.copied:
            return real
        self.copied.add(real)
        origin = self.source.host_path(real)
        if origin.is_dir():
            self._folder(real)
            for child in sorted(origin.iterdir()):
                if not any(fnmatch.fnmatchcase(child.name, pattern) for pattern in excluded):
                    inside = real / child.name
                    # Ignore broken links in a folder.
                    if self.source.exists(inside):
                        self.copy(inside, excluded)
        elif origin.is_file():
            self._file(real, origin)
        return real

    def write(self, path: str, text: str) -> None:
        """Create a file that is not in the source."""
        self._folder(PurePosixPath(path).parent)
        self.host_path(path).write_text(text, encoding="utf-8")
        self.host_path(path).chmod(0o644)

    def link(self, path: str, target: str) -> None:
        """Create a link that is not in the source, unless the path exists."""
        self._folder(PurePosixPath(path).parent)
        if not os.path.lexists(self.host_path(path)):
            self.host_path(path).symlink_to(target)

    def _folder(self, path: PurePosixPath) -> None:
        real = self.source.resolve(path)[0]
        self.host_path(real or path).mkdir(mode=0o755, parents=True, exist_ok=True)

    def _link(self, link: PurePosixPath) -> None:
        self._folder(link.parent)
        if not self.host_path(link).is_symlink():
            self.host_path(link).symlink_to(self.source.host_path(link).readlink())
        self.copied.add(link)

    def _file(self, path: PurePosixPath, origin: Path) -> None:
        self._folder(path.parent)
        is_elf = elf.is_elf(origin)
        if is_elf:
            self.host_path(path).write_bytes(elf.strip_sections(origin.read_bytes()))
        else:
            shutil.copyfile(origin, self.host_path(path))
        # Setuid bits are not copied: nothing in the image needs to become root.
        self.host_path(path).chmod(0o755 if origin.stat().st_mode & 0o111 else 0o644)
        if is_elf:
            for library in required_libraries(self.source, path, self.arch):
                self.copy(library)


def library_folders(source: Source) -> list[str]:
    """The folders in which the dynamic loader looks for libraries, in order."""
    folders = []
    for conf in sorted(source.host_path("/etc/ld.so.conf.d").glob("*.conf")):
        lines = conf.read_text(encoding="utf-8").splitlines()
        folders += [line.strip() for line in lines if line.startswith("/")]
    return [*folders, "/lib", "/usr/lib", "/lib64", "/usr/lib64"]


def required_libraries(source: Source, path: PurePosixPath, arch: str) -> list[str]:
    """Return the paths of the loader and the libraries that a program or library needs.

    Raises:
        AssembleError: if one is missing, or if the file is for another architecture.
    """
    file = read_elf(source.host_path(path), arch)
    found = [file.interpreter] if file.interpreter else []
    own = [entry.replace("$ORIGIN", str(path.parent)) for entry in file.search]
    for name in file.needed:
        library = source.find([*own, *library_folders(source)], name)
        if library is None:
            raise AssembleError(f"`{path}` needs `{name}`, which the base image does not have")
        found.append(library)
    return found


def read_elf(path: Path, arch: str) -> elf.Elf:
    """Read an ELF file.

    Raises:
        AssembleError: if it is for another architecture, or broken.
    """
    try:
        file = elf.read(path)
    except ValueError as error:
        raise AssembleError(str(error)) from None
    if file.machine != elf.MACHINES[arch]:
        names = {number: name for name, number in elf.MACHINES.items()}
        other = names.get(file.machine, f"machine {file.machine}")
        raise AssembleError(f"`{path}` is for {other}, the image is for {arch}")
    return file


def assemble_base(source: Source, output: Path, arch: str) -> None:
    """Copy Python, the programs for shell commands, and everything that they need."""
    tree = Tree(source, output, arch)
    binary = _copy_python(tree)
    missing = []
    for program in PROGRAMS.split():
        found = source.find(["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"], program)
        if found:
            tree.copy(found)
        else:
            missing.append(program)
    if missing:
        raise AssembleError(f"the base image has no {', '.join(f'`{name}`' for name in missing)}")
    for name in LIBRARIES:
        library = source.find(library_folders(source), name)
        if library is None:
            raise AssembleError(f"the base image has no `{name}`")
        tree.copy(library)
    for path in REQUIRED_FILES:
        tree.copy(path)
    for path in OPTIONAL_FILES:
        if source.exists(path):
            tree.copy(path)
    _write_certificates(tree)
    keep_package_list(tree)
    _write_own_files(tree, binary)


def _copy_python(tree: Tree) -> PurePosixPath:
    """Copy the interpreter and the standard library. Returns the interpreter's real path."""
    path = tree.source.find(["/usr/local/bin", "/usr/bin"], PYTHON)
    if path is None:
        raise AssembleError(f"the base image has no `{PYTHON}` in /usr/local/bin or /usr/bin")
    binary = tree.copy(path)
    library = f"{binary.parent.parent}/lib/{PYTHON}"
    for landmark in ("os.py", "lib-dynload"):
        if not tree.source.exists(f"{library}/{landmark}"):
            raise AssembleError(f"`{binary}` has no standard library in `{library}`")
    tree.copy(library, [*EXCLUDED_NAMES, *STDLIB_EXCLUDED])
    for name in ("python3", "python"):
        tree.link(f"{binary.parent}/{name}", PYTHON)
    stdlib = tree.host_path(library)
    chosen = (stdlib / file for file in stdlib_with_bytecode())
    compile_sources(stdlib, library, (file for file in chosen if file.is_file()))
    return binary


def _write_certificates(tree: Tree) -> None:
    """Write the CA bundle, and a link to it where OpenSSL looks for it."""
    bundle = tree.source.host_path(CA_BUNDLE)
    if bundle.is_file() and bundle.stat().st_size:
        tree.copy(CA_BUNDLE)
    else:
        # In some base images the packages are unpacked but not configured.
        parts = sorted(tree.source.host_path(CA_SOURCES).rglob("*.crt"))
        if not parts:
            raise AssembleError(
                f"the base image has no CA certificates: `{CA_BUNDLE}` does not exist"
            )
        tree.write(CA_BUNDLE, "".join(part.read_text(encoding="utf-8") for part in parts))
    tree.link("/usr/lib/ssl/cert.pem", CA_BUNDLE)


def keep_package_list(tree: Tree) -> None:
    """Copy dpkg's entry and the license of each package from which a file was copied."""
    status = tree.source.host_path("/var/lib/dpkg/status")
    if not status.is_file():
        raise AssembleError("the base image has no dpkg status: it is not based on Debian")
    # Folders, and links to folders such as /bin, belong to many packages. They do not count.
    copied = {_unmerged(path) for path in tree.copied if not tree.source.is_folder(path)}
    owners = set()
    for listing in sorted(tree.source.host_path("/var/lib/dpkg/info").glob("*.list")):
        lines = listing.read_text(encoding="utf-8").splitlines()
        if not copied.isdisjoint(map(_unmerged, lines)):
            owners.add(listing.stem.split(":")[0])
    stanzas = [
        stanza
        for stanza in status.read_text(encoding="utf-8").split("\n\n")
        if stanza.removeprefix("Package: ").split("\n")[0] in owners
    ]
    if not any(stanza.startswith("Package: libc6\n") for stanza in stanzas):
        raise AssembleError("the base image has no package libc6: it is not a Debian with glibc")
    tree.write("/var/lib/dpkg/status", "\n\n".join(stanzas).strip() + "\n")
    for owner in sorted(owners):
        license_file = f"/usr/share/doc/{owner}/copyright"
        if tree.source.exists(license_file):
            tree.copy(license_file)


def _unmerged(path: PurePosixPath | str) -> str:
    """Remove /usr from a path. Since /bin and /lib are links into /usr, dpkg lists both forms."""
    return str(path).removeprefix("/usr")


def _write_own_files(tree: Tree, binary: PurePosixPath) -> None:
    tree.write(
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n"
        f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    )
    tree.write("/etc/group", f"root:x:0:\n{USER}:x:{UID}:\nnogroup:x:65534:\n")
    # A virtual environment, so that the base image's layout and packages do not matter. The
    # Dockerfile copies the runner's packages into it.
    version = PYTHON.removeprefix("python")
    tree.write(
        "/app/.venv/pyvenv.cfg",
        f"home = {binary.parent}\ninclude-system-site-packages = false\nversion = {version}\n",
    )
    tree.link(f"/app/.venv/bin/{PYTHON}", str(binary))
    for name in ("python3", "python"):
        tree.link(f"/app/.venv/bin/{name}", PYTHON)
    for folder, mode in FOLDERS.items():
        tree.host_path(folder).mkdir(parents=True, exist_ok=True)
        tree.host_path(folder).chmod(mode)


def strip_packages(folder: Path) -> None:
    """Remove unneeded files from installed packages."""
    for pattern in PACKAGES_EXCLUDED:
        for path in sorted(folder.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for path in sorted(folder.rglob("*")):
        if path.suffix in PACKAGES_EXCLUDED_SUFFIXES and path.is_file():
            path.unlink()
    for path in _files(folder):
        if elf.is_elf(path):
            stripped = elf.strip_sections(path.read_bytes())
            path.write_bytes(elf.remove_unused_library(stripped, PACKAGES_UNUSED_LIBRARY))
    for path in folder.glob("certifi/cacert.pem"):
        path.unlink()
        path.symlink_to(CA_BUNDLE)
    for path in folder.glob("*.dist-info/METADATA"):
        # The headers end at the first empty line. A README follows.
        headers, _, _ = path.read_text(encoding="utf-8").partition("\n\n")
        path.write_text(f"{headers}\n", encoding="utf-8")
    # Folders that contained only type stubs are empty now.
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def compile_sources(folder: Path, runtime_path: str, sources: Iterable[Path]) -> None:
    """Compile modules to bytecode, in `__pycache__`. Tracebacks show `runtime_path` as the folder.

    Raises:
        AssembleError: if a module cannot be compiled.
    """
    for source in sorted(sources):
        inside = source.relative_to(folder)
        try:
            compile_module(str(source), f"{runtime_path}/{inside}")
        except (SyntaxError, ValueError) as error:
            raise AssembleError(f"`{inside}` cannot be compiled: {error}") from None


def compile_packages(folder: Path, runtime_path: str) -> None:
    """Replace the packages' sources with bytecode, and move the sources to PACKAGES_SOURCES.

    Raises:
        AssembleError: if a module cannot be compiled.
    """
    beside = [path for path in (folder / p for p in PACKAGES_SOURCES_BESIDE) if path.exists()]
    archived = []
    # Sources are compressed in a thread, while the next ones are compiled.
    with (
        tarfile.open(folder / PACKAGES_SOURCES, "w:bz2", format=tarfile.USTAR_FORMAT) as archive,
        ThreadPoolExecutor(max_workers=1) as thread,
    ):
        for path in sorted({*folder.rglob("*.py")} - set(beside)):
            inside = path.relative_to(folder)
            try:
                source = without_docstrings(importlib.util.decode_source(path.read_bytes()))
                path.with_suffix(".pyc").write_bytes(bytecode(source, f"{runtime_path}/{inside}"))
            except (SyntaxError, ValueError) as error:
                raise AssembleError(f"`{inside}` cannot be compiled: {error}") from None
            path.unlink()
            if not path.match(PACKAGES_WITHOUT_SOURCES):
                member = tarfile.TarInfo(str(inside))
                member.size, member.mtime = len(source.encode()), TIMESTAMP
                archived.append(thread.submit(archive.addfile, member, io.BytesIO(source.encode())))
        for written in archived:
            written.result()
    reader = folder / "sitecustomize.py"
    shutil.copyfile(Path(__file__).with_name(reader.name), reader)  # without its mode
    compile_sources(folder, runtime_path, [*beside, reader])


def without_docstrings(source: str) -> str:
    """Replace the docstrings of functions and classes, which no run reads, with `pass`.

    Lines keep their numbers. Decorated classes keep theirs: without one, `dataclass` would make one
    at each start.

    Raises:
        SyntaxError, ValueError: if it is not valid Python.
    """
    lines = source.encode().splitlines(keepends=True)  # ast counts columns in bytes
    for node in _definitions(ast.parse(source)):
        decorated_class = isinstance(node, ast.ClassDef) and node.decorator_list
        if ast.get_docstring(node, clean=False) is not None and not decorated_class:
            text = node.body[0]
            first, last = text.lineno - 1, (text.end_lineno or text.lineno) - 1
            rest = lines[last][text.end_col_offset :]
            lines[first] = lines[first][: text.col_offset] + b"pass" + rest
            lines[first + 1 : last + 1] = [b"\n"] * (last - first)
    return b"".join(lines).decode()


_Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(module: ast.Module) -> Iterator[_Definition]:
    """Return the functions and classes.

    It does not look into expressions, which have none. `ast.walk` does, and takes 4 times as long.
    """
    pending: list[ast.AST] = [module]
    while pending:
        node = pending.pop()
        if isinstance(node, _Definition):
            yield node
        for part in ("body", "handlers", "orelse", "finalbody", "cases"):
            pending.extend(getattr(node, part, ()))


def stdlib_with_bytecode() -> set[Path]:
    """Return the files of the standard library to compile, as relative paths.

    This imports them with the Python that runs this program, which has the image's version.
    """
    library = Path(os.__file__).resolve().parent
    for name in STDLIB_WITH_BYTECODE.split():
        importlib.import_module(name)
    files = [Path(str(module.__file__)) for module in list(sys.modules.values())
             if getattr(module, "__file__", None)]  # fmt: skip
    return {
        file.resolve().relative_to(library)
        for file in files
        if file.suffix == ".py" and file.resolve().is_relative_to(library)
    }


def verify(root: Path, packages: Path, arch: str) -> int:
    """Check that every native file is for the architecture and that its libraries exist.

    Returns:
        The number of native files.

    Raises:
        AssembleError: if a check fails.
    """
    source = Source(root)
    count = 0
    for folder in (root, packages):
        for path in _files(folder):
            if not elf.is_elf(path):
                continue
            count += 1
            if folder == root:
                required_libraries(source, PurePosixPath("/") / path.relative_to(root), arch)
                continue
            file = read_elf(path, arch)
            own = [entry.replace("$ORIGIN", str(path.parent)) for entry in file.search]
            for name in file.needed:
                if not any((Path(f) / name).exists() for f in own) and not source.find(
                    library_folders(source), name
                ):
                    raise AssembleError(
                        f"`{path.relative_to(packages)}` needs `{name}`, "
                        "which is not in the image: add it to LIBRARIES in assemble.py"
                    )
    if not count:
        raise AssembleError(f"`{root}` and `{packages}` contain no native files")
    return count


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def set_timestamps(folder: Path) -> None:
    """Set the modification time of a folder and everything in it to TIMESTAMP."""
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (TIMESTAMP, TIMESTAMP), follow_symlinks=False)


def make_readable(folder: Path) -> None:
    """Make a folder readable for everyone. Files that their owner may execute stay executable."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)


def main() -> int:
    """Run the command line. The exit code is 0, or 1 with a message on standard error."""
    parser = argparse.ArgumentParser(prog="assemble.py")
    commands = parser.add_subparsers(dest="command", required=True)
    base = commands.add_parser("base")
    base.add_argument("source", type=Path, help="the unpacked python:3.11-slim of the target")
    base.add_argument("output", type=Path)
    packages = commands.add_parser("packages")
    packages.add_argument("folder", type=Path)
    packages.add_argument("runtime_path", help="where the folder will be in the image")
    check = commands.add_parser("verify")
    check.add_argument("root", type=Path, help="the output of `base`")
    check.add_argument("packages", type=Path)
    for command in (base, check):
        command.add_argument(
            "--arch", required=True, help="the target architecture, as in TARGETARCH"
        )
    args = parser.parse_args()
    try:
        if "arch" in args and args.arch not in elf.MACHINES:
            known = " or ".join(elf.MACHINES)
            raise AssembleError(f"unknown architecture `{args.arch}`: use {known}")
        match args.command:
            case "base":
                assemble_base(Source(args.source), args.output, args.arch)
                set_timestamps(args.output)
            case "packages":
                strip_packages(args.folder)
                compile_packages(args.folder, args.runtime_path)
                make_readable(args.folder)
                set_timestamps(args.folder)
            case "verify":
                count = verify(args.root, args.packages, args.arch)
                print(f"checked {count} native files: all for {args.arch}, all libraries found")
    except AssembleError as error:
        print(f"assemble.py {args.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

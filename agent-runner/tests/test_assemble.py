"""Assembles images from small artificial base images."""

import os
import py_compile
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path, PurePosixPath

import assemble
import compile_app
import elf
import pytest
from assemble import AssembleError, Source, Tree

X86_64, AARCH64 = elf.MACHINES["amd64"], elf.MACHINES["arm64"]


def elf_file(
    machine: int = X86_64,
    needed: tuple[str, ...] = (),
    runpath: str = "",
    interpreter: str = "",
) -> bytes:
    """An ELF file without code, loaded at 0x400000."""
    base, strings, offsets = 0x400000, b"\0", []
    for text in (*needed, runpath, interpreter):
        offsets.append(len(strings))
        strings += text.encode() + b"\0"
    entries = [(1, offset) for offset in offsets[: len(needed)]]
    if runpath:
        entries.append((29, offsets[len(needed)]))
    size, count = 56, 3 if interpreter else 2
    strings_at = 64 + size * count
    dynamic_at = strings_at + len(strings)
    dynamic = b"".join(struct.pack("<QQ", *e) for e in [*entries, (5, base + strings_at), (0, 0)])
    total = dynamic_at + len(dynamic)

    def header(kind: int, offset: int, length: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, 4, offset, base + offset, 0, length, length, 8)

    headers = header(1, 0, total) + header(2, dynamic_at, len(dynamic))
    if interpreter:
        headers += header(3, strings_at + offsets[-1], len(interpreter) + 1)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    start = struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, size, count, 0, 0, 0)
    return ident + start + headers + strings + dynamic


def with_versions(needed: tuple[str, ...], versioned: tuple[str, ...]) -> bytes:
    """An ELF file that requires versions of symbols from some of the libraries that it needs."""
    base, strings, offsets = 0x400000, b"\0", {}
    for name in needed:
        offsets[name] = len(strings)
        strings += name.encode() + b"\0"
    versions = b"".join(
        # The next entry is 16 bytes after this one; the last has none.
        struct.pack("<HHIII", 1, 0, offsets[name], 0, 16 * (name != versioned[-1]))
        for name in versioned
    )
    start = 64 + 2 * 56
    entries = [
        *((1, offsets[name]) for name in needed),
        *((5, base + start), (0x6FFFFFFE, base + start + len(strings))),
        *((0x6FFFFFFF, len(versioned)), (0, 0)),
    ]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    dynamic_at = start + len(strings) + len(versions)
    total = dynamic_at + len(dynamic)

    def header(kind: int, offset: int, length: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, 4, offset, base + offset, 0, length, length, 8)

    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    begin = struct.pack("<HHIQQQIHHHHHH", 3, X86_64, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    headers = header(1, 0, total) + header(2, dynamic_at, len(dynamic))
    return ident + begin + headers + strings + versions + dynamic


def put(root: Path, path: str, content: bytes | str = "", mode: int = 0o644) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(mode)


def link(root: Path, path: str, target: str) -> None:
    (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / path.lstrip("/")).symlink_to(target)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The smallest base image that is accepted. /bin and /lib are links."""
    root = tmp_path / "base"
    for name in ("bin", "lib"):
        (root / "usr" / name).mkdir(parents=True)
        link(root, name, f"usr/{name}")
    lib = "/usr/lib/x86_64-linux-gnu"
    loader = f"{lib}/ld-linux-x86-64.so.2"
    put(root, loader, elf_file(), 0o755)
    put(root, f"{lib}/libc.so.6", elf_file(), 0o755)
    for name in assemble.LIBRARIES:
        put(root, f"{lib}/{name}", elf_file(needed=("libc.so.6",)))
    put(root, "/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n")
    put(root, "/etc/ld.so.conf.d/x86_64.conf", f"# one folder\n{lib}\n")
    program = elf_file(needed=("libc.so.6",), interpreter=loader.removeprefix("/usr"))
    for name in assemble.PROGRAMS.split():
        put(root, f"/usr/bin/{name}", program, 0o4755)
    (root / "usr/bin/awk").unlink()
    put(root, "/usr/bin/mawk", program, 0o755)
    link(root, "/etc/alternatives/awk", "/usr/bin/mawk")
    link(root, "/usr/bin/awk", "/etc/alternatives/awk")

    python = elf_file(needed=("libpython3.11.so.1.0",), runpath="$ORIGIN/../lib")
    put(root, "/usr/local/bin/python3.11", python, 0o755)
    put(root, "/usr/local/lib/libpython3.11.so.1.0", elf_file(needed=("libc.so.6",)))
    stdlib = "/usr/local/lib/python3.11"
    for name in ("os.py", "json/__init__.py", "tabnanny.py", "turtle.py", "idlelib/run.py"):
        put(root, f"{stdlib}/{name}", "x = {'a', 'b'}\n")
    put(root, f"{stdlib}/lib-dynload/_ssl.so", elf_file(needed=("libssl.so.3",)))
    put(root, f"{stdlib}/lib-dynload/_tkinter.so", elf_file(needed=("libtk.so",)))
    put(root, f"{stdlib}/site-packages/pip/__init__.py")
    put(root, f"{stdlib}/__pycache__/os.cpython-311.pyc", "stale")
    put(root, f"{lib}/libssl.so.3.0.1", elf_file())
    link(root, f"{lib}/libssl.so.3", "libssl.so.3.0.1")

    put(root, "/usr/lib/os-release", "ID=debian\n")
    link(root, "/etc/os-release", "../usr/lib/os-release")
    put(root, "/etc/debian_version", "12\n")
    put(root, "/usr/share/zoneinfo/UTC")
    for name in ("right/UTC", "posix/UTC", "tzdata.zi", "leapseconds", "leap-seconds.list"):
        put(root, f"/usr/share/zoneinfo/{name}")
    put(root, "/etc/ssl/certs/ca-certificates.crt", "PEM\n")
    put(root, "/var/lib/dpkg/status", "\n\n".join([
        "Package: libc6\nVersion: 2", "Package: libssl3\nVersion: 3",
        "Package: perl-base\nVersion: 5"]) + "\n")  # fmt: skip
    put(root, "/var/lib/dpkg/info/libc6:amd64.list", "/.\n/lib\n/lib/x86_64-linux-gnu/libc.so.6\n")
    put(root, "/var/lib/dpkg/info/libssl3:amd64.list", f"/usr\n{lib}/libssl.so.3\n")
    put(root, "/var/lib/dpkg/info/perl-base.list", "/bin\n/usr\n/usr/bin\n/usr/bin/perl\n")
    put(root, "/usr/share/doc/libssl3/copyright", "(c)\n")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "tree"


def assembled(base: Path, out: Path) -> set[str]:
    assemble.assemble_base(Source(base), out, "amd64")
    files = (path for path in out.rglob("*") if path.is_symlink() or path.is_file())
    return {f"/{path.relative_to(out)}" for path in files}


def test_which_files_are_copied(base: Path, out: Path) -> None:
    files = assembled(base, out)
    stdlib, lib = "/usr/local/lib/python3.11", "/usr/lib/x86_64-linux-gnu"
    assert {f for f in files if f.startswith(stdlib)} == {
        f"{stdlib}/os.py",
        f"{stdlib}/__pycache__/os.cpython-311.pyc",
        f"{stdlib}/json/__init__.py",
        f"{stdlib}/json/__pycache__/__init__.cpython-311.pyc",
        f"{stdlib}/tabnanny.py",  # not in STDLIB_WITH_BYTECODE
        f"{stdlib}/lib-dynload/_ssl.so",
    }
    assert {f for f in files if f.startswith(lib)} == {
        *(f"{lib}/{name}" for name in assemble.LIBRARIES),
        *(f"{lib}/{name}" for name in ("ld-linux-x86-64.so.2", "libc.so.6")),
        *(f"{lib}/{name}" for name in ("libssl.so.3", "libssl.so.3.0.1")),
    }
    assert {"/usr/bin/awk", "/etc/alternatives/awk", "/usr/bin/mawk", "/bin", "/lib"} <= files
    assert {"/usr/share/zoneinfo/UTC", "/etc/os-release", "/usr/lib/os-release"} <= files
    assert not {f for f in files if f.startswith("/usr/share/zoneinfo/")} - {
        "/usr/share/zoneinfo/UTC"
    }


def test_symbols_of_the_bases_programs_are_removed(base: Path, out: Path) -> None:
    put(base, "/usr/bin/ls", with_sections(100), 0o755)
    assembled(base, out)
    assert (out / "usr/bin/ls").read_bytes() == elf.strip_sections(with_sections(100))
    assert (out / "usr/bin/ls").stat().st_mode & 0o777 == 0o755


def test_links_keep_their_targets(base: Path, out: Path) -> None:
    assembled(base, out)
    assert (out / "bin").readlink() == Path("usr/bin")
    assert (out / "usr/bin/awk").readlink() == Path("/etc/alternatives/awk")
    assert Source(out).resolve("/bin/awk")[0] == PurePosixPath("/usr/bin/mawk")
    assert Source(out).resolve("/app/.venv/bin/python")[0] == PurePosixPath(
        "/usr/local/bin/python3.11"
    )
    assert Source(out).resolve("/usr/lib/ssl/cert.pem")[0] == PurePosixPath(assemble.CA_BUNDLE)


def test_setuid_bits_are_removed(base: Path, out: Path) -> None:
    assembled(base, out)
    assert (base / "usr/bin/cat").stat().st_mode & 0o7777 == 0o4755
    assert (out / "usr/bin/cat").stat().st_mode & 0o7777 == 0o755


def test_the_package_list_contains_only_copied_packages(base: Path, out: Path) -> None:
    assembled(base, out)
    assert (out / "var/lib/dpkg/status").read_text() == (
        "Package: libc6\nVersion: 2\n\nPackage: libssl3\nVersion: 3\n"
    )
    assert (out / "usr/share/doc/libssl3/copyright").read_text() == "(c)\n"


def test_users_and_folders(base: Path, out: Path) -> None:
    assembled(base, out)
    assert "stigmer:x:1000:1000::/home/stigmer:/bin/bash" in (out / "etc/passwd").read_text()
    assert (out / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert "home = /usr/local/bin\n" in (out / "app/.venv/pyvenv.cfg").read_text()


def test_debians_layout_of_python(base: Path, out: Path) -> None:
    (base / "usr/local/bin/python3.11").unlink()
    (base / "usr/local/lib/python3.11").rename(base / "usr/lib/python3.11")
    put(base, "/usr/bin/python3.11", elf_file(needed=("libc.so.6",)), 0o755)
    put(base, "/usr/lib/python3.11/sitecustomize.py")
    link(base, "/usr/local/bin/python3.11", "/usr/bin/python3.11")
    files = assembled(base, out)
    assert {"/usr/bin/python3.11", "/usr/lib/python3.11/os.py"} <= files
    # It would be loaded instead of the one of the packages.
    assert "/usr/lib/python3.11/sitecustomize.py" not in files
    assert "home = /usr/bin\n" in (out / "app/.venv/pyvenv.cfg").read_text()


def test_unconfigured_certificates_are_joined(base: Path, out: Path) -> None:
    (base / "etc/ssl/certs/ca-certificates.crt").unlink()
    put(base, "/usr/share/ca-certificates/mozilla/b.crt", "B\n")
    put(base, "/usr/share/ca-certificates/mozilla/a.crt", "A\n")
    assembled(base, out)
    assert (out / "etc/ssl/certs/ca-certificates.crt").read_text() == "A\nB\n"


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("usr/bin/sed", "the base image has no `sed`"),
        ("usr/local/bin/python3.11", "has no `python3.11` in /usr/local/bin or /usr/bin"),
        ("usr/local/lib/python3.11/os.py", "has no standard library in `/usr/local/lib/python"),
        (
            "usr/lib/x86_64-linux-gnu/libssl.so.3",
            "`libssl.so.3`, which the base image does not have",
        ),
        ("usr/lib/x86_64-linux-gnu/libgcc_s.so.1", "the base image has no `libgcc_s.so.1`"),
        ("etc/ssl/certs/ca-certificates.crt", "the base image has no CA certificates"),
        ("etc/debian_version", "the base image has no `/etc/debian_version`"),
        ("var/lib/dpkg/status", "no dpkg status: it is not based on Debian"),
    ],
)
def test_an_incomplete_base_image_is_refused(
    base: Path, out: Path, gone: str, message: str
) -> None:
    (base / gone).unlink()
    with pytest.raises(AssembleError) as caught:
        assembled(base, out)
    assert message in str(caught.value)


def test_a_base_image_for_another_architecture_is_refused(base: Path, out: Path) -> None:
    with pytest.raises(AssembleError, match=r"is for amd64, the image is for arm64"):
        assemble.assemble_base(Source(base), out, "arm64")


def test_a_loop_of_links_is_refused(base: Path) -> None:
    link(base, "/a", "b")
    link(base, "/b", "a")
    with pytest.raises(AssembleError, match="`/a` contains a loop of links"):
        Source(base).resolve("/a")


def test_links_do_not_lead_out_of_the_image(base: Path, out: Path) -> None:
    link(base, "/etc/out", "../../../../etc/debian_version")
    Tree(Source(base), out, "amd64").copy("/etc/out")
    assert (out / "etc/debian_version").read_text() == "12\n"


def test_assembling_twice_gives_the_same_result(base: Path, tmp_path: Path) -> None:
    prints = []
    for name in ("one", "two"):
        command = [sys.executable, assemble.__file__, "base", "--arch", "amd64"]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        paths = [str(base), str(tmp_path / name)]
        subprocess.run([*command, *paths], check=True, env=environment)
        tree = tmp_path / name
        prints.append(
            [
                (p.relative_to(tree), p.lstat().st_mtime, p.read_bytes() if p.is_file() else b"")
                for p in sorted(tree.rglob("*"))
                if not p.is_symlink()
            ]
        )
    assert prints[0] == prints[1]


def with_sections(length: int, appended: bytes = b"") -> bytes:
    """`elf_file` with a symbol table of this length and the headers of two sections."""
    loaded = elf_file(needed=("libc.so.6",))
    names = struct.pack("<IIQQQQ24x", 0, 0, 0, 0, 0, 0)
    symbols = struct.pack("<IIQQQQ24x", 0, 2, 0, 0, len(loaded), length)
    file = bytearray(loaded + bytes(range(1, length + 1)) + names + symbols + appended)
    struct.pack_into("<Q", file, 40, len(loaded) + length)
    struct.pack_into("<HHH", file, 58, 64, 2, 1)
    return bytes(file)


def test_data_outside_of_segments_is_removed(tmp_path: Path) -> None:
    put(tmp_path, "before.so", with_sections(100))
    put(tmp_path, "after.so", elf.strip_sections(with_sections(100)))
    size = len(elf_file(needed=("libc.so.6",)))
    assert (tmp_path / "after.so").stat().st_size == size
    assert elf.read(tmp_path / "after.so") == elf.read(tmp_path / "before.so")
    # Only the fields that refer to sections differ: e_shoff, e_shnum, e_shstrndx.
    after, before = (tmp_path / "after.so").read_bytes(), with_sections(100)[:size]
    assert {i for i in range(size) if after[i] != before[i]} <= {*range(40, 48), *range(60, 64)}
    assert not any(after[40:48] + after[60:64])


def changed(offset: int, value: bytes) -> bytes:
    data = with_sections(10)
    return data[:offset] + value + data[offset + len(value) :]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"#!/bin/sh\n", id="a script"),
        pytest.param(elf_file(), id="no sections"),
        pytest.param(elf.strip_sections(with_sections(10)), id="done before"),
        pytest.param(changed(4, b"\x01"), id="32-bit"),
        pytest.param(changed(5, b"\x02"), id="big-endian"),
        pytest.param(changed(16, b"\x01"), id="an object file, which is all sections"),
        pytest.param(changed(54, b"\x00"), id="program headers of an unknown size"),
        pytest.param(changed(56, b"\xff\xff"), id="more program headers than can be counted"),
        pytest.param(changed(60, b"\x00"), id="more sections than can be counted"),
        pytest.param(changed(40, b"\xff" * 8), id="section headers beyond the end"),
        pytest.param(changed(64 + 32, b"\xff" * 4), id="a segment beyond the end"),
        pytest.param(changed(64, b"\x06"), id="nothing is loaded"),
        pytest.param(with_sections(10)[:-1], id="cut off"),
        pytest.param(with_sections(10, appended=b"an archive"), id="something appended"),
    ],
)
def test_an_unexpected_file_is_not_changed(data: bytes) -> None:
    assert elf.strip_sections(data) == data


def test_a_real_library_works_without_its_sections(tmp_path: Path) -> None:
    import pydantic_core

    package = Path(pydantic_core.__file__).parent
    shutil.copytree(package, tmp_path / "pydantic_core")
    (library,) = (tmp_path / "pydantic_core").glob("_pydantic_core*.so")
    library.write_bytes(elf.strip_sections(library.read_bytes()))
    assert library.stat().st_size < (package / library.name).stat().st_size
    code = (
        "import pydantic_core as p\n"
        "try: p.SchemaValidator({'type': 'int'}).validate_python('x')\n"
        "except p.ValidationError as error: print(p.__file__, error.error_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{tmp_path}/pydantic_core/__init__.py 1\n"


def needed(data: bytes, tmp_path: Path) -> tuple[str, ...]:
    put(tmp_path, "file.so", data)
    return elf.read(tmp_path / "file.so").needed


def test_an_unused_library_is_not_needed_any_more(tmp_path: Path) -> None:
    before = with_versions(("libstdc++.so.6", "libm.so.6", "libc.so.6"), ("libc.so.6",))
    after = elf.remove_unused_library(before, "libstdc++.so.6")
    assert needed(before, tmp_path) == ("libstdc++.so.6", "libm.so.6", "libc.so.6")
    assert needed(after, tmp_path) == ("libm.so.6", "libc.so.6")
    assert len(after) == len(before)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(with_versions(("libx.so", "libc.so"), ("libc.so", "libx.so")), id="used"),
        pytest.param(with_versions(("liby.so", "libc.so"), ("libc.so",)), id="not needed"),
        pytest.param(elf_file(needed=("libx.so",)), id="no versions, so it is not known"),
        pytest.param(b"#!/bin/sh\n", id="a script"),
        pytest.param(with_versions(("libx.so",), ("libx.so",))[:200], id="cut off"),
    ],
)
def test_a_library_that_may_be_used_stays_needed(data: bytes) -> None:
    assert elf.remove_unused_library(data, "libx.so") == data


def test_packages_are_stripped_and_compiled(tmp_path: Path) -> None:
    put(tmp_path, "a/__init__.py", FAILS)
    put(tmp_path, "anyio/__init__.py", "'reads itself'\n")
    put(tmp_path, "a/stub.pyi")
    put(tmp_path, "a/m_pb2.py", "x = 1\n")
    put(tmp_path, "a/tests/test_a.py")
    put(tmp_path, "certifi/cacert.pem", "PEM\n")
    put(tmp_path, "a/native.so", with_sections(100))
    put(tmp_path, "a/linked.so", with_versions(("libstdc++.so.6", "libc.so.6"), ("libc.so.6",)))
    put(tmp_path, "temporalio/api/v1/service_pb2_grpc.py")
    put(tmp_path, "stubs/only.pyi")
    put(tmp_path, "bin/tool")
    put(tmp_path, "pydantic/v1/__init__.py")
    put(tmp_path, "a-1.dist-info/METADATA", "Name: a\nVersion: 1\n\n# A README\n\nLong.\n")
    for name in ("RECORD", "licenses/LICENSE"):
        put(tmp_path, f"a-1.dist-info/{name}")
    command = [sys.executable, assemble.__file__, "packages", str(tmp_path), "/app/lib"]
    subprocess.run(command, check=True)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if not p.is_dir())
    assert files == [
        "__pycache__/sitecustomize.cpython-311.pyc",
        "a-1.dist-info/METADATA",
        "a-1.dist-info/licenses/LICENSE",
        "a/__init__.pyc",
        "a/linked.so",
        "a/m_pb2.pyc",
        "a/native.so",
        "anyio/__init__.py",
        "anyio/__pycache__/__init__.cpython-311.pyc",
        "certifi/cacert.pem",
        "sitecustomize.py",
        "sources.tar.bz2",
    ]
    assert (tmp_path / "a/native.so").read_bytes() == elf.strip_sections(with_sections(100))
    assert elf.read(tmp_path / "a/linked.so").needed == ("libc.so.6",)
    assert (tmp_path / "a-1.dist-info/METADATA").read_text() == "Name: a\nVersion: 1\n"
    assert (tmp_path / "certifi/cacert.pem").readlink() == Path(assemble.CA_BUNDLE)
    with tarfile.open(tmp_path / "sources.tar.bz2") as sources:
        assert sources.getnames() == ["a/__init__.py"]
    printed = run_with_packages(
        tmp_path,
        """
        import sys, traceback, inspect
        import a.m_pb2, sitecustomize
        print(a.m_pb2.x, a.__doc__, a.Data.__doc__, a.fail.__doc__, a.fail.__code__.co_filename)
        print(sitecustomize._sources)
        try: a.fail()
        except ZeroDivisionError: print(traceback.format_exc().splitlines()[2:4])
        print(inspect.getsource(a.Data).splitlines()[1].strip())
        print(a.m_pb2.__loader__.get_source("a.m_pb2"))
    """,
    )
    assert printed == [
        "1 the package None None /app/lib/a/__init__.py",
        "{}",
        "['  File \"/app/lib/a/__init__.py\", line 6, in fail', '    return 1 / 0']",
        "pass",
        "None",
    ]


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("def f():\n    'x'\n    return 1\n", "def f():\n    pass\n    return 1\n"),
        ("async def f():\n    'x'\n", "async def f():\n    pass\n"),
        ("def f():\n    '''x\n    y\n    '''\n    1\n", "def f():\n    pass\n\n\n    1\n"),
        ("def f():\n    '''é\n    é'''; a = 1  # b\n", "def f():\n    pass; a = 1  # b\n\n"),
        ("def f(): 'é'; return 1", "def f(): pass; return 1"),
        ("class A:\n    'x'\n    def f(self):\n        ('x'\n        'y')\n",
         "class A:\n    pass\n    def f(self):\n        pass\n\n"),
        ("@dataclass\nclass A:\n    'x'\n",) * 2,
        ("'module'\ndef f():\n    return 'x'\n",) * 2,
    ],
)  # fmt: skip
def test_docstrings_are_removed(source: str, result: str) -> None:
    assert assemble.without_docstrings(source) == result


FAILS = """'the package'
class Data:
    'the data'
def fail():
    'what it does'
    return 1 / 0
def nothing():
    'only a docstring'
"""


def run_with_packages(folder: Path, code: str) -> list[str]:
    """Run a program with these packages, as the image does; return the lines of its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_the_sources_are_not_read_if_nothing_fails(tmp_path: Path) -> None:
    """Reading them takes 0.1 s. A package that reads itself belongs to PACKAGES_SOURCES_BESIDE."""
    import httpx

    installed = Path(httpx.__file__).parent.parent
    for name in (
        "httpx",
        "httpcore",
        "h11",
        "h2",
        "hpack",
        "hyperframe",
        "anyio",
        "idna",
        "certifi",
    ):
        shutil.copytree(installed / name, tmp_path / name)
    assemble.strip_packages(tmp_path)
    assemble.compile_packages(tmp_path, str(tmp_path))
    printed = run_with_packages(
        tmp_path,
        """
        import anyio.abc, httpcore, httpx, sitecustomize
        client = httpx.AsyncClient(http2=True, verify=False)
        print(anyio.__file__.endswith(".py"), httpx.__file__, anyio.abc.TaskGroup.__name__)
        print(sitecustomize._sources)
    """,
    )
    assert printed == [f"True {tmp_path}/httpx/__init__.pyc TaskGroup", "{}"]


@pytest.mark.parametrize("mode", [0o600, 0o700, 0o777])
def test_the_modes_do_not_depend_on_the_checkout(tmp_path: Path, mode: int) -> None:
    app = tmp_path / "app"
    put(app, "worker/probe.py", "x = 1\n", mode)
    put(app, "run", "#!/bin/sh\n", mode)
    put(app, "empty", "", mode)
    for folder in (app, app / "worker"):
        folder.chmod(mode | 0o100)
    subprocess.run([sys.executable, "-S", compile_app.__file__, str(app), "/app"], check=True)
    modes = {str(p.relative_to(app)): oct(p.stat().st_mode & 0o777) for p in app.rglob("*")}
    assert oct(app.stat().st_mode & 0o777) == "0o755"
    assert modes == {
        "run": "0o755",
        "empty": "0o644",
        "worker": "0o755",
        "worker/probe.py": "0o644",
        "worker/__pycache__": "0o755",
        "worker/__pycache__/probe.cpython-311.pyc": "0o644",
    }
    assert {p.stat().st_mtime for p in [app, *app.rglob("*")]} == {compile_app.TIMESTAMP}


def test_bytecode_is_that_of_py_compile(tmp_path: Path) -> None:
    put(tmp_path, "app/module.py", "def f(x):\n    return {'a', 'b'} | x\n")
    compile_app.assemble(str(tmp_path / "app"), "/app")
    ours = tmp_path / "app/__pycache__/module.cpython-311.pyc"
    theirs = py_compile.compile(
        str(tmp_path / "app/module.py"),
        str(tmp_path / "theirs.pyc"),
        dfile="/app/module.py",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    assert ours.read_bytes() == Path(str(theirs)).read_bytes()


def test_compiling_the_app_imports_only_what_the_interpreter_contains() -> None:
    """Everything else would have to be compiled first."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "import compile_app\n"
        "new = {name: sys.modules[name].__spec__.origin for name in set(sys.modules) - before}\n"
        "print([name for name, origin in new.items() if origin not in ('built-in', 'frozen')])\n"
    )
    image = str(Path(compile_app.__file__).parent)
    command = [sys.executable, "-S", "-c", code, image]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "['compile_app']\n"


def test_code_that_cannot_be_compiled(tmp_path: Path) -> None:
    put(tmp_path, "app/worker/a.py", "def\n")
    command = [sys.executable, compile_app.__file__, str(tmp_path / "app"), "/app"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "compile_app.py: `worker/a.py` cannot be compiled: invalid syntax (a.py, line 1)\n"
    )


def test_a_module_that_cannot_be_compiled(tmp_path: Path) -> None:
    put(tmp_path, "a.py", "def\n")
    with pytest.raises(AssembleError, match=r"`a[.]py` cannot be compiled"):
        assemble.compile_sources(tmp_path, "/app", [tmp_path / "a.py"])
    with pytest.raises(AssembleError, match=r"`a[.]py` cannot be compiled: invalid syntax"):
        assemble.compile_packages(tmp_path, "/app")


def verify(base: Path, packages: Path) -> int:
    return assemble.verify(base, packages, "amd64")


def test_verify_counts_native_files(base: Path, tmp_path: Path) -> None:
    (base / "usr/local/lib/python3.11/lib-dynload/_tkinter.so").unlink()
    put(tmp_path, "packages/a.libs/libx.so", elf_file())
    extension = elf_file(needed=("libc.so.6", "libx.so"), runpath="$ORIGIN/../a.libs")
    put(tmp_path, "packages/a/a.so", extension)
    before = verify(base, tmp_path / "nothing")
    assert verify(base, tmp_path / "packages") == before + 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (elf_file(AARCH64), "is for arm64, the image is for amd64"),
        (elf_file(243), "is for machine 243, the image is for amd64"),
        (elf_file(needed=("libz.so",)), "`a/a.so` needs `libz.so`, which is not in the image"),
        (elf_file()[:100], "is a broken ELF file"),
        (b"\x7fELF\x01\x01" + bytes(99), "is not a 64-bit little-endian ELF file"),
    ],
)
def test_verify_refuses_a_wrong_file(
    base: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    (base / "usr/local/lib/python3.11/lib-dynload/_tkinter.so").unlink()
    put(tmp_path, "packages/a/a.so", content)
    with pytest.raises(AssembleError) as caught:
        verify(base, tmp_path / "packages")
    assert message in str(caught.value)


def test_an_image_without_native_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssembleError, match="contain no native files"):
        assemble.verify(tmp_path, tmp_path, "amd64")


@pytest.mark.parametrize("arch", ["riscv64", ""])
def test_an_unknown_architecture(tmp_path: Path, arch: str) -> None:
    command = [sys.executable, assemble.__file__, "base", f"--arch={arch}", ".", "."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = f"assemble.py base: unknown architecture `{arch}`: use amd64 or arm64\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_the_interpreters_own_elf_file_can_be_read() -> None:
    file = elf.read(Path(sys.executable).resolve())
    assert file.machine in elf.MACHINES.values()
    assert file.interpreter
    assert "libc.so.6" in file.needed


def test_modules_that_the_worker_imports_are_compiled() -> None:
    """Otherwise each start compiles it again. See assemble.STDLIB_WITH_BYTECODE."""
    loads = (
        "import os, sys; from worker import health, service; import main\n"
        "health.check_imports(execution=True); service._runtime(None)\n"
        "for m in list(sys.modules.values()):\n"
        "    loader = type(getattr(m, '__loader__', None)).__name__\n"
        "    if loader == 'SourceFileLoader': print(m.__file__)\n"
    )
    # In another process, because pytest has imported many more modules into this one.
    compiles = "import assemble; print(*assemble.stdlib_with_bytecode(), sep='\\n')"

    def lines(code: str, folder: Path) -> set[str]:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return set(done.stdout.splitlines())

    image = Path(assemble.__file__).parent
    library = f"{Path(os.__file__).resolve().parent}/"
    loaded = {
        path.removeprefix(library)
        for path in lines(loads, image.parent)
        # The name of _sysconfigdata depends on the architecture.
        if path.startswith(library) and not re.search("site-packages|_sysconfigdata", path)
    }
    assert len(loaded) > 100
    assert loaded - lines(compiles, image) == set()

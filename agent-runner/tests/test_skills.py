import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphton.files import PRIVATE_FOLDER, Folder
from worker import skills
from worker.skills import SkillError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "box").mkdir()
    with Folder(tmp_path / "box") as folder:
        yield folder


def zipped(entries: dict[str, bytes | str], mode: int = 0o100644) -> bytes:
    """Create a zip archive. A `str` is the target of a link."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if isinstance(content, str) else mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def tarred(entries: dict[str, bytes | str], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            info.type = kind
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            data = b"" if isinstance(content, str) else content
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


Pack = Callable[[dict[str, bytes | str]], bytes]
both = pytest.mark.parametrize("pack", [zipped, tarred])


def install(folder: Folder, archive: bytes, page: str = "# Page") -> skills.Skill:
    return skills.install(folder, "s", skills.skill_folder("h1", page), page, archive)


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_description_is_read_whatever_the_line_ends(
    folder: Folder, start: str, end: str
) -> None:
    lines = ["---", "name: s", "description: Does it.", "license: MIT", "---", "How."]
    page = start + end.join(lines)
    assert install(folder, b"", page).description == "Does it."
    assert folder.read("bin/skills/h1/SKILL.md", 1000).decode() == page
    without = install(folder, b"", f"{start}{end}# Title{end}Text")
    assert without.description == "Title"


@both
def test_files_links_and_the_page(folder: Folder, pack: Pack) -> None:
    archive = pack({"SKILL.md": b"of the archive", "a/b.txt": b"x", "a/l": "b.txt", "m": "a/l"})
    page = "---\nname: s\ndescription: 'Does it.'\n---\nHow."
    skill = install(folder, archive, page)
    assert skill == skills.Skill("s", "Does it.", "bin/skills/h1/SKILL.md")
    base = folder.root / "bin/skills/h1"
    assert (base / "SKILL.md").read_text() == page
    assert (base / "a/l").readlink() == Path("b.txt")
    assert folder.read("bin/skills/h1/m", 10) == b"x"
    assert sorted(p.name for p in base.iterdir()) == ["SKILL.md", "a", "m"]
    assert list((folder.root / PRIVATE_FOLDER / "partial").iterdir()) == []


def test_programs_stay_executable(folder: Folder) -> None:
    install(folder, zipped({"run.sh": b"#!/bin/sh\n"}, 0o104755))
    assert (folder.root / "bin/skills/h1/run.sh").stat().st_mode & 0o7777 == 0o755
    skills.install(folder, "t", "bin/skills/h2", "x", zipped({"a": b""}, 0o100600))
    assert (folder.root / "bin/skills/h2/a").stat().st_mode & 0o7777 == 0o644


def test_without_an_archive_and_without_a_page(folder: Folder) -> None:
    skill = install(folder, b"", "# Title\n\ntext")
    assert (skill.description, skill.page) == ("Title", "bin/skills/h1/SKILL.md")
    skill = skills.install(folder, "t", "bin/skills/h2", "", zipped({"SKILL.md": b"# Own\n"}))
    assert skill.description == "Own"
    assert skills.skill_folder("", "x").startswith("bin/skills/2d711642b726b044")


def test_an_installed_skill_is_not_unpacked_again(folder: Folder) -> None:
    install(folder, zipped({"a": b"1"}))
    install(folder, zipped({"a": b"2"}), "new page")
    assert (folder.root / "bin/skills/h1/a").read_bytes() == b"1"
    assert (folder.root / "bin/skills/h1/SKILL.md").read_text() == "new page"


@both
@pytest.mark.parametrize(
    "entries",
    [
        {"../x": b"out"},
        {"/abs": b"out"},
        {"a/../../x": b"out"},
        {"a\\..\\x": b"out"},
        {"l": "../outside"},
        {"l": "/etc/passwd"},
        {"l": "a/../../x"},
        {"a/l": "../../x"},
        {"a/l": "b/../../../x"},
        {"d": "..", "d/x": b"out"},
        {"a/b/up": "../..", "m": "a/b/up/../x"},
    ],
)
def test_paths_that_lead_out_are_refused(
    folder: Folder, tmp_path: Path, pack: Pack, entries: dict[str, bytes | str]
) -> None:
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(SkillError, match="leads out"):
        install(folder, pack(entries))
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert not (folder.root / "bin/skills/h1").exists()
    assert list((folder.root / PRIVATE_FOLDER / "partial").iterdir()) == []


def test_a_link_that_is_written_through_stays_inside(folder: Folder) -> None:
    install(folder, tarred({"a/b/c": b"", "a/b/l": "..", "a/b/l/x": b"1"}))
    assert (folder.root / "bin/skills/h1/a/x").read_bytes() == b"1"


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_hard_links_pipes_and_devices_are_refused(folder: Folder, kind: bytes) -> None:
    with pytest.raises(SkillError, match="which is not a file"):
        install(folder, tarred({"x": b""}, kind))


@both
def test_large_archives_are_refused(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, pack: Pack
) -> None:
    bomb = pack({"zeros": bytes(30_000_000)})
    assert len(bomb) < 60_000
    monkeypatch.setattr(skills, "MAX_BYTES", 10_000_000)
    with pytest.raises(SkillError, match="is larger than 10 MB, unpacked"):
        install(folder, bomb)
    together = pack({f"f{n}": bytes(4_000_000) for n in range(3)})
    with pytest.raises(SkillError, match="is larger than 10 MB"):
        install(folder, together)
    monkeypatch.setattr(skills, "MAX_ENTRIES", 5)
    with pytest.raises(SkillError, match="more than 5 entries"):
        install(folder, pack({f"f{n}": b"" for n in range(6)}))


def gzipped_header(kind: bytes, size: int, content: bytes) -> bytes:
    """An archive that begins with a header of this type, and has this content repeated."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    buffer = io.BytesIO()
    with gzip.open(buffer, "w", 9) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(0, size, len(content)):
            file.write(content)
    return buffer.getvalue()


HEADERS = {
    "PAX record": (tarfile.XHDTYPE, b"30 path=" + b"x" * 21 + b"\n"),
    "PAX record of all": (tarfile.XGLTYPE, bytes(1000)),
    "long name": (tarfile.GNUTYPE_LONGNAME, b"x" * 1000),
    "long link": (tarfile.GNUTYPE_LONGLINK, b"x" * 1000),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_unpacks_to_gigabytes(folder: Folder, name: str) -> None:
    kind, content = HEADERS[name]
    bomb = gzipped_header(kind, 60_000_000, content * 1000)
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(SkillError, match="an entry has a header of more than 128 KiB"):
            install(folder, bomb)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_sparse_file_whose_map_unpacks_to_gigabytes(folder: Folder) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        data = b"9" * 7 + b"\n" + b"1\n" * 5_000_000
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    tracemalloc.start()
    try:
        with pytest.raises(SkillError, match="a header of more than 128 KiB"):
            install(folder, buffer.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_large_file_with_a_long_name_is_installed(folder: Folder) -> None:
    name = "/".join(["long" * 20] * 5)
    install(folder, tarred({name: bytes(5_000_000), "SKILL.md": b"", "b": bytes(3_000_001)}))
    assert (folder.root / "bin/skills/h1" / name).stat().st_size == 5_000_000
    assert (folder.root / "bin/skills/h1/b").stat().st_size == 3_000_001


def test_a_zip_archive_with_a_huge_directory(folder: Folder) -> None:
    archive = zipped({f"{n}": b"" for n in range(40_000)})
    with pytest.raises(SkillError, match="directory is larger than 2 MB"):
        install(folder, archive)


def test_a_false_size_in_a_header(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skills, "MAX_BYTES", 1_000_000)
    archive = zipped({"zeros": bytes(5_000_000)})
    lied = archive.replace((5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lied != archive
    with pytest.raises(SkillError):
        install(folder, lied)


@pytest.mark.parametrize(
    "archive",
    [b"none", b"PK\x03\x04broken", b"\x1f\x8bbroken", zipped({"a": os.urandom(99)})[:60]],
    ids=["text", "zip", "gzip", "half a zip"],
)
def test_broken_archives(folder: Folder, archive: bytes) -> None:
    with pytest.raises(SkillError, match="the archive"):
        install(folder, archive)


@pytest.mark.parametrize("version", ["..", "../x", "a/b", ".hidden", "x" * 200])
def test_an_invalid_version_hash_is_refused(version: str) -> None:
    with pytest.raises(SkillError, match="is invalid"):
        skills.skill_folder(version, "")

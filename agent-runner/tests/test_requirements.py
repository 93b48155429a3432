import tomllib
from pathlib import Path
from typing import Any

import pytest
from requirements import requirements

PROJECT = Path(__file__).parent.parent


def lock(*packages: dict[str, Any], version: str = "2.1") -> dict[str, Any]:
    return {"metadata": {"lock-version": version}, "package": list(packages)}


def package(name: str, groups: list[str], **more: Any) -> dict[str, Any]:
    files = [{"hash": "sha256:b"}, {"hash": "sha256:a"}]
    return {"name": name, "version": "1", "groups": groups, "files": files} | more


def test_sorted_pins_with_hashes_of_the_groups_asked_for() -> None:
    given = lock(package("b", ["main", "dev"]), package("c", ["dev"]), package("a", ["main"]))
    assert requirements(given, {"main"}) == [
        "a==1 --hash=sha256:a --hash=sha256:b",
        "b==1 --hash=sha256:a --hash=sha256:b",
    ]


def test_markers_are_kept() -> None:
    given = lock(package("a", ["main"], markers='sys_platform == "win32"'))
    (line,) = requirements(given, {"main"})
    assert line.startswith('a==1 ; sys_platform == "win32" --hash=')


@pytest.mark.parametrize(
    ("markers", "groups", "expected"),
    [
        ({"main": "x", "dev": "y"}, {"main"}, "a==1 ; (x) --hash="),
        ({"main": "x", "dev": "y"}, {"main", "dev"}, "a==1 ; (y) or (x) --hash="),
        ({"dev": "y"}, {"main", "dev"}, "a==1 --hash="),
    ],
)
def test_markers_by_group(markers: dict[str, str], groups: set[str], expected: str) -> None:
    (line,) = requirements(lock(package("a", ["main", "dev"], markers=markers)), groups)
    assert line.startswith(expected)


def test_path_dependencies_are_omitted() -> None:
    given = lock(package("a", ["main"], files=[], source={"type": "directory", "url": "x"}))
    assert requirements(given, {"main"}) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lock(version="1.1"), "format 1.1"),
        (lock(package("a", ["main"], source={"type": "git"})), "a comes from `git`"),
        (lock(package("a", ["main"], files=[])), "a has no hashes"),
    ],
)
def test_unsupported_lock_files_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        requirements(given, {"main"})


def test_the_lock_file_of_this_project() -> None:
    given = tomllib.loads((PROJECT / "poetry.lock").read_text())
    names = [line.split("==")[0] for line in requirements(given, {"main"})]
    assert {"temporalio", "pydantic", "pydantic-settings", "protobuf"} <= set(names)
    assert not {"graphton", "stigmer-stubs", "mypy", "pytest"} & set(names)


def test_no_package_of_the_lock_file_comes_from_a_mirror() -> None:
    given = tomllib.loads((PROJECT / "poetry.lock").read_text())
    sources = [p["source"]["type"] for p in given["package"] if "source" in p]
    assert sources == ["directory", "directory"]

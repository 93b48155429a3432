"""Converts poetry.lock to a requirements.txt with hashes, on standard output.

`requirements.py poetry.lock main [dev …]` lists the packages of these groups with their locked
versions. Markers are kept: the installer evaluates them for the target platform. Path dependencies
are omitted, because the Dockerfile copies their sources from this repository.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(lock: dict[str, Any], groups: set[str]) -> list[str]:
    """Return one line for each package, sorted by name.

    Raises:
        ValueError: if the lock file has an unsupported format or a package has no hashes.
    """
    version = lock["metadata"]["lock-version"]
    if not version.startswith("2."):
        raise ValueError(f"poetry.lock has format {version}; only 2.x is supported")
    lines = []
    for package in lock["package"]:
        wanted = groups.intersection(package["groups"])
        source = package.get("source", {}).get("type")
        if not wanted or source == "directory":
            continue
        name = package["name"]
        if source not in (None, "legacy"):
            raise ValueError(f"{name} comes from `{source}`; only a package index has hashes")
        hashes = sorted({file["hash"] for file in package["files"]})
        if not hashes:
            raise ValueError(f"{name} has no hashes in poetry.lock")
        marker = _marker(package.get("markers"), wanted)
        pin = f"{name}=={package['version']}" + (f" ; {marker}" if marker else "")
        lines.append(" ".join([pin, *(f"--hash={digest}" for digest in hashes)]))
    return sorted(lines)


def _marker(markers: str | dict[str, str] | None, wanted: set[str]) -> str:
    """The marker for a package; empty if one of the groups needs it on every platform."""
    if markers is None or isinstance(markers, str):
        return markers or ""
    if not wanted <= markers.keys():
        return ""
    return " or ".join(f"({markers[group]})" for group in sorted(wanted))


def main() -> int:
    """Run the command line."""
    path, *groups = sys.argv[1:]
    lock = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    print("\n".join(requirements(lock, set(groups))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

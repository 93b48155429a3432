"""poetry.lock → requirements.txt with hashes, on stdout.

`requirements.py poetry.lock main [dev …]`: the packages of these groups, in exactly the locked
versions. Their markers go along, and are judged by the installer for the target's platform.
Path dependencies are source in this repository: they are copied, not installed.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(lock: dict[str, Any], groups: set[str]) -> list[str]:
    """One line a package, sorted by name.

    Raises:
        ValueError: for what this program does not understand. Guessing would install the wrong
            thing.
    """
    version = lock["metadata"]["lock-version"]
    if not version.startswith("2."):
        raise ValueError(f"poetry.lock has format {version}, this program knows 2.x")
    lines = []
    for package in lock["package"]:
        wanted = groups.intersection(package["groups"])
        source = package.get("source", {}).get("type")
        if not wanted or source == "directory":
            continue
        name = package["name"]
        if source not in (None, "legacy"):
            raise ValueError(f"{name} comes from `{source}`: only a package index has hashes")
        hashes = sorted({file["hash"] for file in package["files"]})
        if not hashes:
            raise ValueError(f"{name} has no hashes in poetry.lock")
        marker = _marker(package.get("markers"), wanted)
        pin = f"{name}=={package['version']}" + (f" ; {marker}" if marker else "")
        lines.append(" ".join([pin, *(f"--hash={digest}" for digest in hashes)]))
    return sorted(lines)


def _marker(markers: str | dict[str, str] | None, wanted: set[str]) -> str:
    """When the package is needed; always, if one of the groups says nothing about it."""
    if markers is None or isinstance(markers, str):
        return markers or ""
    if not wanted <= markers.keys():
        return ""
    return " or ".join(f"({markers[group]})" for group in sorted(wanted))


def main() -> int:
    """The command line."""
    path, *groups = sys.argv[1:]
    lock = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    print("\n".join(requirements(lock, set(groups))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

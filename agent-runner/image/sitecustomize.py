"""Finds the source lines of packages for tracebacks. Python loads this module at each start.

The image has the packages as bytecode, and their sources in one compressed file. The first
traceback through a package takes 0.2 s and 10 MB more than others.

Python itself prints the exception that ends a program, and reads only files: there, the lines of a
package have no text. Everything that uses `traceback`, `logging` or `inspect` has it.
"""

from importlib.machinery import SourcelessFileLoader

_FOLDER = __file__.removesuffix("sitecustomize.py")
_sources: dict[str, str] = {}


def _get_source(loader: SourcelessFileLoader, _module: str) -> str | None:
    """Return the source of a module that is loaded from bytecode; None if there is none."""
    if not _sources:
        _sources.update(_read())
    return _sources.get(loader.path.removeprefix(_FOLDER).removesuffix("c"))


def _read() -> dict[str, str]:
    import tarfile

    # Each file is read before the next one is looked for. Going back would decompress all again.
    with tarfile.open(f"{_FOLDER}sources.tar.bz2") as archive:
        files = ((member.name, archive.extractfile(member)) for member in archive)
        return {name: file.read().decode() for name, file in files if file}


SourcelessFileLoader.get_source = _get_source  # type: ignore[assignment, method-assign]

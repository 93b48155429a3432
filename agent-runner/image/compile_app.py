"""Compiles the runner's own code, and gives it the modes and times that files have in the image.

    compile_app.py FOLDER RUNTIME_PATH

FOLDER will be at RUNTIME_PATH, which tracebacks show.

A build runs this whenever a line of the code has changed, and the base image has no bytecode of the
standard library. To import `argparse` and `pathlib` there takes longer than to compile the runner.
So this program imports only modules that are compiled into the interpreter:
https://github.com/python/cpython/blob/3.11/Python/frozen.c
"""

import _imp
import marshal
import os
import stat
import sys
from _frozen_importlib_external import MAGIC_NUMBER, cache_from_source

TIMESTAMP = 315532800
"""The modification time of all files: the beginning of 1980, the earliest that a zip archive can
store. Builds are reproducible only if all files have the same time."""

_UNCHECKED_HASH = 0b01


def bytecode(source: bytes | str, runtime_path: str) -> bytes:
    """Compile a module to the content of its `.pyc` file.

    It has no timestamp and is not compared with the source when it is loaded, because the source
    does not change in an image. https://peps.python.org/pep-0552/

    Args:
        source: The source.
        runtime_path: Where the source will be, for tracebacks.

    Raises:
        SyntaxError, ValueError: if it is not valid Python.
    """
    code = compile(source, runtime_path, "exec", dont_inherit=True)
    data = source.encode() if isinstance(source, str) else source
    digest = _imp.source_hash(int.from_bytes(MAGIC_NUMBER, "little"), data)
    return MAGIC_NUMBER + _UNCHECKED_HASH.to_bytes(4, "little") + digest + marshal.dumps(code)


def compile_module(path: str, runtime_path: str) -> None:
    """Compile a module to bytecode in `__pycache__`.

    Without it, every start of the worker would take twice the CPU time, because the bytecode cannot
    be written at run time.

    Raises:
        SyntaxError, ValueError: if it is not valid Python.
    """
    with open(path, "rb") as file:
        source = file.read()
    target = cache_from_source(path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        file.write(bytecode(source, runtime_path))


def is_script(path: str) -> bool:
    """Tell whether a file begins with `#!`.

    Where the file system has no modes, git sets the execute bit of all files or of none:
    https://git-scm.com/docs/git-config#Documentation/git-config.txt-corefileMode
    """
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def assemble(root: str, runtime_path: str) -> None:
    """Compile the modules in a folder, and make it readable for everyone.

    In a checkout, files may be readable only for their owner. Type stubs are removed.

    Raises:
        ValueError: if a module is not valid Python.
    """
    paths = [root]
    for folder, folders, files in os.walk(root):
        paths += [f"{folder}/{name}" for name in folders]
        for path in (f"{folder}/{name}" for name in files):
            if path.endswith(".pyi"):
                os.unlink(path)
                continue
            paths.append(path)
    for path in sorted(path for path in paths if path.endswith(".py")):
        inside = path.removeprefix(root).lstrip("/")
        try:
            compile_module(path, f"{runtime_path}/{inside}")
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"`{inside}` cannot be compiled: {error}") from None
        cached = cache_from_source(path)
        paths += [cached, os.path.dirname(cached)]
    for path in paths:
        mode = os.lstat(path).st_mode
        if not stat.S_ISLNK(mode):
            os.chmod(path, 0o755 if stat.S_ISDIR(mode) or is_script(path) else 0o644)
        os.utime(path, (TIMESTAMP, TIMESTAMP), follow_symlinks=False)


def main() -> int:
    """Run the command line. The exit code is 0, or 1 with a message on standard error."""
    root, runtime_path = sys.argv[1:]
    try:
        assemble(root, runtime_path)
    except ValueError as error:
        print(f"compile_app.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

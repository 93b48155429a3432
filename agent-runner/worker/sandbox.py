"""Where an agent's files live: one folder a sandbox, directly under SANDBOX_ROOT_DIR."""

import re
import shutil
from pathlib import Path

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def sandbox_dir(root: Path, sandbox_id: str) -> Path:
    """The folder of a sandbox. It need not exist.

    Raises:
        ValueError: if the id could name anything else than a folder directly under `root`.
    """
    if not _ID.fullmatch(sandbox_id):
        raise ValueError(
            f"`{sandbox_id}` is no sandbox id: letters, digits, `.`, `_`, `-`, at most 128"
        )
    return root / sandbox_id


def remove_sandbox(root: Path, sandbox_id: str) -> bool:
    """Remove a sandbox and all in it. Links in it are removed, not followed.

    Returns:
        False if there was none.

    Raises:
        ValueError: if the id is none, or names a link or a file.
        OSError: if something in it cannot be removed.
    """
    folder = sandbox_dir(root, sandbox_id)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"`{folder}` is not a folder")
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return False
    return True

"""Temporary folders for tests that act as another user."""

import tempfile
from pathlib import Path


def open_to_everyone(tmp_path: Path) -> None:
    """Let other users enter a folder of pytest, whose parents belong to root alone."""
    top = Path(tempfile.gettempdir()).resolve()
    for path in (tmp_path, *tmp_path.parents):
        if top not in path.parents:
            return
        path.chmod(0o755)

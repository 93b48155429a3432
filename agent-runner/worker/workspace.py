"""The folder with all sandboxes, and what keeps the worker from using it."""

import errno
import os
from pathlib import Path
from typing import Final

from graphton.access import restore_access

LOCKS_FOLDER: Final = ".locks"
"""The folder for lock files, next to the sandboxes. A sandbox id cannot begin with a dot."""

PRIVATE_FOLDER: Final = ".private"
"""The folder for the worker's own files about sandboxes, such as conversations.

It is next to the sandboxes, so that commands, which can write only to their sandbox, cannot change
it."""

_UNKNOWN_UID: Final = 65534
"""The owner that the kernel shows for a file whose owner does not exist in a user namespace."""

_UNNAMED: Final = getattr(os, "O_TMPFILE", 0)
"""The flag for a file without a name, which only Linux has."""

UID_MAP: Final = Path("/proc/self/uid_map")
"""The ids of users inside and outside of the worker's user namespace: user_namespaces(7)."""


def find_problem(root: Path, sandbox: str = "") -> str:
    """Say why the worker cannot write to the workspace, and what helps. Empty if it can.

    The folder is created if it does not exist. If it belongs to the worker's user, and the user's
    rights are missing, they are restored: an agent's command may have removed them.

    Args:
        root: The folder with all sandboxes.
        sandbox: The name of a sandbox to check too. It need not exist.
    """
    try:
        return _find_problem(root, sandbox)
    except OSError as error:  # for example a file server that has lost the folder
        return f"the workspace `{root}` cannot be used: {error.strerror or error}"


def _find_problem(root: Path, sandbox: str) -> str:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        nearest = next(path for path in (root, *root.parents) if os.path.lexists(path))
        return f"the workspace `{root}` cannot be created: " + _explain(nearest, error.errno, False)
    used = [root, root / LOCKS_FOLDER, root / PRIVATE_FOLDER]
    if sandbox:
        used += [root / sandbox, root / sandbox / ".tmp", root / PRIVATE_FOLDER / sandbox]
    for folder in used:
        restore_access(folder)
        if folder == root or os.path.lexists(folder):
            code = _access_error(folder)
            if not code and folder == root:
                code = _write_error(folder)
            if code:
                explanation = _explain(folder, code, os.path.ismount(root))
                return f"the workspace `{root}` cannot be used: {explanation}"
    return ""


def _access_error(folder: Path) -> int:
    """The error of writing to a folder; 0 if it is writable."""
    if not folder.is_dir():
        return errno.ENOTDIR
    if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return 0
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    return errno.EROFS if read_only else errno.EACCES


def _write_error(folder: Path) -> int:
    """The error of writing: the disk can be full, or the mounted folder removed on the host."""
    try:
        if not folder.stat().st_nlink:  # removed, unless the file system counts no links
            (folder / LOCKS_FOLDER).mkdir(exist_ok=True)
    except OSError as error:
        return error.errno or errno.EIO
    if not _UNNAMED:
        return 0
    try:
        descriptor = os.open(folder, _UNNAMED | os.O_WRONLY, 0o600)
    except OSError as error:
        # Not every file system has files without a name: open(2).
        return 0 if error.errno in {errno.EOPNOTSUPP, errno.EISDIR} else error.errno or errno.EIO
    try:
        os.write(descriptor, bytes(4096))
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        os.close(descriptor)
    return 0


def _explain(folder: Path, code: int | None, mounted: bool) -> str:
    if code not in {errno.EACCES, errno.EPERM}:
        known = {
            errno.EROFS: f"`{folder}` is read-only; mount the folder without `ro`",
            errno.EEXIST: f"`{folder}` is not a folder",
            errno.ENOTDIR: f"`{folder}` is not a folder",
            errno.ENOENT: f"`{folder}` was removed; create it, and start the container again",
            errno.ENOSPC: "its disk is full",
            errno.EDQUOT: "the quota of its disk is used up",
        }
        return known.get(code or 0, os.strerror(code or errno.EIO))
    owner, uid, gid = folder.stat(), os.geteuid(), os.getegid()
    if owner.st_uid == uid:
        return _explain_own(folder, owner.st_mode)
    if mounted and _uid_outside(0) != 0:
        return _explain_to_rootless(folder, owner.st_uid)
    change_owner = f"sudo chown -R {uid}:{gid}"
    text = f"`{folder}` belongs to uid {owner.st_uid}, and the agent-runner runs as uid {uid}. "
    if not mounted:
        return text + f"Give it to the agent-runner: `{change_owner} {folder}`"
    # The folder has another path on the host, which the worker cannot know.
    text += (
        f"On the host, give the mounted folder to the agent-runner: `{change_owner} FOLDER`; the "
        "stigmer CLI and `cargo xtask` mount `~/.stigmer/data/workspace`"
    )
    if owner.st_uid in {0, _UNKNOWN_UID}:  # no container should run as root
        return text
    return text + (
        "; or start the container as the owner of the folder: "
        f"`docker run --user {owner.st_uid}:{owner.st_gid} …`"
    )


def _explain_to_rootless(folder: Path, owner: int) -> str:
    """The explanation for a rootless engine, where the container's root is the engine's user."""
    uid = os.geteuid()
    start = "the container with `--user 0:0`, which on the host is that user"
    if owner == 0:
        who = "uid 0 of this container, which is the user who runs the rootless engine"
        advice = f"Start {start}"
    else:
        unknown = owner == _UNKNOWN_UID
        who = "another user of the host" if unknown else f"uid {owner} of this container"
        advice = f"Give the mounted folder to the user who runs the engine, and start {start}"
    text = f"`{folder}` belongs to {who}, and the agent-runner runs as uid {uid}. {advice}"
    outside = _uid_outside(uid)
    if not outside:  # as far as this namespace shows
        return text
    return text + (
        f"; or give the mounted folder to the agent-runner, which on the host has uid {outside}: "
        f"`sudo chown -R {outside}:{outside} FOLDER`"
    )


def _uid_outside(uid: int) -> int | None:
    """The number that a user has outside of the user namespace. None if it has none."""
    if not UID_MAP.exists():  # not on Linux
        return uid
    for line in UID_MAP.read_text().splitlines():
        inside, outside, count = map(int, line.split())
        if inside <= uid < inside + count:
            return outside + uid - inside
    return None


def _explain_own(folder: Path, mode: int) -> str:
    """Why the owner cannot use the folder. Linux checks the mode before a security module."""
    if mode & 0o700 != 0o700:
        return f"its owner may not write to `{folder}`; permit it: `chmod u+rwx`"
    return (
        f"a security module such as SELinux forbids access to `{folder}`; "
        "mount the folder with `:z` at the end of its volume"
    )

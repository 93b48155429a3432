"""Ids of tool uses, in a form that every service accepts."""

import hashlib
import re
from typing import Final

_SAFE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def safe_id(use_id: str) -> str:
    """An id of at most 64 letters, digits, `_` and `-`. Another service may have chosen others."""
    if _SAFE.fullmatch(use_id):
        return use_id
    return f"call_{hashlib.sha256(use_id.encode(errors='replace')).hexdigest()[:32]}"

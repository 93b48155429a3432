"""Helpers for text that goes to models, people and files."""

import json
from typing import Any


def truncate_middle(text: str, limit: int) -> str:
    """Cut a text down to `limit` characters, plus a note that says how much is missing.

    The first three quarters and the last quarter of the limit are kept: errors are often at the
    end of an output.
    """
    if len(text) <= limit:
        return text
    head = limit - limit // 4
    left_out = len(text) - limit
    return f"{text[:head]}\n[… {left_out} characters left out …]\n{text[-(limit // 4) :]}"


def compact_json(value: Any) -> str:
    """Encode a value as JSON without spaces, and with characters other than ASCII as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

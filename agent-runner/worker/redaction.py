"""Keeps secrets out of what people, models and logs get to see."""

import base64
import json
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, quote_plus

SHORTEST: Final = 4
"""Characters. Shorter values are left alone: a text without its every `1` says nothing."""

_LONG_LINE: Final = 16
"""Characters of a line that alone gives a secret of several lines (a key) away."""


class Redactor:
    """Replaces secrets by their names.

    Also where they are quoted for JSON or a URL, or encoded in base64. Whoever wants to can hide
    them better than that: this keeps accidents out, not an agent that means to tell.

    Args:
        secrets: Names and values. Several values may have one name.
    """

    def __init__(self, secrets: Iterable[tuple[str, str]] = ()) -> None:
        self._names: dict[str, str] = {}
        for name, value in secrets:
            for form in _forms(value):
                if len(form) >= SHORTEST:
                    self._names.setdefault(form, name)
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, text: str) -> str:
        """The text without secrets. What no UTF-8 can hold is replaced too."""
        text = text.encode(errors="replace").decode()
        return self._pattern.sub(lambda match: f"[secret {self._names[match[0]]}]", text)

    def begun(self, text: str) -> str:
        """The same for a text that goes on: its end stays out if a secret may begin there."""
        longest = max(map(len, self._names), default=0)
        for start in range(max(0, len(text) - longest), len(text)):
            if any(form.startswith(text[start:]) for form in self._names):
                return self(text[:start])
        return self(text)

    def within(self, value: Any) -> Any:
        """The same for all texts in a JSON value."""
        match value:
            case str():
                return self(value)
            case dict():
                return {self(str(key)): self.within(item) for key, item in value.items()}
            case list():
                return [self.within(item) for item in value]
        return value


def _forms(value: str) -> list[str]:
    stripped = value.strip()
    encoded = base64.b64encode(value.encode(errors="replace")).decode()
    lines = [line.strip() for line in stripped.splitlines()]
    long_lines = [line for line in lines if len(line) >= _LONG_LINE] if len(lines) > 1 else []
    return [value, stripped, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1],
            quote(value, safe="", errors="replace"), quote_plus(value, errors="replace"), encoded,
            *long_lines]  # fmt: skip

"""Removes secrets from texts for people, models and logs."""

import base64
import json
import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import quote, quote_plus

MIN_SECRET_CHARACTERS: Final = 4
"""Shorter secrets are not replaced: replacing every `1` would make a text useless."""

_MIN_LINE_CHARACTERS: Final = 16
"""In a secret of several lines, such as a private key, a line of this length is a secret too."""


class Redactor:
    """Replaces secrets with their names.

    It also finds secrets that are escaped for JSON or a URL, or encoded as base64. This prevents
    accidents. It does not stop an agent that tries to reveal a secret, which can encode it in some
    other way.

    Args:
        secrets: Pairs of a name and a value. Several values may have the same name.
    """

    def __init__(self, secrets: Iterable[tuple[str, str]] = ()) -> None:
        self._names: dict[str, str] = {}
        for name, value in secrets:
            for form in _encoded_forms(value):
                if len(form) >= MIN_SECRET_CHARACTERS:
                    self._names.setdefault(form, name)
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, text: str) -> str:
        """Return the text without secrets. Characters that UTF-8 cannot encode become `?`."""
        text = text.encode(errors="replace").decode()
        return self._pattern.sub(lambda match: f"[secret {self._names[match[0]]}]", text)

    def redact_partial(self, text: str) -> str:
        """Redact an incomplete text. Its end is left out if a secret may begin there."""
        longest = max(map(len, self._names), default=0)
        for start in range(max(0, len(text) - longest), len(text)):
            if any(form.startswith(text[start:]) for form in self._names):
                return self(text[:start])
        return self(text)

    def redact_json(self, value: Any) -> Any:
        """Redact all texts in a JSON value, including keys."""
        match value:
            case str():
                return self(value)
            case dict():
                return {self(str(key)): self.redact_json(item) for key, item in value.items()}
            case list():
                return [self.redact_json(item) for item in value]
        return value


CURRENT_REDACTOR: Final[ContextVar[Callable[[str], str]]] = ContextVar("redactor", default=str)
"""Removes the secrets of the execution that runs in this context. The log uses it."""


def _encoded_forms(value: str) -> list[str]:
    stripped = value.strip()
    encoded = base64.b64encode(value.encode(errors="replace")).decode()
    lines = [line.strip() for line in stripped.splitlines()]
    long_lines = (
        [line for line in lines if len(line) >= _MIN_LINE_CHARACTERS] if len(lines) > 1 else []
    )
    return [value, stripped, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1],
            repr(value)[1:-1], repr(value.encode(errors="replace"))[2:-1],
            quote(value, safe="", errors="replace"), quote_plus(value, errors="replace"), encoded,
            *long_lines]  # fmt: skip

"""Removes secrets from texts for people, models and logs."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import quote, quote_plus

MIN_SECRET_CHARACTERS: Final = 4
"""Shorter secrets are not replaced: replacing every `1` would make a text useless."""

_MIN_LINE_CHARACTERS: Final = 16
"""In a secret of several lines, such as a private key, a line of this length is a secret too."""

_BASE64_LINE_CHARACTERS: Final = (76, 64)
"""The lengths of the lines that `base64` and MIME write, and `openssl` and PEM."""


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

    @property
    def placeholders(self) -> frozenset[str]:
        """The texts that take the place of secrets."""
        return frozenset(map(_placeholder, self._names.values()))

    def __call__(self, text: str) -> str:
        """Return the text without secrets. Characters that UTF-8 cannot encode become `?`."""
        text = text.encode(errors="replace").decode()
        redacted, position = [], 0
        for start, end, name in self._find(text):
            redacted += [text[position:start], _placeholder(name)]
            position = end
        return "".join([*redacted, text[position:]])

    def _find(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield where secrets are in a text, in order, and their names.

        Secrets that overlap count as one, with the name of the first and longest. The time is
        proportional to the length of the text: unlike a regular expression of all forms, `find`
        does not begin anew at each character.
        """
        found = []
        for form in self._names:
            start = text.find(form)
            while start >= 0:
                found.append((start, -len(form), form))
                start = text.find(form, start + len(form))
        found.sort()
        position = 0
        while position < len(found):
            start, length, form = found[position]
            end = start - length
            position += 1
            while position < len(found) and found[position][0] < end:
                end = max(end, found[position][0] - found[position][1])
                position += 1
            yield start, end, self._names[form]

    def redact_partial(self, text: str) -> str:
        """Redact an incomplete text. Its end is left out if a secret may begin there."""
        longest = max((_overlap(text, form) for form in self._names), default=0)
        return self(text[: len(text) - longest])

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


def _placeholder(name: str) -> str:
    return f"[secret {name}]"


def _overlap(text: str, form: str) -> int:
    """The length of the longest end of a text with which a form begins.

    This is the search of Knuth, Morris and Pratt: its time is proportional to the form's length.
    """
    tail = text[-len(form) :]
    shorter = [0] * len(form)  # for each beginning of the form: its longest end that is another one
    length = 0
    for index in range(1, len(form)):
        while length and form[index] != form[length]:
            length = shorter[length - 1]
        length += form[index] == form[length]
        shorter[index] = length
    length = 0
    for character in tail:
        while length and (length == len(form) or character != form[length]):
            length = shorter[length - 1]
        length += character == form[length]
    return length


def _encoded_forms(value: str) -> list[str]:
    stripped = value.strip()
    data = value.encode(errors="replace")
    # `echo $NAME | base64` encodes a newline too.
    encoded = [
        form
        for content in {
            data,
            stripped.encode(errors="replace"),
            stripped.encode(errors="replace") + b"\n",
        }
        for form in _base64_forms(content)
    ]
    lines = [line.strip() for line in stripped.splitlines()]
    long_lines = (
        [line for line in lines if len(line) >= _MIN_LINE_CHARACTERS] if len(lines) > 1 else []
    )
    return [value, stripped, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1],
            repr(value)[1:-1], repr(data)[2:-1],
            quote(value, safe="", errors="replace"), quote_plus(value, errors="replace"), *encoded,
            *long_lines]  # fmt: skip


def _base64_forms(data: bytes) -> list[str]:
    """The data as base64: in one line, in lines as programs write it, for URLs."""
    text = base64.b64encode(data).decode()
    forms = [text, text.rstrip("="), base64.urlsafe_b64encode(data).decode().rstrip("=")]
    for size in _BASE64_LINE_CHARACTERS:
        lines = [text[start : start + size] for start in range(0, len(text), size)]
        if len(lines) > 1:
            long_lines = (line for line in lines if len(line) >= _MIN_LINE_CHARACTERS)
            forms += ["\n".join(lines), *long_lines]
    return forms

"""Log records on stderr, as text for people or as one JSON object a line."""

import json
import logging
import sys
import time
from collections.abc import Iterable
from typing import TextIO

from worker.settings import LogFormat, LogLevel

QUIET = {
    # Requests and headers, with keys in them.
    **dict.fromkeys(("grpclib", "h2", "hpack", "httpcore", "httpx"), logging.WARNING),
    # What activities get and return, with what people wrote.
    "temporalio": logging.INFO,
}
"""Libraries of which no record below a level is written, whatever the configuration says."""


class _Utc(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


class _Text(_Utc):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        text = super().formatMessage(record)
        fields = getattr(record, "fields", {})
        return " ".join([text, *(f"{name}={_value(value)}" for name, value in fields.items())])


class _Json(_Utc):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def _value(value: object) -> str:
    text = str(value)
    return text if text and " " not in text else json.dumps(text, ensure_ascii=False)


class _Handler(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO, secrets: Iterable[str]) -> None:
        super().__init__(stream)
        # Longest first: one may be a part of another.
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text


def configure(level: LogLevel, style: LogFormat, secrets: Iterable[str] = ()) -> None:
    """Send every record of this process to stderr. Calling it again replaces the first call.

    A record's `fields` (`extra={"fields": {…}}`) become `name=value`, or members of the object.

    Args:
        level: The least important records that are written.
        style: How they are written.
        secrets: What no record may hold, whoever writes it.
    """
    handler = _Handler(sys.stderr, secrets)
    match style:
        case LogFormat.JSON:
            handler.setFormatter(_Json())
        case LogFormat.TEXT:
            handler.setFormatter(_Text("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library, least in QUIET.items():
        logging.getLogger(library).setLevel(max(least, logging.getLogger().level))

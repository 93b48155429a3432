"""Writes log records to standard error, as text or as one JSON object per line."""

import json
import logging
import sys
import time
from collections.abc import Iterable
from typing import TextIO

from worker.settings import LogFormat, LogLevel

MIN_LIBRARY_LEVELS = {
    # Their debug records contain requests and headers, and therefore keys.
    **dict.fromkeys(("grpclib", "h2", "hpack", "httpcore", "httpx"), logging.WARNING),
    # Its debug records contain the arguments and results of activities, and therefore user data.
    "temporalio": logging.INFO,
}
"""The lowest level of each library's records that is written, whatever the configuration says."""


class _UtcFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


class _TextFormatter(_UtcFormatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        text = super().formatMessage(record)
        fields = getattr(record, "fields", {})
        return " ".join([text, *(f"{name}={_quote(value)}" for name, value in fields.items())])


class _JsonFormatter(_UtcFormatter):
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


def _quote(value: object) -> str:
    text = str(value)
    return text if text and " " not in text else json.dumps(text, ensure_ascii=False)


class _RedactingHandler(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO, secrets: Iterable[str]) -> None:
        super().__init__(stream)
        # Longest first, because one may be part of another.
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text


def configure(level: LogLevel, style: LogFormat, secrets: Iterable[str] = ()) -> None:
    """Send all log records of this process to standard error. A second call replaces the first.

    The `fields` of a record (`extra={"fields": {…}}`) become `name=value`, or members of the JSON
    object.

    Args:
        level: The lowest level that is written.
        style: The format.
        secrets: Texts to replace with `[secret]` in every record.
    """
    handler = _RedactingHandler(sys.stderr, secrets)
    match style:
        case LogFormat.JSON:
            handler.setFormatter(_JsonFormatter())
        case LogFormat.TEXT:
            handler.setFormatter(
                _TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
            )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library, least in MIN_LIBRARY_LEVELS.items():
        logging.getLogger(library).setLevel(max(least, logging.getLogger().level))

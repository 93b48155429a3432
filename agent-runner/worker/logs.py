"""Writes log records to standard error, as text or as one JSON object per line."""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from worker.redaction import CURRENT_REDACTOR, Redactor
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
    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

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
        # Redacted here too: a secret that is escaped twice would not be found later.
        texts = {name: self._redact(v) for name, v in entry.items() if isinstance(v, str)}
        return json.dumps(entry | texts, ensure_ascii=False, default=str)


def _quote(value: object) -> str:
    text = str(value)
    return text if text and " " not in text else json.dumps(text, ensure_ascii=False)


class _RedactingHandler(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO, redact: Redactor) -> None:
        super().__init__(stream)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self.redact(super().format(record))

    def redact(self, text: str) -> str:
        return CURRENT_REDACTOR.get()(self._redact(text))


def configure(level: LogLevel, style: LogFormat, redact: Redactor | None = None) -> None:
    """Send all log records of this process to standard error. A second call replaces the first.

    The `fields` of a record (`extra={"fields": {…}}`) become `name=value`, or members of the JSON
    object.

    Args:
        level: The lowest level that is written.
        style: The format.
        redact: Removes the worker's secrets from every record. A record of an execution is also
            redacted with CURRENT_REDACTOR.
    """
    handler = _RedactingHandler(sys.stderr, redact or Redactor())
    match style:
        case LogFormat.JSON:
            handler.setFormatter(_JsonFormatter(handler.redact))
        case LogFormat.TEXT:
            handler.setFormatter(
                _TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
            )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library, least in MIN_LIBRARY_LEVELS.items():
        logging.getLogger(library).setLevel(max(least, logging.getLogger().level))
